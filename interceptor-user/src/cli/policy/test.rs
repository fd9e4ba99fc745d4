//! `interceptor policy test`: expected decisions, asked of the policy.

use std::io::{self, Write};

use interceptor_core::audit::render::Escaped;
use interceptor_core::policy::{Difference, RuleReference, Verdict};
use serde_json::{Value, json};

use super::super::CliError;
use super::super::output::{self, Colour, Colours};
use super::junit;
use super::questions::TestArgs;
use super::suite::{self, Suite, TestResult};

pub(super) fn run(arguments: &TestArgs, out: &mut impl Write) -> Result<(), CliError> {
    let directory = &arguments.directory;
    let suites = suite::run_all(directory, arguments.filter.as_deref());
    if let Some(path) = &arguments.junit {
        let written = match &suites {
            Ok(suites) => junit::write(path, suites),
            Err(error) => junit::write_broken(path, directory, &error.to_string()),
        };
        written.map_err(|source| CliError::OutputFile {
            path: path.clone(),
            source,
        })?;
    }
    let suites = suites?;
    let results = || suites.iter().flat_map(|suite| &suite.results);
    let count = results().count();
    let failed = results().filter(|result| !result.passed()).count();
    if arguments.json {
        output::json(out, &as_json(&suites, count, failed))?;
    } else {
        print(&suites, arguments.filter.is_none(), out)?;
        writeln!(out, "{}, {failed} failed", counted(count, "test"))?;
    }
    if count == 0 {
        let directory = arguments.directory.display();
        return Err(CliError::NoPolicyTests(match &arguments.filter {
            Some(text) => format!("no test in {directory} has `{text}` in its name"),
            None => format!(
                "there are no tests in {directory}; write documents of kind Test into {directory}/tests/*.yaml"
            ),
        }));
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::PolicyTests { failed, count }),
    }
}

fn print(suites: &[Suite], whole: bool, out: &mut impl Write) -> io::Result<()> {
    let colours = Colours::for_stdout();
    for suite in suites {
        for result in suite.results.iter().filter(|result| !result.passed()) {
            let RuleReference { name, file, line } = &result.reference;
            let failed = colours.paint(Colour::Red, "failed");
            writeln!(out, "{failed} {name}  {}:{line}", Escaped(file))?;
            for line in words(result) {
                writeln!(out, "  {}", Escaped(&line))?;
            }
        }
    }
    for suite in suites {
        let passed = suite.results.iter().filter(|it| it.passed()).count();
        let count = suite.results.len();
        let colour = match passed == count {
            true => Colour::Green,
            false => Colour::Red,
        };
        let directory = suite.directory.display().to_string();
        let passed = match count {
            0 => "no tests".to_owned(),
            _ => colours.paint(colour, &format!("{passed} of {count} passed")),
        };
        let spoke = suite.rule_count - suite.silent.len();
        write!(out, "{}: {passed}", Escaped(&directory))?;
        if whole {
            write!(
                out,
                "; {spoke} of {} spoke",
                counted(suite.rule_count, "rule")
            )?;
        }
        writeln!(out)?;
        for rule in suite.silent.iter().filter(|_| whole) {
            let RuleReference { name, file, line } = &**rule;
            writeln!(
                out,
                "  no test makes {name} speak  {}:{line}",
                Escaped(file)
            )?;
        }
    }
    Ok(())
}

/// What is wrong with a test that failed, a line each.
pub(super) fn words(result: &TestResult) -> Vec<String> {
    let verdict = match &result.verdict {
        Ok(verdict) => verdict,
        Err(error) => return vec![error.clone()],
    };
    let difference = |difference: &Difference| {
        let Difference { key, expected, got } = difference;
        format!("{key}: expected {expected}, got {got}")
    };
    let mut lines: Vec<String> = verdict.differences.iter().map(difference).collect();
    lines.push(decider(verdict, &result.target));
    lines
}

/// What decided, and where it stands.
fn decider(verdict: &Verdict, target: &str) -> String {
    let decision = &verdict.decision;
    let (word, reason) = (decision.outcome.word(), &decision.reason);
    let by = match &decision.rule {
        Some(rule) => format!("{} ({}:{})", rule.name, rule.file, rule.line),
        None => format!("no rule, so the target {target}"),
    };
    format!("decided by {by}: {word}: {reason}")
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

fn as_json(suites: &[Suite], count: usize, failed: usize) -> Value {
    let place =
        |rule: &RuleReference| json!({ "name": rule.name, "file": rule.file, "line": rule.line });
    let suite = |suite: &Suite| {
        json!({
            "directory": suite.directory.display().to_string(),
            "tests": suite.results.iter().map(result_json).collect::<Vec<_>>(),
            "rules": suite.rule_count,
            "silent_rules": suite.silent.iter().map(|rule| place(rule)).collect::<Vec<_>>(),
        })
    };
    json!({
        "tests": count,
        "failed": failed,
        "suites": suites.iter().map(suite).collect::<Vec<_>>(),
    })
}

fn result_json(result: &TestResult) -> Value {
    let RuleReference { name, file, line } = &result.reference;
    let mut value = json!({
        "name": name,
        "file": file,
        "line": line,
        "passed": result.passed(),
    });
    let fields = match &result.verdict {
        Ok(Verdict {
            decision,
            differences,
            ..
        }) => json!({
            "outcome": decision.outcome.word(),
            "rule": decision.rule.as_ref().map(|rule| &rule.name),
            "reason": &*decision.reason,
            "differences": differences.iter().map(|difference| json!({
                "key": difference.key,
                "expected": difference.expected,
                "got": difference.got,
            })).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "error": error }),
    };
    if let (Value::Object(value), Value::Object(fields)) = (&mut value, fields) {
        value.extend(fields);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_broken_policy_leaves_no_report_of_better_days() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), "kind: Ruel\n").unwrap();
        let report = directory.path().join("report.xml");
        fs::write(&report, "all passed").unwrap();
        let arguments = TestArgs {
            directory: directory.path().to_owned(),
            filter: None,
            junit: Some(report.clone()),
            json: false,
        };
        let error = run(&arguments, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("a.yaml:1:7"), "{error}");
        let report = fs::read_to_string(&report).unwrap();
        assert!(report.contains("errors=\"1\""), "{report}");
        assert!(report.contains("unknown kind `Ruel`"), "{report}");
    }
}
