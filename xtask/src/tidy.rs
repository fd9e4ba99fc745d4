//! What neither rustfmt nor clippy looks at: lengths, words, and what the core depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{cargo, root, show};

/// A file that is longer is probably two.
const LINES_MAX: usize = 600;

/// The heading in CONTRIBUTING.md under which the words stand, one in each `- ` line.
const WORDS_HEADING: &str = "## Words that do not pass";

/// What the core must not reach, however indirectly: sockets, clocks, files and logging.
const NOT_IN_CORE: &[&str] = &[
    "async-io",
    "async-std",
    "chrono",
    "fs-err",
    "jiff",
    "log",
    "mio",
    "nix",
    "polling",
    "rustix",
    "signal-hook",
    "sled",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tracing",
    "tracing-core",
    "walkdir",
];

pub(crate) fn run() -> Result<()> {
    let root = root()?;
    let files = tracked_files()?;
    warn_of_long_files(&root, &files)?;
    find_words(&root, &files)?;
    core_is_no_std(&root)?;
    core_dependencies_are_pure()?;
    println!("{} files are tidy, and the core is pure", files.len());
    Ok(())
}

fn tracked_files() -> Result<Vec<String>> {
    let list = cargo::capture(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    )?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn warn_of_long_files(root: &Path, files: &[String]) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let Some(text) = read(root, file)? else {
            continue;
        };
        let lines = text.lines().count();
        if lines > LINES_MAX {
            show::progress(&format!(
                "{file} has {lines} lines: it is probably two files"
            ));
        }
    }
    Ok(())
}

fn find_words(root: &Path, files: &[String]) -> Result<()> {
    let guide = fs::read_to_string(root.join("CONTRIBUTING.md")).context("no CONTRIBUTING.md")?;
    let words = forbidden_words(&guide);
    ensure!(
        !words.is_empty(),
        "CONTRIBUTING.md lists no words under {WORDS_HEADING:?}"
    );
    let mut found = Vec::new();
    let not_text = |file: &&String| {
        // The guide names the words, and the lock file names what others chose to call things.
        !file.ends_with("CONTRIBUTING.md") && !file.ends_with("Cargo.lock")
    };
    for file in files.iter().filter(not_text) {
        let Some(text) = read(root, file)? else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{file}:{}: {word}", number.saturating_add(1)));
            }
        }
    }
    if !found.is_empty() {
        bail!(
            "words that CONTRIBUTING.md keeps out:\n  {}",
            found.join("\n  ")
        );
    }
    Ok(())
}

/// Text of a file; `None` for a deleted or binary one.
fn read(root: &Path, file: &str) -> Result<Option<String>> {
    let path = root.join(file);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
    Ok(String::from_utf8(bytes).ok())
}

fn forbidden_words(guide: &str) -> Vec<String> {
    guide
        .lines()
        .skip_while(|line| *line != WORDS_HEADING)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// A word in capitals is looked for as it stands, any other in any case; never inside a word.
fn has_word(line: &str, word: &str) -> bool {
    let capitals = !word.chars().any(char::is_lowercase);
    let (line, word) = if capitals {
        (line.to_owned(), word.to_owned())
    } else {
        (line.to_lowercase(), word.to_lowercase())
    };
    let is_edge = |neighbour: Option<char>| !neighbour.is_some_and(char::is_alphanumeric);
    line.match_indices(&word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.strip_prefix(word.as_str()).unwrap_or_default();
        is_edge(before.chars().next_back()) && is_edge(after.chars().next())
    })
}

fn core_is_no_std(root: &Path) -> Result<()> {
    let lib = fs::read_to_string(root.join("interceptor-core/src/lib.rs"))?;
    ensure!(
        lib.lines().any(|line| line == "#![no_std]"),
        "interceptor-core/src/lib.rs lost its #![no_std]: the core could reach files and clocks"
    );
    let mut previous = "";
    for line in lib.lines() {
        ensure!(
            line != "extern crate std;" || previous == "#[cfg(test)]",
            "interceptor-core/src/lib.rs takes std in outside of tests"
        );
        previous = line;
    }
    Ok(())
}

fn core_dependencies_are_pure() -> Result<()> {
    let metadata = cargo::metadata(&[])?;
    let reached = closure(&metadata, "interceptor-core")?;
    let impure: Vec<&str> = NOT_IN_CORE
        .iter()
        .copied()
        .filter(|name| reached.contains(*name))
        .collect();
    ensure!(
        impure.is_empty(),
        "interceptor-core must do no I/O, but depends on {}; `cargo tree -p interceptor-core -e normal -i NAME` says why",
        impure.join(", ")
    );
    Ok(())
}

/// The names of all packages that `package` links, without what only its tests or build need.
fn closure(metadata: &Value, package: &str) -> Result<BTreeSet<String>> {
    let list = |value: &Value, key: &str| -> Vec<Value> {
        value
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let names: BTreeMap<String, String> = list(metadata, "packages")
        .iter()
        .filter_map(|package| Some((text(package, "id")?, text(package, "name")?)))
        .collect();
    let nodes: BTreeMap<String, Value> = metadata
        .get("resolve")
        .map(|resolve| list(resolve, "nodes"))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| Some((text(&node, "id")?, node)))
        .collect();
    let start = names
        .iter()
        .find(|(_, name)| *name == package)
        .map(|(id, _)| id.clone())
        .ok_or_else(|| anyhow!("no package {package} in the workspace"))?;

    let mut seen = BTreeSet::from([start.clone()]);
    let mut queue = vec![start];
    while let Some(id) = queue.pop() {
        let Some(node) = nodes.get(&id) else { continue };
        for dependency in list(node, "deps") {
            // A normal dependency has the kind null.
            let normal = list(&dependency, "dep_kinds")
                .iter()
                .any(|kind| kind.get("kind").is_some_and(Value::is_null));
            if let (true, Some(next)) = (normal, text(&dependency, "pkg"))
                && seen.insert(next.clone())
            {
                queue.push(next);
            }
        }
    }
    Ok(seen
        .iter()
        .filter_map(|id| names.get(id).cloned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_whole_words_only() {
        assert!(has_word("// LATER: more", "LATER"));
        assert!(!has_word("collateral", "later"));
        assert!(!has_word("later!()", "LATER"));
        assert!(has_word("The Greylist.", "greylist"));
        assert!(has_word("müde greylist", "greylist"));
    }

    #[test]
    fn reads_the_words_of_its_section() {
        let guide =
            format!("- `no`\n{WORDS_HEADING}\n\ntext\n- `A`: why\n- `b c`\n## Next\n- `no`");
        assert_eq!(forbidden_words(&guide), ["A", "b c"]);
    }

    #[test]
    fn follows_normal_dependencies_only() -> Result<()> {
        let metadata = serde_json::json!({
            "packages": [
                {"id": "1", "name": "core"}, {"id": "2", "name": "pure"},
                {"id": "3", "name": "builder"}, {"id": "4", "name": "deep"},
            ],
            "resolve": {"nodes": [
                {"id": "1", "deps": [
                    {"pkg": "2", "dep_kinds": [{"kind": null}]},
                    {"pkg": "3", "dep_kinds": [{"kind": "build"}, {"kind": "dev"}]},
                ]},
                {"id": "2", "deps": [{"pkg": "4", "dep_kinds": [{"kind": null}]}]},
                {"id": "3", "deps": []}, {"id": "4", "deps": []},
            ]},
        });
        let names: Vec<String> = closure(&metadata, "core")?.into_iter().collect();
        assert_eq!(names, ["core", "deep", "pure"]);
        Ok(())
    }
}
