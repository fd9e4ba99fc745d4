//! `interceptor policy check`: is it right, and is it meant?
//!
//! It owns how errors and warnings are shown. What they are is [`interceptor_core::policy`]'s.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use interceptor_core::audit::render::Escaped;
use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, PolicyError, Snapshot, Source};
use serde_json::{Value, json};

use super::super::CliError;
use super::super::output::{self, Colour, Colours};
use super::arguments::CheckArgs;
use super::suite;
use crate::policy_files::{self, PolicyFilesError};

/// What was found in one directory.
struct Checked {
    directory: PathBuf,
    found: Result<(Snapshot, Vec<PolicyError>), PolicyFilesError>,
}

pub(super) fn run(arguments: &CheckArgs, out: &mut impl Write) -> Result<(), CliError> {
    let directories = match arguments.tests {
        true => suite::directories(&arguments.directory)?,
        false => vec![arguments.directory.clone()],
    };
    let now_unix_ns = now_unix_ns();
    let mut all = Vec::new();
    for (index, directory) in directories.into_iter().enumerate() {
        let found = check(&directory, arguments.tests, now_unix_ns);
        let is_empty = matches!(&found, Err(PolicyFilesError::NoFiles { .. }));
        // The directory that was named may hold nothing but folders, a folder anything.
        if is_empty && arguments.tests && (index > 0 || all.is_empty()) {
            continue;
        }
        all.push(Checked { directory, found });
    }
    if all.is_empty() {
        let directory = arguments.directory.clone();
        return Err(PolicyFilesError::NoFiles { directory }.into());
    }
    let (warnings, errors) = (warnings(&all).count(), errors(&all));
    if arguments.json {
        output::json(out, &as_json(&all))?;
    } else {
        print(&all, out)?;
    }
    match errors.len() {
        0 if warnings > 0 && arguments.deny_warnings => {
            Err(CliError::PolicyWarnings { count: warnings })
        }
        0 => Ok(()),
        count if arguments.json => Err(CliError::PolicyBroken { count }),
        _ => {
            let broken = all
                .iter()
                .filter_map(|checked| checked.found.as_ref().err());
            let texts: Vec<String> = broken.map(ToString::to_string).collect();
            Err(CliError::Refused(texts.join("\n")))
        }
    }
}

fn check(
    directory: &Path,
    with_tests: bool,
    now_unix_ns: u64,
) -> Result<(Snapshot, Vec<PolicyError>), PolicyFilesError> {
    let files = policy_files::read(directory)?.into_files();
    let tests = match with_tests {
        true => suite::tests(directory)?,
        false => Vec::new(),
    };
    let key = HashKey::new([0; 32]);
    policy::check(&sources(&files), &sources(&tests), &key, now_unix_ns)
        .map_err(PolicyFilesError::Policy)
}

fn sources(files: &[(String, String)]) -> Vec<Source<'_>> {
    let files = files.iter();
    files.map(|(file, text)| Source { file, text }).collect()
}

fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn warnings(all: &[Checked]) -> impl Iterator<Item = &PolicyError> {
    let right = all.iter().filter_map(|checked| checked.found.as_ref().ok());
    right.flat_map(|(_, warnings)| warnings)
}

/// The errors as objects; what is wrong with a directory or file as a whole has no place in it.
fn errors(all: &[Checked]) -> Vec<Value> {
    let broken = all
        .iter()
        .filter_map(|checked| checked.found.as_ref().err());
    let errors = broken.flat_map(|error| match error {
        PolicyFilesError::Policy(errors) => errors.0.iter().map(object).collect(),
        other => vec![json!({"message": other.to_string()})],
    });
    errors.collect()
}

fn print(all: &[Checked], out: &mut impl Write) -> io::Result<()> {
    let colours = Colours::for_stdout();
    for checked in all {
        let Ok((snapshot, warnings)) = &checked.found else {
            continue;
        };
        for warning in warnings {
            let text = warning.to_string();
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default();
            let painted = first.strip_prefix("warning").map(|rest| {
                let word = colours.paint(Colour::Yellow, "warning");
                format!("{word}{}", Escaped(rest))
            });
            writeln!(
                out,
                "{}",
                painted.unwrap_or_else(|| Escaped(first).to_string())
            )?;
            for line in lines {
                writeln!(out, "{}", Escaped(line))?;
            }
            writeln!(out)?;
        }
        if all.len() > 1 {
            write!(
                out,
                "{}: ",
                Escaped(&checked.directory.display().to_string())
            )?;
        }
        writeln!(out, "{}", policy_files::summary(snapshot))?;
    }
    Ok(())
}

fn as_json(all: &[Checked]) -> Value {
    let errors = errors(all);
    let found = all.iter().filter_map(|checked| {
        let (snapshot, _) = checked.found.as_ref().ok()?;
        Some(json!({
            "directory": checked.directory.display().to_string(),
            "summary": policy_files::summary(snapshot),
        }))
    });
    json!({
        "ok": errors.is_empty(),
        "errors": errors,
        "warnings": warnings(all).map(object).collect::<Vec<_>>(),
        "found": found.collect::<Vec<_>>(),
    })
}

fn object(error: &PolicyError) -> Value {
    let place = (!error.file.is_empty()).then_some(&error.file);
    json!({
        "severity": error.severity(),
        "message": error.problem.to_string(),
        "help": error.help,
        "file": place,
        "line": place.map(|_| error.line),
        "column": place.map(|_| error.column),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TARGET: &str =
        "kind: Target\nname: t\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}\n";
    const TWICE: &str = "kind: Rule\nname: a\nspec: {match: {}, then: deny}\n---\nkind: Rule\nname: b\nspec: {match: {}, then: deny}\n";

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn run_on(directory: &Path, flags: &[&str]) -> (Result<(), CliError>, String) {
        let arguments = CheckArgs {
            directory: directory.to_owned(),
            tests: flags.contains(&"tests"),
            deny_warnings: flags.contains(&"deny-warnings"),
            json: flags.contains(&"json"),
        };
        let mut out = Vec::new();
        let done = run(&arguments, &mut out);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn warnings_are_shown_and_denied_only_when_asked() {
        let directory = directory(&[("t.yaml", TARGET), ("r.yaml", TWICE)]);
        let (done, shown) = run_on(directory.path(), &[]);
        assert!(done.is_ok(), "{done:?}");
        assert!(
            shown.starts_with("warning: the rule `b` can never decide"),
            "{shown}"
        );
        assert!(shown.contains("r.yaml:6:7"), "{shown}");
        assert!(shown.contains("1 target, 2 rules"), "{shown}");
        let (done, _) = run_on(directory.path(), &["deny-warnings"]);
        assert!(
            matches!(done, Err(CliError::PolicyWarnings { count: 1 })),
            "{done:?}"
        );
    }

    #[test]
    fn a_machine_gets_both_with_their_places() {
        let directory = directory(&[("t.yaml", TARGET), ("r.yaml", TWICE)]);
        let (done, shown) = run_on(directory.path(), &["json"]);
        assert!(done.is_ok(), "{done:?}");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["ok"], true);
        assert_eq!(shown["errors"], json!([]));
        assert_eq!(shown["warnings"][0]["severity"], "warning");
        assert_eq!(shown["warnings"][0]["line"], 6);

        let broken = self::directory(&[("t.yaml", &TARGET.replace("protocol", "protocl"))]);
        let (done, shown) = run_on(broken.path(), &["json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["ok"], false);
        assert_eq!(shown["errors"][0]["severity"], "error");
        let unknown = &shown["errors"][1];
        assert_eq!(unknown["column"], 8, "{shown}");
        assert_eq!(unknown["help"], "did you mean `protocol`?");
        let count = shown["errors"].as_array().unwrap().len();
        assert!(
            matches!(done, Err(CliError::PolicyBroken { count: told }) if told == count),
            "{done:?}"
        );
        let (done, shown) = run_on(&broken.path().join("nowhere"), &["json"]);
        assert!(
            matches!(done, Err(CliError::PolicyBroken { count: 1 })),
            "{done:?}"
        );
        assert!(
            shown.contains("cannot read the policy directory"),
            "{shown}"
        );
    }

    #[test]
    fn a_pack_is_checked_with_the_target_of_its_tests() {
        let directory = directory(&[("pack/r.yaml", TWICE), ("pack/tests/t.yaml", TARGET)]);
        let (done, _) = run_on(&directory.path().join("pack"), &[]);
        assert!(
            done.unwrap_err()
                .to_string()
                .contains("no document of kind Target")
        );
        let (done, shown) = run_on(directory.path(), &["tests"]);
        assert!(done.is_ok(), "{done:?}");
        assert!(shown.contains("warning: the rule `b`"), "{shown}");
        let (done, _) = run_on(directory.path(), &[]);
        assert!(
            matches!(&done, Err(CliError::Refused(text)) if text.contains("no *.yaml")),
            "{done:?}"
        );
    }

    /// What ships is right, and meant.
    #[test]
    fn the_packs_have_no_warning_but_the_grant_that_is_an_example() {
        let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let mut count = 0;
        for directory in suite::directories(&packs).unwrap().iter().skip(1) {
            // While the example's Grant is in force.
            let at = 1_795_176_000_000_000_000;
            let (_, warnings) =
                check(directory, true, at).unwrap_or_else(|error| panic!("\n{error}"));
            let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            assert!(shown.is_empty(), "{}", shown.join("\n"));
            count += 1;
        }
        assert!(count >= 10, "only {count} packs");
    }
}
