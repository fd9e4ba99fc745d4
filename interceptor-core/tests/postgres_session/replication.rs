//! Replication connections, and functions called by number.

use crate::pair::{MASKS, Pair, RULES, settings};
use crate::text::*;

const REPLICAS: &str = r#"
---
kind: Rule
name: replicas
spec:
  match: {statements: [REPLICATION]}
  then: allow
"#;

/// A session of a client that asked for replication, and what was logged of its start.
fn connected(policy: &str, value: &str) -> Pair {
    let mut pair = Pair::new(policy);
    pair.client(&startup_with(&["replication", value]));
    if pair.session.is_closed() {
        return pair;
    }
    pair.server(&authentication(0, &[]));
    pair.server(&settings());
    pair.to_client.clear();
    pair.to_server.clear();
    pair
}

#[test]
fn only_a_rule_that_names_it_lets_it_pass() {
    let anything = "\n---\nkind: Rule\nname: anything\nspec:\n  match: {}\n  then: allow\n";
    for policy in [RULES.to_owned(), format!("{RULES}{anything}")] {
        let pair = connected(&policy, "true");
        assert!(pair.session.is_closed());
        assert!(
            holds(&pair.to_client, "REPLICATION"),
            "{:?}",
            pair.to_client.escape_ascii()
        );
        assert!(pair.to_server.is_empty() && !pair.log.contains(&"connect".to_owned()));
    }
    let pair = connected(&format!("{RULES}{REPLICAS}"), "true");
    assert!(!pair.session.is_closed());
    assert!(pair.logged(&["a replication connection", "allow", "replicas"]));
}

#[test]
fn what_cannot_be_masked_does_not_pass() {
    let pair = connected(&format!("{RULES}{MASKS}{REPLICAS}"), "true");
    assert!(pair.session.is_closed());
    assert!(holds(&pair.to_client, "cannot be masked"));
}

#[test]
fn both_sides_stream_and_stop() {
    let mut pair = connected(&format!("{RULES}{REPLICAS}"), "true");
    pair.exchange(
        "IDENTIFY_SYSTEM",
        &[
            rows(&[(0, 0)]),
            row(&[Some("7")]),
            complete("IDENTIFY_SYSTEM"),
            ready(b'I'),
        ],
    );
    assert_eq!(kinds(&pair.to_client), "TDCZ");
    assert!(pair.logged(&["IDENTIFY_SYSTEM", "replicas"]));
    pair.forget();

    let start = "START_REPLICATION SLOT \"s\" 0/1000000";
    pair.client(&query(start));
    pair.server(&copy_response(b'W', 0));
    pair.server(&[copy_data("wal"), copy_data("more")].concat());
    pair.client(&copy_data("status"));
    pair.server(&copy_data("wal"));
    pair.client(&copy_done());
    pair.server(&[copy_done(), complete("START_STREAMING"), ready(b'I')].concat());
    assert_eq!(kinds(&pair.to_server), "Qdc");
    assert_eq!(kinds(&pair.to_client), "WdddcCZ");
    assert_eq!(pair.session.state(), "idle");
    assert!(
        pair.logged(&["Outcome", "START_STREAMING"]),
        "{:#?}",
        pair.log
    );
}

#[test]
fn sql_on_such_a_connection_is_judged() {
    let mut pair = connected(&format!("{RULES}{REPLICAS}"), "database");
    pair.client(&query("DROP TABLE orders"));
    assert!(holds(&pair.to_server, "refused_by_interceptor"));
    assert!(!holds(&pair.to_server, "DROP TABLE"));
}

/// The server reads them as `false`, and all texts as SQL.
#[test]
fn replication_that_is_off_is_none() {
    for value in ["f", "OFF", "of", "No", "n", "fal", "0"] {
        let mut pair = connected(&format!("{RULES}{REPLICAS}"), value);
        pair.client(&query("SHOW work_mem; DELETE FROM orders"));
        assert!(!holds(&pair.to_server, "DELETE"), "{value}");
    }
    for value in ["t", "o", "on", "yes", "database", ""] {
        assert!(connected(RULES, value).session.is_closed(), "{value}");
    }
}

#[test]
fn its_commands_mean_nothing_elsewhere() {
    let mut pair = Pair::running(&format!("{RULES}{REPLICAS}"));
    pair.client(&query("START_REPLICATION 0/1000000"));
    assert!(!holds(&pair.to_server, "START_REPLICATION"));
    let mut pair = Pair::running(RULES);
    pair.client(&query("SELECT 1"));
    pair.server(&copy_response(b'W', 0));
    assert!(pair.session.is_closed());
}

#[test]
fn a_large_objects_functions_are_known_by_number() {
    let unlink = "\n---\nkind: Rule\nname: keep\nspec:\n  match: {functions: [lo_unlink]}\n  then: {deny: objects stay}\n";
    let mut pair = Pair::running(&format!("{RULES}{unlink}"));
    pair.client(&function_call(957));
    assert_eq!(kinds(&pair.to_server), "F");
    let number = message(b'V', &[0, 0, 0, 4, 0, 0, 0x40, 1]);
    pair.server(&[number.clone(), ready(b'I')].concat());
    assert!(pair.to_client.starts_with(&number));
    pair.forget();
    pair.client(&function_call(964));
    assert!(holds(&pair.to_server, "refused_by_interceptor"));
    assert!(pair.logged(&["lo_unlink", "keep"]));
    pair.server(&[error("42601", "refused_by_interceptor"), ready(b'I')].concat());
    pair.forget();
    // Nobody knows what this one does.
    pair.client(&function_call(20_000));
    assert!(holds(&pair.to_server, "refused_by_interceptor"));
}

#[test]
fn under_masks_numbers_pass_and_contents_do_not() {
    let mut pair = Pair::running(&format!("{RULES}{MASKS}"));
    let value = message(b'V', &[0, 0, 0, 4, 0, 0, 0, 9]);
    for (oid, passes) in [(952, true), (954, false)] {
        pair.forget();
        pair.client(&function_call(oid));
        pair.server(&[value.clone(), ready(b'I')].concat());
        assert_eq!(pair.to_client.starts_with(&value), passes, "{oid}");
    }
}
