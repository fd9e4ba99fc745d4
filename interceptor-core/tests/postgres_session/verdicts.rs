//! The same text again: its verdict is the one that would be found anew.

use crate::pair::{Pair, RULES};
use crate::text::*;

fn with(rule: &str) -> String {
    format!("{RULES}{rule}")
}

const NO_ORDERS: &str = "
---
kind: Rule
name: no-orders
spec:
  match: {reads: [orders]}
  then: {deny: 'not these'}
";

/// Asks twice, so that the second verdict may be a kept one. True if the server got both.
fn goes(pair: &mut Pair, sql: &str) -> bool {
    let went = [(); 2].map(|()| {
        pair.forget();
        pair.client(&query(sql));
        let went = holds(&pair.to_server, sql);
        match went {
            true => pair.server(&[complete("SELECT 0"), ready(b'I')].concat()),
            false => pair.server(&[error("42601", "refused"), ready(b'I')].concat()),
        }
        assert_eq!(pair.session.state(), "idle");
        went
    });
    assert_eq!(went[0], went[1], "{sql}");
    went[0]
}

#[test]
fn another_policy_decides_on_the_same_text_anew() {
    for sql in [
        "SELECT total FROM orders",
        "SELECT total FROM orders WHERE id = 1",
    ] {
        let mut pair = Pair::running(RULES);
        assert!(goes(&mut pair, sql));
        pair.reload(&with(NO_ORDERS));
        assert!(!goes(&mut pair, sql));
        pair.reload(RULES);
        assert!(goes(&mut pair, sql));
    }
}

#[test]
fn prepared_statements_are_judged_by_the_policy_in_force() {
    let mut pair = Pair::running(RULES);
    pair.client(&[parse("s", "SELECT total FROM orders"), sync()].concat());
    pair.server(&[parse_complete(), ready(b'I')].concat());
    let run = [bind("", "s"), execute(""), sync()].concat();
    for _ in 0..2 {
        pair.forget();
        pair.client(&run);
        assert_eq!(kinds(&pair.to_server), "BES");
        pair.server(&[bind_complete(), complete("SELECT 0"), ready(b'I')].concat());
    }
    pair.reload(&with(NO_ORDERS));
    pair.forget();
    pair.client(&run);
    assert_eq!(kinds(&pair.to_server), "PS");
}

#[test]
fn the_time_is_asked_each_time() {
    let hours = "
---
kind: Rule
name: at-night
spec:
  match: {statements: [SELECT], times: [{from: '00:00', to: '01:00', zone: UTC}]}
  then: {deny: 'not at night'}
";
    let expression = "
---
kind: Rule
name: at-night
spec:
  match: {statements: [SELECT], when: \"now < timestamp('2026-11-20T01:00:00Z')\"}
  then: {deny: 'not at night'}
";
    for rule in [hours, expression] {
        let mut pair = Pair::running(&with(rule));
        assert!(!goes(&mut pair, "SELECT 1"));
        pair.wait(3_600);
        assert!(goes(&mut pair, "SELECT 1"));
    }
}

#[test]
fn rules_on_texts_see_the_text_and_not_its_shape() {
    let rule = "
---
kind: Rule
name: not-seven
spec:
  match: {text: 'id = 7\\b'}
  then: {deny: 'not this one'}
";
    let mut pair = Pair::running(&with(rule));
    assert!(goes(&mut pair, "SELECT total FROM orders WHERE id = 8"));
    assert!(!goes(&mut pair, "SELECT total FROM orders WHERE id = 7"));
    assert!(goes(&mut pair, "SELECT total FROM orders WHERE id = 70"));
}

#[test]
fn a_rate_counts_every_command() {
    let rule = "
---
kind: Rule
name: slowly
spec:
  match: {statements: [SELECT]}
  then: {limit: {rate: 3/h}}
";
    let mut pair = Pair::running(&with(rule));
    let went = [(); 5].map(|()| {
        pair.forget();
        pair.client(&query("SELECT 1"));
        let went = holds(&pair.to_server, "SELECT 1");
        pair.server(&[complete("SELECT 0"), ready(b'I')].concat());
        went
    });
    assert_eq!(went, [true, true, true, false, false]);
}
