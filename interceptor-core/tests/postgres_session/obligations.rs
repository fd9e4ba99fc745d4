//! What a rule adds to a command stays with it: limits, masks, who is told; and the ends that a rule can
//! make of a hold or a session.

use crate::pair::{CUSTOMERS, Pair, RULES, SECRET};
use crate::text::*;

/// [`RULES`] with one rule more.
fn with(rule: &str) -> String {
    format!("{RULES}\n---\nkind: Rule\nname: bound\nspec:\n{rule}\n")
}

fn limited(limit: &str) -> String {
    with(&format!(
        "  match: {{tables: [orders]}}\n  then: {{limit: {limit}}}"
    ))
}

fn answer(count: usize) -> Vec<u8> {
    let mut bytes = rows(&[(0, 0)]);
    for index in 0..count {
        bytes.extend(row(&[Some(&format!("value {index}"))]));
    }
    bytes
}

/// Rows that reached the client.
fn shown(pair: &Pair) -> usize {
    kinds(&pair.to_client).matches('D').count()
}

#[test]
fn rows_beyond_the_limit_are_not_shown_and_the_target_is_stopped() {
    let mut pair = Pair::running(&limited("{rows: 2}"));
    pair.client(&query("SELECT id FROM orders"));
    pair.server(&answer(5));
    assert_eq!(kinds(&pair.to_client), "TDD");
    assert!(pair.logged(&["interrupt"]));
    assert!(pair.logged(&["LimitReached", "bound", "2 rows"]));
    pair.server(&row(&[Some("late")]));
    pair.server(&error("57014", "canceling statement due to user request"));
    pair.server(&ready(b'I'));
    assert_eq!(kinds(&pair.to_client), "TDDEZ");
    pair.shows("stopped by interceptor rule \"bound\": its limit is 2 rows");
    assert!(!holds(&pair.to_client, "57014") && holds(&pair.to_client, "54000"));
    assert!(pair.logged(&["Outcome", "rows: 2", "54000"]));
    // The next command is one of its own.
    pair.forget();
    let replies = [answer(2), complete("SELECT 2"), ready(b'I')];
    pair.exchange("SELECT id FROM orders", &replies);
    assert_eq!(kinds(&pair.to_client), "TDDCZ");
}

/// The same bytes in any pieces.
#[test]
fn limits_do_not_depend_on_how_bytes_come() {
    for (limit, expected) in [("{rows: 2}", 2), ("{bytes: 40B}", 2)] {
        for size in 1..40 {
            let mut pair = Pair::running(&limited(limit));
            pair.client(&query("SELECT id FROM orders"));
            let mut bytes = answer(4);
            bytes.extend(error("57014", "cancelled"));
            bytes.extend(ready(b'I'));
            for piece in bytes.chunks(size) {
                pair.server(piece);
            }
            assert_eq!(shown(&pair), expected, "{limit} in pieces of {size}");
            assert!(kinds(&pair.to_client).ends_with("EZ"));
        }
    }
}

/// Rows that were cut are never taken for all of them.
#[test]
fn a_command_that_ended_before_it_was_stopped_has_failed() {
    let mut pair = Pair::running(&limited("{rows: 2}"));
    pair.client(&query("SELECT id FROM orders"));
    pair.server(&[answer(5), complete("SELECT 5"), ready(b'I')].concat());
    assert_eq!(kinds(&pair.to_client), "TDDEZ");
    pair.shows("54000");
    assert_eq!(pair.session.state(), "idle");

    // In an extended query, too.
    pair.forget();
    pair.client(
        &[
            parse("", "SELECT id FROM orders"),
            bind("", ""),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    let rows: Vec<u8> = (0..5).flat_map(|_| row(&[Some("1")])).collect();
    let replies = [
        parse_complete(),
        bind_complete(),
        rows,
        complete("SELECT 5"),
        ready(b'I'),
    ];
    pair.server(&replies.concat());
    assert_eq!(kinds(&pair.to_client), "12DDEZ");
}

/// What stays at the target cannot be called failed: the session ends instead.
#[test]
fn a_command_that_wrote_and_was_cut_ends_the_session() {
    for text in [
        "INSERT INTO orders VALUES (1) RETURNING id",
        "SELECT id FROM orders; SELECT 1",
    ] {
        let mut pair = Pair::running(&limited("{rows: 2}"));
        pair.client(&query(text));
        pair.server(&[answer(5), complete("INSERT 0 5")].concat());
        assert_eq!(kinds(&pair.to_client), "TDDE", "{text}");
        pair.shows("FATAL");
        assert_eq!(pair.session.state(), "closed");
    }
}

#[test]
fn a_row_larger_than_the_bytes_that_are_left_is_not_begun() {
    let mut pair = Pair::running(&limited("{bytes: 1KiB}"));
    pair.client(&query("SELECT id FROM orders"));
    let large = row(&[Some(&"x".repeat(100_000))]);
    pair.server(&[rows(&[(0, 0)]), large[..50_000].to_vec()].concat());
    assert_eq!(kinds(&pair.to_client), "T");
    pair.server(&large[50_000..]);
    pair.server(&[error("57014", "cancelled"), ready(b'I')].concat());
    assert_eq!(kinds(&pair.to_client), "TEZ");
    pair.shows("1024 bytes");
}

#[test]
fn copied_rows_count() {
    for (masks, limit) in [("", "{rows: 2}"), (crate::pair::MASKS, "{rows: 2}")] {
        let mut pair = Pair::running(&format!("{}{masks}", limited(limit)));
        pair.client(&query("COPY orders TO STDOUT"));
        let data: Vec<u8> = (0..4).flat_map(|_| copy_data("1\t2\n")).collect();
        let start = [copy_response(b'H', 2), data];
        pair.server(&start.concat());
        pair.server(&[copy_done(), complete("COPY 4"), ready(b'I')].concat());
        assert_eq!(kinds(&pair.to_client), "HddEZ");
        assert!(pair.logged(&["Outcome", "54000"]));
    }
}

/// A portal that is executed in pieces is one command.
#[test]
fn a_portal_cannot_be_fetched_past_its_limit() {
    let mut pair = Pair::running(&limited("{rows: 3}"));
    let start = [
        parse("", "SELECT id FROM orders"),
        bind("p", ""),
        execute_some("p", 2),
        flush(),
    ];
    pair.client(&start.concat());
    let two = [row(&[Some("1")]), row(&[Some("2")])].concat();
    pair.server(&[parse_complete(), bind_complete(), two.clone(), suspended()].concat());
    assert_eq!(kinds(&pair.to_client), "12DDs");
    pair.client(&[execute_some("p", 2), sync()].concat());
    pair.server(&[two, suspended(), ready(b'I')].concat());
    assert_eq!(kinds(&pair.to_client), "12DDsDEZ");
}

#[test]
fn nothing_goes_to_a_target_that_is_being_stopped() {
    let mut pair = Pair::running(&limited("{rows: 1}"));
    pair.withhold_interrupt = true;
    pair.client(&query("SELECT id FROM orders"));
    pair.server(&[answer(2), complete("SELECT 2"), ready(b'I')].concat());
    pair.forget();
    pair.client(&query("SELECT 'next'"));
    assert!(
        !holds(&pair.to_server, "next"),
        "a late cancel could hit it"
    );
    pair.session.handle_interrupted();
    pair.pump();
    assert!(holds(&pair.to_server, "next"));
}

#[test]
fn what_runs_too_long_is_stopped_or_ends_the_session() {
    let mut pair = Pair::running(&limited("{duration: 30s}"));
    pair.client(&query("SELECT id FROM orders"));
    pair.wait(29);
    assert!(!pair.logged(&["interrupt"]));
    pair.wait(1);
    assert!(pair.logged(&["interrupt"]) && pair.logged(&["LimitReached", "30 s"]));
    pair.server(&[error("57014", "cancelled"), ready(b'I')].concat());
    assert_eq!(kinds(&pair.to_client), "EZ");
    pair.shows("its limit is 30 s");

    // What ended whole before it was stopped is whole.
    pair.forget();
    pair.client(&query("INSERT INTO orders VALUES (1)"));
    pair.wait(30);
    pair.server(&[complete("INSERT 0 1"), ready(b'I')].concat());
    assert_eq!(kinds(&pair.to_client), "CZ");

    pair.forget();
    pair.client(&query("SELECT id FROM orders"));
    pair.wait(30);
    pair.wait(9);
    assert_eq!(pair.session.state(), "active");
    pair.wait(1);
    assert_eq!(pair.session.state(), "closed");
    pair.shows("did not stop");
}

/// The time of what is behind begins when it is its turn.
#[test]
fn what_waits_behind_another_command_does_not_run() {
    let mut pair = Pair::running(&limited("{duration: 30s}"));
    pair.client(&[query("SELECT 1"), query("SELECT id FROM orders")].concat());
    pair.wait(40);
    pair.server(&[answer(1), complete("SELECT 1"), ready(b'I')].concat());
    pair.wait(29);
    assert!(!pair.logged(&["interrupt"]));
    pair.wait(2);
    assert!(pair.logged(&["interrupt"]));
}

#[test]
fn one_command_too_many_is_refused() {
    let mut pair = Pair::running(&limited("{rate: 2/m}"));
    let replies = [answer(1), complete("SELECT 1"), ready(b'I')];
    for _ in 0..2 {
        pair.exchange("SELECT id FROM orders", &replies);
    }
    pair.forget();
    pair.client(&query("SELECT id FROM orders"));
    assert!(!holds(&pair.to_server, "orders"));
    pair.server(&[error("42601", "syntax error"), ready(b'I')].concat());
    pair.shows("refused by interceptor rule \"bound\": its limit is 2 commands a minute");
    assert!(pair.logged(&["LimitReached", "2 commands a minute"]));
    assert!(pair.logged(&["Command", "decision: \"deny\"", "rule: \"bound\""]));
    // Another one is not counted.
    pair.forget();
    pair.client(&query("SELECT 'other'"));
    assert!(holds(&pair.to_server, "other"));
}

#[test]
fn who_should_know_is_on_record() {
    let rule = "  match: {tables: [orders]}\n  then: {notify: [dba]}";
    let group = "---\nkind: ApproverGroup\nname: dba\nspec: {uids: [0]}\n";
    let mut pair = Pair::running(&format!("{}{group}", with(rule)));
    let replies = [answer(1), complete("SELECT 1"), ready(b'I')];
    pair.exchange("SELECT id FROM orders", &replies);
    pair.exchange("SELECT 1", &replies);
    let notes = pair.log.iter().filter(|line| line.contains("Notification"));
    assert_eq!(notes.count(), 1);
    assert!(pair.logged(&["Notification", "command: 1", "bound", "dba"]));
    assert!(pair.logged(&["obliged_by: [\"bound\"]"]));
}

#[test]
fn a_rule_can_end_the_session() {
    let rule = "  match: {tables: [orders]}\n  then: {terminate: \"not from here\"}";
    for message in [
        query("SELECT id FROM orders"),
        [parse("", "SELECT id FROM orders"), sync()].concat(),
    ] {
        let mut pair = Pair::running(&with(rule));
        pair.client(&message);
        assert!(!holds(&pair.to_server, "orders"));
        assert_eq!(kinds(&pair.to_client), "E");
        pair.shows("FATAL");
        pair.shows("42501");
        pair.shows("not from here");
        assert_eq!(pair.session.state(), "closed");
        assert!(pair.logged(&["Command", "decision: \"terminate\""]));
        assert!(pair.logged(&["Outcome", "42501"]));
    }
}

/// Masks of a rule, beside a command that the rule does not match.
const BY_RULE: &str = "
---
kind: Mask
name: emails
spec: {columns: [public.customers.email], with: full, when: named}
";

#[test]
fn masks_of_a_rule_are_on_its_commands_alone() {
    let rule = "  match: {text: hide}\n  then: {mask: [emails]}";
    let mut pair = Pair::running(&format!("{}{BY_RULE}", with(rule)));
    let replies = [
        rows(&[(CUSTOMERS, 3)]),
        row(&[Some(SECRET)]),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    pair.exchange("SELECT email FROM customers", &replies);
    pair.shows(SECRET);
    pair.forget();
    pair.exchange("SELECT email FROM customers /* hide */", &replies);
    pair.shows_nothing();
    pair.shows("****");
    // From where they are copied no mask would cover them.
    pair.forget();
    pair.client(&query(
        "CREATE TABLE x AS SELECT email FROM customers /* hide */",
    ));
    assert!(!holds(&pair.to_server, "CREATE"));
    pair.server(&[error("42601", "syntax error"), ready(b'I')].concat());
    pair.forget();
    pair.client(&query("CREATE TABLE x AS SELECT email FROM customers"));
    assert!(holds(&pair.to_server, "CREATE"));
}

/// Two portals side by side, of which one is masked; and a cursor.
#[test]
fn a_portal_keeps_the_masks_that_it_was_bound_with() {
    let rule = "  match: {text: hide}\n  then: {mask: [emails]}";
    let mut pair = Pair::running(&format!("{}{BY_RULE}", with(rule)));
    let messages = [
        parse("a", "SELECT email FROM customers /* hide */"),
        parse("b", "SELECT email FROM customers"),
        bind("a", "a"),
        bind("b", "b"),
        execute("b"),
        execute("a"),
        sync(),
    ];
    pair.client(&messages.concat());
    let (cell, end) = (row(&[Some(SECRET)]), complete("SELECT 1"));
    let names = [
        parse_complete(),
        parse_complete(),
        bind_complete(),
        bind_complete(),
    ]
    .concat();
    pair.server(&[names, cell.clone(), end.clone()].concat());
    pair.shows(SECRET);
    pair.forget();
    // The description is for the gateway alone.
    pair.server(&[rows(&[(CUSTOMERS, 3)]), cell, end, ready(b'I')].concat());
    pair.shows_nothing();
    pair.shows("****");
}

#[test]
fn rows_of_a_cursor_are_bound_as_its_query_is() {
    let rule = "  match: {statements: [SELECT]}\n  then: {mask: [emails], limit: {rows: 1}}";
    let mut pair = Pair::running(&format!("{}{BY_RULE}", with(rule)));
    let replies = [complete("DECLARE CURSOR"), ready(b'T')];
    pair.exchange("DECLARE c CURSOR FOR SELECT email FROM customers", &replies);
    pair.forget();
    pair.client(&query("FETCH ALL FROM c"));
    let cell = row(&[Some(SECRET)]);
    pair.server(&[rows(&[(CUSTOMERS, 3)]), cell.clone(), cell].concat());
    pair.shows_nothing();
    assert_eq!(shown(&pair), 1);
}

const ESCALATING: &str = r#"  match: {tables: [orders]}
  then:
    hold:
      message: somebody looks
      timeout: 60s
      onTimeout: {escalate: {group: boss, timeout: 30s, onTimeout: deny}}
---
kind: ApproverGroup
name: boss
spec: {uids: [0]}"#;

#[test]
fn others_are_asked_when_nobody_answers() {
    let mut pair = Pair::running(&with(ESCALATING));
    pair.client(&query("SELECT id FROM orders"));
    pair.wait(60);
    assert!(pair.logged(&["Approval", "escalated"]) && pair.logged(&["withdraw"]));
    pair.shows("request 2 waits for approval by 1 of boss");
    let mut approved = Pair::running(&with(ESCALATING));
    approved.client(&query("SELECT id FROM orders"));
    approved.wait(60);
    approved.resolve(true);
    assert!(holds(&approved.to_server, "orders"));

    pair.wait(29);
    assert_eq!(pair.session.state(), "held");
    pair.wait(1);
    assert!(pair.logged(&["Approval", "timed_out"]));
    assert!(!holds(&pair.to_server, "orders"));
}

#[test]
fn at_the_end_of_a_hold_the_policy_can_answer() {
    let rule = |condition: &str| {
        with(&format!(
            "  match: {{tables: [orders]}}\n  then:\n    hold:\n      message: wait\n      timeout: 1h\n      \
             onTimeout: {{automatic: \"{condition}\"}}"
        ))
    };
    // Every test begins at midnight.
    let mut pair = Pair::running(&rule("now.getHours('UTC') == 1 && client.user == 'app'"));
    pair.client(&query("SELECT id FROM orders"));
    pair.wait(3_600);
    assert!(pair.logged(&["Approval", "automatic"]));
    assert!(holds(&pair.to_server, "orders"));

    let mut pair = Pair::running(&rule("now.getHours('UTC') == 0"));
    pair.client(&query("SELECT id FROM orders"));
    pair.wait(3_600);
    assert!(pair.logged(&["Approval", "timed_out"]));
    assert!(!holds(&pair.to_server, "orders"));
}

#[test]
fn the_time_of_day_decides() {
    let rule =
        "  match: {times: [{from: \"00:00\", to: \"00:10\", zone: UTC}]}\n  then: {deny: early}";
    let mut pair = Pair::running(&with(rule));
    pair.client(&query("SELECT 'one'"));
    assert!(!holds(&pair.to_server, "one"));
    pair.server(&[error("42601", "syntax error"), ready(b'I')].concat());
    pair.wait(600);
    pair.client(&query("SELECT 'two'"));
    assert!(holds(&pair.to_server, "two"));
}

#[test]
fn sizes_of_tables_decide_and_what_is_not_known_restricts() {
    let rule = "  match: {estimatedRows: {over: 1000}}\n  then: {deny: large}";
    for (rows, goes) in [(Some(10), true), (Some(5_000), false), (None, false)] {
        let mut pair = Pair::new(&with(rule));
        for relation in &mut pair.relations {
            relation.rows = rows;
        }
        pair.client(&startup());
        pair.server(&authentication(0, &[]));
        pair.server(&settings_of(&[]));
        pair.client(&query("SELECT id FROM orders"));
        assert_eq!(holds(&pair.to_server, "FROM orders"), goes, "{rows:?}");
        let known = rows.map_or("estimated_rows: None".into(), |rows| {
            format!("estimated_rows: Some({rows})")
        });
        assert!(pair.logged(&["Command", &known]), "{:?}", pair.log);
    }
}

const READ_ONLY: &str = "  match: {users: [app]}\n  then: {readOnly: true}";

fn settings_of(more: &[(&str, &str)]) -> Vec<u8> {
    let more = more
        .iter()
        .flat_map(|(name, value)| parameter_status(name, value));
    [more.collect(), crate::pair::settings()].concat()
}

const CONFIRMED: (&str, &str) = ("default_transaction_read_only", "on");

fn read_only() -> Pair {
    let mut pair = Pair::new(&with(READ_ONLY));
    pair.client(&startup());
    pair.server(&authentication(0, &[]));
    pair.server(&settings_of(&[CONFIRMED]));
    pair
}

#[test]
fn the_target_is_told_to_keep_the_session_read_only() {
    let mut pair = read_only();
    assert!(holds(
        &pair.to_server,
        "default_transaction_read_only\0on\0\0"
    ));
    let size = u32::from_be_bytes(pair.to_server[..4].try_into().unwrap());
    assert_eq!(size as usize, pair.to_server.len());
    pair.forget();
    let mut lifting = Vec::new();
    for text in [
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "BEGIN; SELECT writes(); COMMIT; SELECT writes()",
        "INSERT INTO orders VALUES (1)",
    ] {
        lifting.extend(query(text));
        pair.client(&query(text));
        assert!(!holds(&pair.to_server, text), "{text}");
        pair.server(&[error("42601", "syntax error"), ready(b'I')].concat());
        assert!(
            pair.logged(&["Command", "decision: \"deny\"", "rule: \"bound\""]),
            "{text}"
        );
        pair.forget();
    }
    pair.client(&query("SELECT id FROM orders"));
    assert!(holds(&pair.to_server, "SELECT id"));
}

#[test]
fn a_session_that_would_not_stay_read_only_ends() {
    // The server does not report the setting.
    let mut pair = Pair::new(&with(READ_ONLY));
    pair.client(&startup());
    pair.server(&authentication(0, &[]));
    pair.server(&settings_of(&[]));
    assert_eq!(pair.session.state(), "closed");
    // A function lifts it.
    let mut pair = read_only();
    pair.client(&query("SELECT lifts()"));
    pair.server(&[answer(1), complete("SELECT 1")].concat());
    pair.forget();
    pair.client(&query("SELECT writes()"));
    assert!(
        !holds(&pair.to_server, "writes"),
        "before the report is there"
    );
    pair.server(&parameter_status("default_transaction_read_only", "off"));
    assert_eq!(pair.session.state(), "closed");
    assert!(!holds(&pair.to_server, "writes"));
}

#[test]
fn no_transaction_begins_before_the_report_of_the_last() {
    let mut pair = read_only();
    pair.client(&query("BEGIN"));
    pair.server(&[complete("BEGIN"), ready(b'T')].concat());
    pair.forget();
    let end = [parse("", "COMMIT"), bind("", ""), execute("")].concat();
    let next = [
        parse("", "SELECT writes()"),
        bind("", ""),
        execute(""),
        sync(),
    ]
    .concat();
    pair.client(&[end, next].concat());
    let parts = messages(&pair.to_server);
    let executes = parts.iter().filter(|(kind, _)| *kind == b'E').count();
    assert_eq!(executes, 1, "{}", kinds(&pair.to_server));
}
