//! What is promised of the packs in `policies/`, beside that their tests pass.

use std::fs;
use std::path::{Path, PathBuf};

use super::arguments::FormatArgs;
use super::{format, suite};

fn packs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

/// A rule that no test makes speak could be wrong for years.
#[test]
fn every_rule_has_its_say_in_a_test() {
    let suites = suite::run_all(&packs(), None).unwrap_or_else(|error| panic!("\n{error}"));
    let mut count = 0;
    for suite in suites {
        // The policy of the demonstration is tried by the demonstration.
        if suite.directory.ends_with("demo") {
            continue;
        }
        let silent: Vec<&str> = suite.silent.iter().map(|rule| rule.name.as_str()).collect();
        assert!(
            silent.is_empty(),
            "{}: {silent:?}",
            suite.directory.display()
        );
        assert!(
            suite.results.len() > suite.rule_count,
            "{}: too few tests for near misses",
            suite.directory.display()
        );
        count += 1;
    }
    assert_eq!(count, 9);
}

#[test]
fn every_pack_and_rule_is_in_the_documents() {
    let documents = fs::read_to_string(packs().join("../docs/packs.md")).unwrap();
    let suites = suite::run_all(&packs(), None).unwrap_or_else(|error| panic!("\n{error}"));
    for suite in suites {
        let name = suite.directory.file_name().unwrap().to_string_lossy();
        if name == "demo" {
            continue;
        }
        assert!(
            documents.contains(&format!("\n## {name}\n")),
            "{name} has no page"
        );
        let named = suite.results.iter().flat_map(|result| &result.verdict);
        for rule in named.flat_map(|verdict| &verdict.spoke) {
            let in_tests = rule.file.contains("/tests/");
            assert!(
                in_tests || documents.contains(&format!("`{}`", rule.name)),
                "{name} does not say what {} does",
                rule.name
            );
        }
    }
}

#[test]
fn all_are_in_the_one_form() {
    let arguments = FormatArgs {
        paths: vec![packs()],
        check: std::env::var_os("UPDATE_EXPECTED").is_none(),
        stdin: false,
    };
    let mut out = Vec::new();
    let done = format::run(&arguments, &mut out);
    let listed = String::from_utf8(out).unwrap();
    done.unwrap_or_else(|error| panic!("{error}\n{listed}"));
}
