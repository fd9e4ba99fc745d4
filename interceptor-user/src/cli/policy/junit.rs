//! Results of policy tests in the form of JUnit, which build servers read.
//!
//! It owns that form only.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::suite::{Suite, TestResult};
use super::test::words;

/// Writes the file, over what is there.
pub(super) fn write(path: &Path, suites: &[Suite]) -> io::Result<()> {
    let mut report = Report::new("interceptor policy test");
    for suite in suites {
        let directory = suite.directory.display().to_string();
        let mut cases = TestSuite::new(directory.clone());
        for result in &suite.results {
            cases.add_test_case(case(&directory, result));
        }
        report.add_test_suite(cases);
    }
    save(path, &report)
}

/// Writes the file for tests that could not be run: the results of an earlier run must not stay.
pub(super) fn write_broken(path: &Path, directory: &Path, error: &str) -> io::Result<()> {
    let directory = directory.display().to_string();
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message("the tests cannot be run");
    status.set_description(error);
    let mut cases = TestSuite::new(directory.clone());
    let mut case = TestCase::new("policy", status);
    case.set_classname(directory);
    cases.add_test_case(case);
    let mut report = Report::new("interceptor policy test");
    report.add_test_suite(cases);
    save(path, &report)
}

fn save(path: &Path, report: &Report) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    report.serialize(&mut file).map_err(io::Error::other)?;
    file.flush()
}

fn case(directory: &str, result: &TestResult) -> TestCase {
    let mut status = match (&result.verdict, result.passed()) {
        (_, true) => TestCaseStatus::success(),
        (Ok(_), false) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        (Err(_), false) => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    if !result.passed() {
        let lines = words(result);
        status.set_message(lines.first().cloned().unwrap_or_default());
        status.set_description(lines.join("\n"));
    }
    let mut case = TestCase::new(result.reference.name.clone(), status);
    case.set_classname(directory.to_owned());
    case.set_time(result.time);
    case.extra
        .insert("file".into(), result.reference.file.clone().into());
    let line = result.reference.line.to_string();
    case.extra.insert("line".into(), line.into());
    case
}
