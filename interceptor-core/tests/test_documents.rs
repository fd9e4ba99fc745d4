//! Errors in documents of kind Test have a place, as those of policy have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use interceptor_core::mask::HashKey;
use interceptor_core::policy::{self, Source, TEST_AT_UNIX_NS, TestCommand};

const POLICY: &str = "
kind: Target
name: orders
spec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}
---
kind: Target
name: cache
spec: {protocol: tcp, endpoints: ['10.0.0.7:6379']}
";

fn load(tests: &str) -> Result<Vec<policy::Test>, String> {
    let policy = Source {
        file: "p.yaml",
        text: POLICY,
    };
    let tests = Source {
        file: "tests/t.yaml",
        text: tests,
    };
    let loaded = policy::load_with_tests(&[policy], &[tests], &HashKey::new([0; 32]));
    loaded
        .map(|(_, tests)| tests)
        .map_err(|errors| errors.to_string())
}

fn spec(spec: &str) -> Result<Vec<policy::Test>, String> {
    load(&format!("kind: Test\nname: t\nspec:\n  {spec}\n"))
}

#[test]
fn a_test_has_the_documented_defaults() {
    let tests = spec(
        "given: {target: orders}\n  statement: |\n    SELECT\n    1\n  expect: {outcome: allow}",
    );
    let test = &tests.unwrap()[0];
    assert_eq!(test.given.user, "app");
    assert_eq!(test.given.database, "shop");
    assert_eq!(test.given.client.to_string(), "203.0.113.7");
    assert_eq!(test.given.at_unix_ns, TEST_AT_UNIX_NS);
    assert!(test.given.process.is_none());
    assert!(matches!(&test.command, TestCommand::Statement(text) if text == "SELECT\n1\n"));
    assert_eq!(test.reference.file, "tests/t.yaml");
    assert_eq!(test.reference.line, 1);
}

#[test]
fn every_key_is_read() {
    let tests = spec(
        "given: {target: orders, user: u, database: d, client: '::1', at: 2026-11-20T10:00:00Z, estimatedRows: 5, \
         process: {uid: 1000, gid: 1, pid: 2, comm: c, executable: /e, cgroup: g, container: docker://1, unit: u.service, commandLine: c l}}\n  \
         facts: {kinds: [SELECT], reads: [s.t], writes: [t], functions: [f], columnsRead: [s.t.c, 't.*'], columnsWritten: [c], noWhere: true, incomplete: true}\n  \
         expect: {outcome: terminate}",
    );
    let test = &tests.unwrap()[0];
    let process = test.given.process.as_ref().unwrap();
    assert_eq!(process.uid, 1000);
    assert_eq!(process.unit.as_deref(), Some("u.service"));
    assert_eq!(test.given.at_unix_ns, 1_795_168_800_000_000_000);
    assert_eq!(test.given.estimated_rows, Some(5));
    let TestCommand::Facts(facts) = &test.command else {
        panic!("facts")
    };
    assert!(facts.unfiltered && facts.incomplete.is_some());
    let columns = facts.columns_read.iter().map(ToString::to_string);
    assert_eq!(columns.collect::<Vec<_>>(), ["s.t.c", "t.*"]);
}

#[test]
fn what_is_wrong_has_its_place() {
    let good = "given: {target: orders}";
    for (text, expected) in [
        (
            "given: {target: order}\n  statement: x\n  expect: {outcome: allow}".to_owned(),
            "error: there is no target `order`\n  --> tests/t.yaml:4:19\n     |\n   4 |   given: {target: order}\n     |                   ^^^^^\n     = did you mean `orders`?\n",
        ),
        (
            format!("{good}\n  statment: x\n  expect: {{outcome: allow}}"),
            "did you mean `statement`?",
        ),
        (
            format!("{good}\n  expect: {{outcome: allow}}"),
            "exactly one of `statement`, `facts` and `connect`",
        ),
        (
            format!("{good}\n  statement: x\n  connect: true\n  expect: {{outcome: allow}}"),
            "exactly one of",
        ),
        (
            format!("{good}\n  connect: true\n  expect: {{outcome: allow}}"),
            "`connect` has no meaning for a target with `protocol: postgres`; use `statement`",
        ),
        (
            "given: {target: cache}\n  statement: x\n  expect: {outcome: allow}".to_owned(),
            "`statement` has no meaning for a target with `protocol: tcp`; use `connect: true`",
        ),
        (
            format!("{good}\n  statement: x\n  expect: {{outcome: alow}}"),
            "tests/t.yaml:6:21",
        ),
        (
            format!("{good}\n  statement: x\n  expect: {{rule: r}}"),
            "`expect` needs the key `outcome`",
        ),
        (
            format!("{good}\n  facts: {{kinds: [DROP]}}\n  expect: {{outcome: allow}}"),
            "unknown statement kind `DROP`",
        ),
        (
            "given: {target: orders, at: noon}\n  statement: x\n  expect: {outcome: allow}".to_owned(),
            "`noon` is not a time; write it as in `2026-11-20T10:00:00Z`",
        ),
        (
            "given: {target: orders, client: here}\n  statement: x\n  expect: {outcome: allow}".to_owned(),
            "`here` is not an IP address",
        ),
        (
            "given: {target: orders, estimatedRows: -1}\n  statement: x\n  expect: {outcome: allow}".to_owned(),
            "`-1` is not a whole number from 0 on",
        ),
        (
            format!("{good}\n  statement: x\n  expect: {{outcome: allow, masks: {{email: full}}}}"),
            "`email` is not a column",
        ),
        (
            format!("{good}\n  statement: x\n  expect: {{outcome: allow, masks: {{t.email: hidden}}}}"),
            "unknown method `hidden`",
        ),
    ] {
        let error = spec(&text).unwrap_err();
        assert!(error.contains(expected), "{error}\nhas no {expected}");
        assert!(error.contains("tests/t.yaml:"), "{error}");
    }
}

#[test]
fn a_test_among_policy_is_an_error_and_policy_among_tests_is_not() {
    let test = "kind: Test\nname: t\nspec: {given: {target: orders}, statement: x, expect: {outcome: allow}}\n";
    let source = Source {
        file: "p.yaml",
        text: test,
    };
    let error = policy::load(&[source], &HashKey::new([0; 32])).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a Test has no place among policy"),
        "{error}"
    );
    let more = format!(
        "{test}---\nkind: Target\nname: more\nspec: {{protocol: tcp, endpoints: ['10.0.0.8:1']}}\n"
    );
    assert_eq!(load(&more).unwrap().len(), 1);
}
