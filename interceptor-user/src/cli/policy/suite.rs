//! Suites of policy tests: a directory of policy with its folder `tests`.
//!
//! It owns where tests are found and how they are run. It must not know how results are shown.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, RuleReference, Snapshot, Source, Test, Verdict};

use super::analysis;
use crate::policy_files::{self, PolicyFilesError};

/// The folder beside policy files that holds their tests.
const TESTS: &str = "tests";

/// The results of one directory's tests.
pub(super) struct Suite {
    /// The directory.
    pub(super) directory: PathBuf,
    /// Each test that was run.
    pub(super) results: Vec<TestResult>,
    /// How many rules there are.
    pub(super) rule_count: usize,
    /// The rules that had no say in any test.
    pub(super) silent: Vec<Arc<RuleReference>>,
}

/// What became of one test.
pub(super) struct TestResult {
    /// Its name and place.
    pub(super) reference: RuleReference,
    /// The target that it asks.
    pub(super) target: String,
    /// The decision; an error where there was none.
    pub(super) verdict: Result<Verdict, String>,
    /// How long it took.
    pub(super) time: Duration,
}

impl TestResult {
    pub(super) fn passed(&self) -> bool {
        matches!(&self.verdict, Ok(verdict) if verdict.differences.is_empty())
    }
}

/// Runs the tests of a directory, and of each folder in it that holds policy, by name.
pub(super) fn run_all(
    directory: &Path,
    filter: Option<&str>,
) -> Result<Vec<Suite>, PolicyFilesError> {
    let directories = directories(directory)?;
    let mut suites = Vec::new();
    for (index, directory) in directories.iter().enumerate() {
        match run(directory, filter) {
            Ok(suite) => suites.push(suite),
            // The directory that was named may hold nothing but folders, a folder anything.
            Err(PolicyFilesError::NoFiles { .. }) if index > 0 || directories.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    match suites.is_empty() {
        true => Err(PolicyFilesError::NoFiles {
            directory: directory.to_owned(),
        }),
        false => Ok(suites),
    }
}

/// A directory, and the folders in it that may hold policy of their own, by name.
pub(super) fn directories(directory: &Path) -> Result<Vec<PathBuf>, PolicyFilesError> {
    let mut directories = folders(directory)?;
    directories.insert(0, directory.to_owned());
    Ok(directories)
}

fn run(directory: &Path, filter: Option<&str>) -> Result<Suite, PolicyFilesError> {
    let files = policy_files::read(directory)?.into_files();
    let tests = tests(directory)?;
    let (snapshot, tests) =
        policy::load_with_tests(&sources(&files), &sources(&tests), &HashKey::new([0; 32]))
            .map_err(PolicyFilesError::Policy)?;
    let snapshot = Arc::new(snapshot);
    let wanted = |test: &&Test| filter.is_none_or(|text| test.reference.name.contains(text));
    let results: Vec<TestResult> = tests
        .iter()
        .filter(wanted)
        .map(|test| run_test(test, &snapshot))
        .collect();
    let mut spoke: HashSet<(&str, u32)> = HashSet::new();
    for verdict in results.iter().flat_map(|result| &result.verdict) {
        let places = verdict.spoke.iter();
        spoke.extend(places.map(|rule| (rule.file.as_str(), rule.line)));
    }
    let mut silent: Vec<_> = snapshot
        .rule_references()
        .filter(|rule| !spoke.contains(&(rule.file.as_str(), rule.line)))
        .cloned()
        .collect();
    silent.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Ok(Suite {
        directory: directory.to_owned(),
        rule_count: snapshot.rule_count(),
        silent,
        results,
    })
}

/// The files in a directory's folder of tests.
pub(super) fn tests(directory: &Path) -> Result<Vec<(String, String)>, PolicyFilesError> {
    let tests = directory.join(TESTS);
    if !tests.is_dir() {
        return Ok(Vec::new());
    }
    match policy_files::read(&tests) {
        Ok(texts) => Ok(texts.into_files()),
        Err(PolicyFilesError::NoFiles { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn run_test(test: &Test, snapshot: &Arc<Snapshot>) -> TestResult {
    let start = Instant::now();
    let verdict = test.run(snapshot, |view, text, given| {
        analysis::facts(view, text, given.at_unix_ns, given.estimated_rows)
    });
    TestResult {
        reference: test.reference.clone(),
        target: test.given.target.clone(),
        verdict: verdict.unwrap_or_else(|| Err("its target is not there".to_owned())),
        time: start.elapsed(),
    }
}

fn sources(files: &[(String, String)]) -> Vec<Source<'_>> {
    files
        .iter()
        .map(|(file, text)| Source { file, text })
        .collect()
}

/// Folders of a directory that may hold policy of their own, by name.
fn folders(directory: &Path) -> Result<Vec<PathBuf>, PolicyFilesError> {
    let broken = |cause| PolicyFilesError::Directory {
        directory: directory.to_owned(),
        cause,
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(directory).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        let name = path.file_name().unwrap_or_default();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && name != TESTS && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::super::test::words;
    use super::*;

    fn directory(tests: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let policy = "kind: Target\nname: db\nspec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}\n---\n\
             kind: Rule\nname: no-drop\nspec: {match: {statements: [DROP]}, then: {deny: by migrations only}}\n---\n\
             kind: Rule\nname: slow\nspec: {match: {statements: [DELETE]}, then: {hold: {timeout: 90s}}}\n";
        fs::write(directory.path().join("policy.yaml"), policy).unwrap();
        fs::create_dir(directory.path().join(TESTS)).unwrap();
        fs::write(directory.path().join("tests/t.yaml"), tests).unwrap();
        directory
    }

    #[test]
    fn the_example_policies_decide_as_expected() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let suites = run_all(&examples, None).unwrap_or_else(|error| panic!("\n{error}"));
        let results: Vec<&TestResult> = suites.iter().flat_map(|suite| &suite.results).collect();
        assert!(results.len() >= 25, "tests were lost");
        for result in results {
            let name = &result.reference.name;
            assert!(result.passed(), "{name}\n{}", words(result).join("\n"));
        }
    }

    #[test]
    fn a_decision_that_is_not_expected_fails_its_test() {
        let directory = directory(
            "kind: Test\nname: wrong\nspec:\n  given: {target: db}\n  statement: DROP TABLE x\n  \
             expect: {outcome: allow, rule: none, reason: whatever}\n---\n\
             kind: Test\nname: right\nspec:\n  given: {target: db}\n  statement: SELECT 1\n  \
             expect: {outcome: allow}\n---\n\
             kind: Test\nname: unread\nspec:\n  given: {target: db}\n  statement: SELEC 1\n  \
             expect: {outcome: allow}\n",
        );
        let suites = run_all(directory.path(), None).unwrap();
        let [suite] = suites.as_slice() else {
            panic!("one suite")
        };
        let passed: Vec<bool> = suite.results.iter().map(TestResult::passed).collect();
        assert_eq!(passed, [false, true, false]);
        let lines = words(&suite.results[0]);
        assert_eq!(lines[0], "outcome: expected allow, got deny");
        assert_eq!(lines[1], "rule: expected none, got no-drop");
        assert_eq!(
            lines[2],
            "reason: expected …whatever…, got by migrations only"
        );
        assert!(
            lines[3].contains("policy.yaml:5): deny: by migrations only"),
            "{lines:?}"
        );
        let unread = words(&suite.results[2]);
        assert!(unread[0].contains("syntax error"), "{unread:?}");
        let silent: Vec<&str> = suite.silent.iter().map(|rule| &*rule.name).collect();
        assert_eq!(silent, ["slow"]);
        assert_eq!(suite.rule_count, 2);
    }

    #[test]
    fn every_key_of_a_hold_is_compared() {
        let expect = |expect: &str| {
            let directory = directory(&format!(
                "kind: Test\nname: t\nspec:\n  given: {{target: db}}\n  facts: {{kinds: [DELETE]}}\n  \
                 expect: {{outcome: hold, {expect}}}\n"
            ));
            run_all(directory.path(), None).unwrap()[0].results[0].passed()
        };
        assert!(expect(
            "timeout: 90s, approvers: [anybody], onTimeout: deny"
        ));
        assert!(expect(
            "readOnly: false, liftedBy: none, notify: [none], person: unknown"
        ));
        for wrong in [
            "timeout: 1m",
            "approvers: [2 of dba]",
            "onTimeout: escalate",
            "liftedBy: incident",
            "readOnly: true",
            "notify: [dba]",
            "person: alice",
            "groups: [dba]",
            "limits: {rows: 10}",
            "masks: {t.c: full}",
            "shown: {secret: '****'}",
        ] {
            assert!(!expect(wrong), "{wrong}");
        }
    }

    #[test]
    fn folders_with_policy_are_suites_and_others_are_not() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("empty")).unwrap();
        let error = run_all(top.path(), None).err().unwrap();
        assert!(matches!(error, PolicyFilesError::NoFiles { .. }), "{error}");
        let pack = directory(
            "# none\nkind: Test\nname: t\nspec: {given: {target: db}, statement: SELECT 1, expect: {outcome: allow}}\n",
        );
        fs::rename(pack.path(), top.path().join("pack")).unwrap();
        let suites = run_all(top.path(), None).unwrap();
        assert_eq!(suites.len(), 1);
        assert!(suites[0].directory.ends_with("pack"));
        assert_eq!(
            run_all(top.path(), Some("other")).unwrap()[0].results.len(),
            0
        );
    }
}
