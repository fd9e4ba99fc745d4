//! A name that was judged as one statement never runs another: prepared statements and portals,
//! by protocol and by SQL, which share their names.

use crate::pair::{Pair, RULES, SECRET, masked, masked_and_lax};
use crate::text::*;

/// Prepares, binds and executes in one go.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), execute("")].concat()
}

/// Parse, confirmed.
fn prepare(pair: &mut Pair, name: &str, sql: &str) {
    pair.client(&[parse(name, sql), sync()].concat());
    pair.server(&[parse_complete(), ready(b'I')].concat());
}

fn done(tag: &str) -> Vec<Vec<u8>> {
    vec![complete(tag), ready(b'I')]
}

/// Judged as harmless, dropped, and prepared as something else.
fn redefined() -> Vec<u8> {
    [
        parse("a", "DEALLOCATE p"),
        bind("a", "a"),
        parse("b", "PREPARE p AS DELETE FROM orders"),
        bind("b", "b"),
        parse("p", "SELECT 1"),
        execute("a"),
        execute("b"),
        bind("", "p"),
        execute(""),
        sync(),
    ]
    .concat()
}

fn up_to_the_deallocate() -> Vec<u8> {
    let both = [parse_complete(), bind_complete()].concat();
    [both.clone(), both, parse_complete(), complete("DEALLOCATE")].concat()
}

#[test]
fn a_statement_that_sql_prepares_is_judged_as_what_it_becomes() {
    let mut pair = Pair::running(RULES);
    pair.client(&redefined());
    // What follows waits for the server's word, which has to be asked for.
    assert_eq!(kinds(&pair.to_server), "PBPBPEEH");
    pair.server(&up_to_the_deallocate());
    assert_eq!(kinds(&pair.to_server), "PBPBPEEH");
    pair.server(&complete("PREPARE"));
    assert_eq!(kinds(&pair.to_server), "PBPBPEEH");
    assert!(pair.logged(&["hold", "EXECUTE \"p\""]), "{:#?}", pair.log);
}

#[test]
fn a_statement_that_sql_fails_to_prepare_is_what_it_was() {
    let mut pair = Pair::running(RULES);
    prepare(&mut pair, "p", "SELECT 'still'");
    pair.exchange(
        "PREPARE p AS DELETE FROM orders",
        &[
            error("42P05", "prepared statement \"p\" already exists"),
            ready(b'I'),
        ],
    );
    pair.forget();
    pair.client(&[bind("", "p"), execute(""), sync()].concat());
    assert_eq!(kinds(&pair.to_server), "BES");
    assert!(!holds(&pair.to_server, "refused_by_interceptor"));
}

#[test]
fn what_a_failed_query_prepared_before_is_prepared() {
    let mut pair = Pair::running(RULES);
    prepare(&mut pair, "p", "SELECT 1");
    pair.exchange(
        "DEALLOCATE p; PREPARE p AS DELETE FROM orders; SELECT 1 / 0; PREPARE q AS SELECT 1",
        &[
            complete("DEALLOCATE"),
            complete("PREPARE"),
            error("22012", "division by zero"),
            ready(b'I'),
        ],
    );
    pair.forget();
    pair.client(&[bind("", "q"), sync()].concat());
    assert!(holds(&pair.to_server, "refused_by_interceptor"));
    pair.server(&[error("42601", "refused_by_interceptor"), ready(b'I')].concat());
    pair.forget();
    pair.client(&[bind("", "p"), execute(""), sync()].concat());
    assert!(pair.logged(&["hold", "EXECUTE \"p\""]), "{:#?}", pair.log);
    assert_eq!(kinds(&pair.to_server), "");
}

#[test]
fn a_portal_closed_by_a_bound_portal_is_forgotten_when_that_runs() {
    let mut pair = Pair::running(&masked());
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.client(
        &[
            parse("a", "CLOSE c"),
            bind("a", "a"),
            parse(
                "b",
                "DECLARE c CURSOR FOR SELECT upper(email) FROM customers",
            ),
            bind("b", "b"),
            parse("h", "SELECT lower('x')"),
            bind("c", "h"),
            describe_portal("c"),
            sync(),
        ]
        .concat(),
    );
    pair.server(
        &[
            parse_complete(),
            bind_complete(),
            parse_complete(),
            bind_complete(),
            parse_complete(),
            bind_complete(),
            rows(&[(0, 0)]),
            ready(b'T'),
        ]
        .concat(),
    );
    pair.forget();
    pair.client(&[execute("a"), execute("b"), execute("c"), sync()].concat());
    let sent = messages(&pair.to_server);
    let executed = |name: &[u8]| {
        sent.iter()
            .any(|(kind, body)| *kind == b'E' && body.starts_with(name))
    };
    assert!(executed(b"a\0") && executed(b"b\0") && !executed(b"c\0"));
}

#[test]
fn execute_means_every_statement_of_that_name() {
    let mut pair = Pair::running(RULES);
    pair.exchange("PREPARE p AS SELECT 1", &done("PREPARE"));
    pair.exchange("DEALLOCATE p", &done("DEALLOCATE"));
    prepare(&mut pair, "p", "DELETE FROM orders");
    pair.forget();
    pair.client(&query("EXECUTE p"));
    assert!(pair.logged(&["hold", "EXECUTE p"]), "{:#?}", pair.log);
    assert!(!holds(&pair.to_server, "EXECUTE p"));
}

#[test]
fn a_deallocate_that_fails_forgets_nothing_that_execute_runs() {
    let mut pair = Pair::running(RULES);
    pair.exchange("PREPARE p AS SELECT 1", &done("PREPARE"));
    pair.exchange("DEALLOCATE p", &done("DEALLOCATE"));
    prepare(&mut pair, "p", "DELETE FROM orders");
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.exchange(
        "SELECT 1/0",
        &[error("22012", "division by zero"), ready(b'E')],
    );
    pair.exchange(
        "DEALLOCATE p",
        &[error("25P02", "the transaction is aborted"), ready(b'E')],
    );
    pair.exchange("ROLLBACK", &done("ROLLBACK"));
    pair.forget();
    pair.client(&query("EXECUTE p"));
    assert!(pair.logged(&["hold", "EXECUTE p"]), "{:#?}", pair.log);
}

#[test]
fn too_many_names_make_every_name_unknown() {
    let mut pair = Pair::running(RULES);
    pair.exchange("PREPARE p AS DELETE FROM orders", &done("PREPARE"));
    for index in 0..10_001 {
        pair.exchange(&format!("PREPARE n{index} AS SELECT 1"), &done("PREPARE"));
    }
    // The server has a `p` and refuses this one.
    pair.exchange(
        "PREPARE p AS SELECT 1",
        &[
            error("42P05", "prepared statement \"p\" already exists"),
            ready(b'I'),
        ],
    );
    pair.forget();
    pair.client(&query("EXECUTE p"));
    assert!(!holds(&pair.to_server, "EXECUTE p"), "{:#?}", pair.log);
}

#[test]
fn execute_is_found_where_it_is_explained_and_stored() {
    let mut pair = Pair::running(RULES);
    pair.exchange(
        "PREPARE p AS DELETE FROM orders RETURNING 1",
        &done("PREPARE"),
    );
    for sql in [
        "EXPLAIN ANALYZE EXECUTE p",
        "EXPLAIN ANALYZE CREATE TABLE t AS EXECUTE p",
        "CREATE TABLE t AS EXECUTE p",
    ] {
        pair.forget();
        pair.client(&query(sql));
        assert!(!holds(&pair.to_server, sql), "{sql}: {:#?}", pair.log);
        pair.resolve(false);
        pair.server(&[error("42601", "syntax error"), ready(b'I')].concat());
    }
}

#[test]
fn fetch_from_a_portal_of_the_protocol_knows_what_that_shows() {
    let mut pair = Pair::running(&masked());
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.exchange(
        "DECLARE c CURSOR FOR SELECT lower('x')",
        &[complete("DECLARE CURSOR"), ready(b'T')],
    );
    pair.exchange("CLOSE c", &[complete("CLOSE CURSOR"), ready(b'T')]);
    pair.client(
        &[
            parse("", "SELECT upper(email) FROM customers"),
            bind("c", ""),
            sync(),
        ]
        .concat(),
    );
    pair.server(&[parse_complete(), bind_complete(), ready(b'T')].concat());
    pair.forget();
    pair.exchange(
        "FETCH ALL FROM c",
        &[
            rows(&[(0, 0)]),
            row(&[Some(SECRET)]),
            complete("FETCH 1"),
            ready(b'T'),
        ],
    );
    pair.shows_nothing();
    pair.shows("****");
}

/// Code that the gateway cannot read may have given any name another meaning.
#[test]
fn hidden_code_makes_names_doubtful() {
    let mut pair = Pair::running(&masked_and_lax());
    prepare(&mut pair, "p", "SELECT lower('x')");
    pair.exchange(
        "DO $$ BEGIN EXECUTE 'DEALLOCATE p'; EXECUTE 'PREPARE p AS SELECT upper(email) FROM customers'; END $$",
        &done("DO"),
    );
    pair.forget();
    pair.client(&[bind("", "p"), execute(""), sync()].concat());
    pair.server(
        &[
            bind_complete(),
            rows(&[(0, 0)]),
            row(&[Some(SECRET)]),
            complete("SELECT 1"),
            ready(b'I'),
        ]
        .concat(),
    );
    pair.shows_nothing();
}

/// The settings that say how a text is read come with ReadyForQuery, no earlier.
#[test]
fn a_text_is_not_read_before_its_settings_are_known() {
    let smuggled = r"SELECT 'a\' , ' ; DROP TABLE orders; --'";
    let set = "SELECT set_config('standard_conforming_strings', 'off', false)";
    let answer = [
        parse_complete(),
        bind_complete(),
        no_data(),
        complete("SELECT 1"),
    ]
    .concat();
    let mut pair = Pair::running(RULES);
    pair.client(&[run(set), flush()].concat());
    pair.server(&answer);
    pair.client(&run(smuggled));
    assert!(!holds(&pair.to_server, "DROP"), "{:#?}", pair.log);

    // Bound early, run late.
    let mut pair = Pair::running(RULES);
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.client(&[parse("s", set), bind("s", "s"), sync()].concat());
    pair.server(&[parse_complete(), bind_complete(), ready(b'T')].concat());
    pair.client(&[execute("s"), flush()].concat());
    pair.client(&run(smuggled));
    assert!(!holds(&pair.to_server, "DROP"), "{:#?}", pair.log);

    let mut pair = Pair::running(RULES);
    pair.client(&[query(set), query(smuggled)].concat());
    assert!(!holds(&pair.to_server, "DROP"));
    pair.server(
        &[
            rows(&[(0, 0)]),
            complete("SELECT 1"),
            parameter_status("standard_conforming_strings", "off"),
            ready(b'I'),
        ]
        .concat(),
    );
    assert!(!holds(&pair.to_server, "DROP"), "{:#?}", pair.log);
}

#[test]
fn portals_and_statements_have_a_limit() {
    let mut pair = Pair::running(RULES);
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.client(&[parse("s", "SELECT 1"), sync()].concat());
    pair.server(&[parse_complete(), ready(b'T')].concat());
    for index in 0..100_001 {
        pair.forget();
        pair.client(&[bind(&format!("c{index}"), "s"), sync()].concat());
        if holds(&pair.to_server, "refused_by_interceptor") {
            return;
        }
        pair.server(&[bind_complete(), ready(b'T')].concat());
    }
    panic!("portals without end");
}

#[test]
fn texts_of_prepared_statements_have_a_limit() {
    let mut pair = Pair::running(RULES);
    let text = format!("SELECT '{}'", "x".repeat(4 << 20));
    for index in 0..64 {
        pair.forget();
        pair.client(&[parse(&format!("s{index}"), &text), sync()].concat());
        if holds(&pair.to_server, "refused_by_interceptor") {
            return;
        }
        pair.server(&[parse_complete(), ready(b'I')].concat());
    }
    panic!("a quarter of a gigabyte of texts");
}

/// The names that honest programs use go on working.
#[test]
fn reuse_of_names_is_no_reason_to_refuse() {
    let mut pair = Pair::running(RULES);
    prepare(&mut pair, "s", "SELECT 1");
    for _ in 0..3 {
        pair.forget();
        pair.client(&[bind("", "s"), execute(""), sync()].concat());
        pair.server(&[bind_complete(), complete("SELECT 1"), ready(b'I')].concat());
        assert_eq!(kinds(&pair.to_server), "BES");
        assert_eq!(kinds(&pair.to_client), "2CZ");
    }
    pair.client(
        &[
            close_statement("s"),
            parse("s", "SELECT 2"),
            bind("", "s"),
            sync(),
        ]
        .concat(),
    );
    pair.server(
        &[
            close_complete(),
            parse_complete(),
            bind_complete(),
            ready(b'I'),
        ]
        .concat(),
    );
    pair.forget();
    pair.client(&[bind("", "s"), execute_some("", 1), sync()].concat());
    assert_eq!(kinds(&pair.to_server), "BES");
}

/// A role can be set without a command.
#[test]
fn a_role_in_the_startup_packet_is_judged_as_set_role() {
    let rule = r#"
---
kind: Rule
name: own-role
spec:
  match: {statements: [SET ROLE]}
  then: {deny: "keep your role"}
"#;
    let policy = format!("{RULES}{rule}");
    for parameters in [
        ["role", "admin"],
        ["ROLE", "admin"],
        ["options", "-c role=admin"],
        ["options", "--session-authorization=admin"],
    ] {
        let mut pair = Pair::new(&policy);
        pair.client(&startup_with(&parameters));
        assert!(pair.session.is_closed(), "{parameters:?}");
        assert!(pair.to_server.is_empty());
        pair.shows("own-role");

        let mut pair = Pair::new(RULES);
        pair.withhold = true;
        pair.client(&startup_with(&parameters));
        assert!(pair.to_server.is_empty(), "recorded first");
        pair.confirm();
        assert!(holds(&pair.to_server, "admin"), "{parameters:?}");
    }
    let mut pair = Pair::new(&policy);
    pair.client(&startup_with(&["search_path", "public"]));
    assert!(!pair.session.is_closed());
}
