//! Nothing that a mask hides reaches the client, whichever message it would come in.

use crate::pair::{
    CONTACTS, CUSTOMERS, MASKS, ORDERS, Pair, RULES, SECRET, masked, masked_and_lax, relation,
};
use crate::text::*;

/// One row of one column that is an expression, with the secret in it.
fn expression() -> Vec<Vec<u8>> {
    vec![rows(&[(0, 0)]), row(&[Some(SECRET)]), complete("SELECT 1")]
}

fn then(mut first: Vec<Vec<u8>>, second: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    first.extend(second);
    first.push(ready(b'I'));
    first
}

#[track_caller]
fn hidden(sql: &str) {
    let mut pair = Pair::running(&masked());
    pair.exchange(sql, &then(Vec::new(), expression()));
    assert!(!holds(&pair.to_client, SECRET), "{sql} shows it");
}

#[track_caller]
fn shown(sql: &str) {
    let mut pair = Pair::running(&masked());
    pair.exchange(sql, &then(Vec::new(), expression()));
    assert!(
        holds(&pair.to_client, SECRET),
        "{sql} hides what is no secret"
    );
}

#[test]
fn expressions_that_carry_a_masked_column() {
    for sql in [
        "SELECT upper(email) FROM customers",
        "SELECT upper(e) FROM contacts",
        "SELECT c FROM customers c",
        "SELECT row_to_json(c) FROM customers c",
        // A function by the notation of a column.
        "SELECT c.row_to_json FROM customers c",
        "SELECT customers.to_jsonb FROM customers",
        "SELECT public.customers.row_to_json FROM customers",
        "SELECT lower(c.row_to_json::text) FROM customers c, orders o",
        "SELECT x.row_to_json FROM (orders JOIN customers USING (id)) AS x",
        "SELECT (SELECT c.row_to_json) FROM customers c",
        "SELECT (c).email FROM customers c",
        "SELECT email(c) FROM customers c",
        "UPDATE customers SET id = id RETURNING row_to_json(old)",
        "UPDATE customers SET id = id RETURNING WITH (OLD AS was) row_to_json(was)",
        "DELETE FROM orders USING customers RETURNING customers.row_to_json",
        "SELECT unknown_function(1)",
        "SELECT (1).unknown_function",
        "SELECT (o).unknown_function FROM orders o",
        "SELECT o.unknown_function FROM orders o",
        "WITH s AS (SELECT email AS e FROM customers) SELECT upper(s.e) FROM s",
        "SELECT e || '' FROM (SELECT email AS e FROM customers) x",
        "SELECT 'x' UNION SELECT email FROM customers",
        "VALUES ((SELECT email FROM customers LIMIT 1))",
        "SELECT max(email) OVER () FROM customers",
        "SELECT array_agg(c.*) FROM customers c",
    ] {
        // Held in the rules of this file only because it deletes.
        let mut pair = Pair::running(&masked().replace("DELETE", "TRUNCATE"));
        pair.exchange(sql, &then(Vec::new(), expression()));
        assert!(!holds(&pair.to_client, SECRET), "{sql} shows it");
    }
}

#[test]
fn what_carries_nothing_is_shown() {
    for sql in [
        "SELECT count(*) FROM customers",
        "SELECT count(email) FROM customers",
        "SELECT upper(name) FROM customers",
        "SELECT upper(c.name) FROM customers c",
        "SELECT o.total || 'x' FROM orders o",
        "SELECT lower('x')",
        "SELECT s.n + 1 FROM (SELECT count(*) AS n FROM customers) AS s",
        "WITH s AS (SELECT count(*) AS n FROM customers) SELECT x.n + 1 FROM s AS x",
        "EXPLAIN SELECT email FROM customers",
        "SHOW work_mem",
    ] {
        shown(sql);
    }
}

#[test]
fn a_status_or_a_plan_does_not_cover_for_the_next_statement() {
    let mut pair = Pair::running(&masked());
    for first in ["EXPLAIN SELECT 1", "SHOW work_mem"] {
        let plan = || vec![rows(&[(0, 0)]), row(&[Some("Result")]), complete("EXPLAIN")];
        pair.exchange(
            &format!("{first}; SELECT upper(email) FROM customers"),
            &then(plan(), expression()),
        );
        pair.shows_nothing();
    }
}

#[test]
fn each_statement_of_a_text_is_masked_by_what_it_reads() {
    let mut pair = Pair::running(&masked());
    let one = |text: &str| vec![rows(&[(0, 0)]), row(&[Some(text)]), complete("SELECT 1")];
    pair.exchange(
        "SELECT upper('harmless'); SELECT upper(email) FROM customers; SELECT upper('after')",
        &[
            one("HARMLESS"),
            one("SECRET"),
            one("AFTER"),
            vec![ready(b'I')],
        ]
        .concat(),
    );
    pair.shows("HARMLESS");
    pair.shows("AFTER");
    assert!(!holds(&pair.to_client, "SECRET"));
}

/// EXPLAIN VERBOSE shows what an immutable function came to.
#[test]
fn a_plan_with_a_function_that_is_not_known_is_hidden() {
    hidden("EXPLAIN (VERBOSE) SELECT look_up_the_address(1)");
}

#[test]
fn a_second_body_of_a_name_does_not_hide_the_first() {
    let mut pair = Pair::running(&masked());
    pair.exchange(
        "PREPARE p AS SELECT upper(email) FROM customers",
        &[complete("PREPARE"), ready(b'I')],
    );
    pair.exchange(
        "PREPARE p AS SELECT 1 + 1",
        &[
            error("42P05", "prepared statement \"p\" already exists"),
            ready(b'I'),
        ],
    );
    pair.exchange("EXECUTE p", &then(Vec::new(), expression()));
    pair.shows_nothing();
}

#[test]
fn a_harmless_execute_does_not_cover_for_its_neighbour() {
    let mut pair = Pair::running(&masked());
    pair.exchange(
        "PREPARE p AS SELECT 1 + 1",
        &[complete("PREPARE"), ready(b'I')],
    );
    pair.exchange(
        "SELECT upper(email) FROM customers; EXECUTE p",
        &then(
            expression(),
            vec![rows(&[(0, 0)]), row(&[Some("2")]), complete("SELECT 1")],
        ),
    );
    pair.shows_nothing();
    // Alone it hides nothing.
    pair.forget();
    pair.exchange(
        "EXECUTE p",
        &then(
            vec![rows(&[(0, 0)]), row(&[Some("two")])],
            vec![complete("SELECT 1")],
        ),
    );
    pair.shows("two");
}

fn copied(line: &str) -> Vec<Vec<u8>> {
    vec![
        copy_response(b'H', 1),
        copy_data(line),
        copy_done(),
        complete("COPY 1"),
    ]
}

#[test]
fn each_copy_of_a_text_has_its_own_columns() {
    let mut pair = Pair::running(&masked());
    pair.exchange(
        "COPY customers (email) TO STDOUT; COPY orders (id) TO STDOUT",
        &then(copied(&format!("{SECRET}\n")), copied("1\n")),
    );
    pair.shows_nothing();
}

#[test]
fn a_copy_in_an_encoding_that_hides_delimiters_is_refused() {
    let copy = "COPY customers (email) TO STDOUT (ENCODING 'SJIS')";
    let mut pair = Pair::running(&masked());
    pair.exchange(copy, &then(copied(&format!("{SECRET}\n")), Vec::new()));
    pair.shows_nothing();
    assert_eq!(pair.session.state(), "closed");
    // Where the whole session is in such an encoding as well.
    let mut pair = Pair::running(&masked());
    pair.exchange(
        "SET client_encoding TO sjis",
        &[
            complete("SET"),
            parameter_status("client_encoding", "SJIS"),
            ready(b'I'),
        ],
    );
    pair.exchange(
        "COPY customers (email) TO STDOUT",
        &then(copied(&format!("{SECRET}\n")), Vec::new()),
    );
    pair.shows_nothing();
    assert_eq!(pair.session.state(), "closed");
    // What no mask touches passes in any encoding.
    let mut pair = Pair::running(&masked());
    pair.exchange(
        "COPY orders (id) TO STDOUT (ENCODING 'SJIS')",
        &then(copied("1\n"), Vec::new()),
    );
    pair.shows("1\n");
}

/// However many views stand on each other.
#[test]
fn a_long_chain_of_views() {
    let mut pair = Pair::running(&masked());
    for index in 0..200u32 {
        // Object ids against the order in which they depend on each other.
        let oid = 40_000 - index;
        let below = match index {
            0 => "customers.email".to_owned(),
            _ => format!("v{}.x", index - 1),
        };
        let table = below.split('.').next().unwrap();
        let mut view = relation(oid, "public", &format!("v{index}"), &["x"]);
        view.view = Some(format!("SELECT {below} AS x FROM public.{table}"));
        pair.relations.push(view);
    }
    pair.exchange(
        "CREATE VIEW another AS SELECT 1",
        &[complete("CREATE VIEW"), ready(b'I')],
    );
    pair.forget();
    pair.exchange(
        "SELECT x FROM v199",
        &[
            rows(&[(40_000 - 199, 1)]),
            row(&[Some(SECRET)]),
            complete("SELECT 1"),
            ready(b'I'),
        ],
    );
    pair.shows_nothing();
}

/// The parent of a masked table shows its rows.
#[test]
fn a_parent_shows_what_its_children_hold() {
    let mut pair = Pair::running(&masked());
    pair.relations
        .push(relation(30_000, "public", "people", &["email"]));
    pair.relations[0].parents.push(30_000);
    pair.relations
        .push(relation(30_001, "public", "customers_2", &["id", "email"]));
    pair.relations[4].parents.push(CUSTOMERS);
    pair.exchange(
        "CREATE TABLE x ()",
        &[complete("CREATE TABLE"), ready(b'I')],
    );
    pair.forget();
    for (oid, attribute) in [(30_000, 1), (30_001, 2)] {
        pair.exchange(
            "SELECT email FROM relatives",
            &[
                rows(&[(oid, attribute)]),
                row(&[Some(SECRET)]),
                complete("SELECT 1"),
                ready(b'I'),
            ],
        );
        pair.shows_nothing();
    }
}

#[test]
fn statistics_hold_values() {
    let mut pair = Pair::running(&masked());
    let mut statistics = relation(
        12_000,
        "pg_catalog",
        "pg_stats_ext",
        &["tablename", "most_common_vals"],
    );
    statistics.columns[1].type_oid = 1009;
    pair.relations.push(statistics);
    pair.exchange(
        "CREATE TABLE x ()",
        &[complete("CREATE TABLE"), ready(b'I')],
    );
    pair.forget();
    pair.exchange(
        "SELECT tablename, most_common_vals FROM pg_stats_ext",
        &[
            rows(&[(12_000, 1), (12_000, 2)]),
            row(&[Some("customers"), Some(SECRET)]),
            complete("SELECT 1"),
            ready(b'I'),
        ],
    );
    pair.shows_nothing();
    pair.shows("customers");
}

/// What a transaction created is not in the catalogue that others see.
#[test]
fn expressions_over_what_this_transaction_made() {
    for (make, from) in [
        (
            "CREATE TEMP VIEW v AS SELECT upper(ssn) AS x FROM customers",
            "v",
        ),
        (
            "CREATE OR REPLACE VIEW contacts AS SELECT upper(ssn) AS x FROM customers",
            "contacts",
        ),
        ("ALTER TABLE customers RENAME email TO x", "customers"),
        ("ALTER TABLE customers RENAME TO v", "v"),
        ("CREATE OR REPLACE VIEW hidden AS SELECT 1", "contacts"),
    ] {
        let mut pair = Pair::running(&masked_and_lax());
        pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
        pair.exchange(make, &[complete("CREATE VIEW"), ready(b'T')]);
        pair.exchange(
            &format!("SELECT x || '' FROM {from}"),
            &[
                rows(&[(0, 0)]),
                row(&[Some(SECRET)]),
                complete("SELECT 1"),
                ready(b'T'),
            ],
        );
        assert!(!holds(&pair.to_client, SECRET), "{make}");
    }
}

/// A migration goes on reading its own tables.
#[test]
fn a_transaction_that_changes_tables_reads_the_others() {
    let mut pair = Pair::running(&masked());
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.exchange(
        "CREATE TABLE t (a int)",
        &[complete("CREATE TABLE"), ready(b'T')],
    );
    for sql in [
        "SELECT count(*) FROM t",
        "SELECT total || 'x' FROM orders",
        "SELECT upper(relname) FROM pg_catalog.pg_class",
    ] {
        pair.forget();
        pair.exchange(
            sql,
            &[
                rows(&[(0, 0)]),
                row(&[Some("seven")]),
                complete("SELECT 1"),
                ready(b'T'),
            ],
        );
        pair.shows("seven");
    }
}

/// `partial` and `hash` of a part of the value would show the whole, part by part.
#[test]
fn an_expression_shows_nothing_at_all() {
    for method in ["partial", "hash"] {
        let policy = format!("{RULES}{}", MASKS.replace("full", method));
        let mut pair = Pair::running(&policy);
        pair.exchange(
            "SELECT reverse(ssn), ssn FROM customers",
            &[
                rows(&[(0, 0), (CUSTOMERS, 4)]),
                row(&[Some("0211-50-870"), Some("078-05-1120")]),
                complete("SELECT 1"),
                ready(b'I'),
            ],
        );
        let cells = &messages(&pair.to_client)[1].1;
        assert!(cells.starts_with(b"\0\x02\0\0\0\x04****"), "{cells:?}");
        assert!(!cells.ends_with(b"\0\0\0\x04****"), "{cells:?}");
        // Through a view it is still the column.
        pair.forget();
        pair.exchange(
            "SELECT e FROM contacts",
            &[
                rows(&[(CONTACTS, 1)]),
                row(&[Some("a-long-value-of-many-characters")]),
                complete("SELECT 1"),
                ready(b'I'),
            ],
        );
        assert!(
            !pair
                .to_client
                .windows(8)
                .any(|bytes| bytes == b"\0\0\0\x04****")
        );
    }
}

/// An UPDATE of the masked column itself is no way out for another statement beside it.
#[test]
fn values_do_not_move_behind_an_update() {
    for sql in [
        "WITH x AS (UPDATE customers SET email = 'z' WHERE false RETURNING 1) INSERT INTO customers (name) SELECT email FROM customers",
        "MERGE INTO customers c USING contacts o ON true WHEN MATCHED THEN UPDATE SET name = o.e",
        "UPDATE customers SET email = 'z'; INSERT INTO customers (name) SELECT email FROM customers",
        "INSERT INTO orders SELECT c.row_to_json FROM customers c",
        "SELECT pg_notify('x', e) FROM contacts",
        "INSERT INTO orders SELECT e FROM contacts",
        "UPDATE customers SET name = email",
    ] {
        let mut pair = Pair::running(&masked());
        pair.client(&query(sql));
        assert!(
            !holds(&pair.to_server, "customers") && !holds(&pair.to_server, "contacts"),
            "{sql}"
        );
    }
    let partial = format!("{RULES}{}", MASKS.replace("full", "partial"));
    for (policy, passes) in [(masked(), true), (partial, false)] {
        let mut pair = Pair::running(&policy);
        pair.client(&query("UPDATE customers SET email = reverse(email)"));
        assert_eq!(holds(&pair.to_server, "reverse"), passes);
    }
}

#[test]
fn results_of_functions_called_by_number() {
    let mut pair = Pair::running(&masked_and_lax());
    pair.client(&function_call(2077));
    let mut result = (SECRET.len() as u32).to_be_bytes().to_vec();
    result.extend_from_slice(SECRET.as_bytes());
    pair.server(&[message(b'V', &result), ready(b'I')].concat());
    pair.shows_nothing();
    assert_eq!(kinds(&pair.to_client), "VZ");
}

#[test]
fn payloads_of_notifications() {
    let mut pair = Pair::running(&masked());
    pair.server(&notification(SECRET));
    pair.shows_nothing();
    pair.shows("channel");
    pair.forget();
    pair.server(&notification(""));
    assert_eq!(pair.to_client, notification(""));
    let mut open = Pair::running(RULES);
    open.server(&notification("as it is"));
    open.shows("as it is");
}

/// Values in the texts of errors: quoted, bare, in details, from functions.
#[test]
fn errors_do_not_quote_values() {
    let secret = "ada@example.com";
    let cases: &[&[(u8, &str)]] = &[
        &[
            (b'C', "22P02"),
            (
                b'M',
                "invalid input syntax for type integer: \"ada@example.com\"",
            ),
        ],
        &[
            (b'C', "42P01"),
            (b'M', "relation \"ada@example.com\" does not exist"),
        ],
        &[
            (b'C', "3F000"),
            (b'M', "schema \"ada@example.com\" does not exist"),
        ],
        &[
            (b'C', "42704"),
            (b'M', "role \"ada@example.com\" does not exist"),
        ],
        &[
            (b'C', "42601"),
            (b'M', "syntax error in tsquery: \"ada@example.com\""),
        ],
        &[
            (b'C', "23505"),
            (b'M', "duplicate key"),
            (b'D', "Key (email)=(ada@example.com) already exists."),
        ],
        &[
            (b'C', "23505"),
            (b'M', "duplicate key"),
            (b'H', "try \"ada@example.com\""),
        ],
        &[
            (b'C', "P0001"),
            (b'M', "no such customer: ada@example.com"),
            (b'W', "PL/pgSQL function f() line 1 at RAISE"),
        ],
        &[
            (b'C', "23000"),
            (b'M', "no such customer: ada@example.com"),
            (b'W', "PL/pgSQL function f() line 1 at RAISE"),
        ],
        &[
            (b'C', "42703"),
            (b'M', "no"),
            (b'q', "SELECT 'ada@example.com'"),
        ],
    ];
    for fields in cases {
        for kind in [b'E', b'N'] {
            let mut pair = Pair::running(&masked());
            pair.client(&query("SELECT f(email) FROM customers"));
            pair.server(&report(kind, fields));
            assert!(!holds(&pair.to_client, secret), "{fields:?}");
        }
    }
    let mut pair = Pair::running(&masked());
    pair.client(&query("SELECT get_byte('x', ssn::int) FROM customers"));
    pair.server(&error("2202E", "index 78051120 out of valid range, 0..0"));
    assert!(!holds(&pair.to_client, "78051120"));
}

#[test]
fn errors_that_quote_the_statement_stay_as_they_are() {
    for fields in [
        &[
            (b'S', "ERROR"),
            (b'C', "42P01"),
            (b'M', "relation \"custmers\" does not exist"),
            (b'P', "15"),
        ],
        &[
            (b'S', "ERROR"),
            (b'C', "42703"),
            (b'M', "column \"nme\" does not exist"),
            (b'P', "8"),
        ],
    ] {
        let mut pair = Pair::running(&masked());
        pair.client(&query("SELECT nme FROM custmers"));
        pair.forget();
        pair.server(&report(b'E', fields));
        assert_eq!(pair.to_client, report(b'E', fields));
    }
    // Nothing is hidden where no column is masked.
    let fields = [
        (b'C', "22P02"),
        (b'M', "invalid input: \"x\""),
        (b'D', "detail"),
    ];
    let mut pair = Pair::running(RULES);
    pair.client(&query("SELECT 1"));
    pair.server(&report(b'E', &fields));
    assert_eq!(pair.to_client, report(b'E', &fields));
}

#[test]
fn a_portal_described_for_every_row_of_a_long_transaction_is_not_kept() {
    let mut pair = Pair::running(&masked());
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.client(&[parse("s", "SELECT total FROM orders"), sync()].concat());
    pair.server(&[parse_complete(), ready(b'T')].concat());
    for _ in 0..50 {
        pair.client(&[bind("", "s"), describe_portal(""), execute(""), sync()].concat());
        pair.server(
            &[
                bind_complete(),
                rows(&[(ORDERS, 2)]),
                row(&[Some("9")]),
                complete("SELECT 1"),
                ready(b'T'),
            ]
            .concat(),
        );
        assert_eq!(pair.session.state(), "idle");
    }
    assert!(pair.session.plans() <= 1, "{}", pair.session.plans());
}
