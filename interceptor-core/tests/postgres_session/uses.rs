//! What is asked about masked columns without showing them.

use crate::pair::{Pair, masked};
use crate::text::*;

/// Refuses one use, and nothing else.
fn policy(used: &str) -> String {
    format!(
        "{}\n---\nkind: Rule\nname: no-fishing\nspec:\n  match: {{maskedUses: [{used}]}}\n  then: {{deny: \"it searches\"}}\n",
        masked()
    )
}

/// The uses that a statement is refused for.
fn refused_for(sql: &str) -> Vec<&'static str> {
    let mut refused = Vec::new();
    for used in ["filter", "order", "group", "join"] {
        let mut pair = Pair::running(&policy(used));
        pair.client(&query(sql));
        if !holds(&pair.to_server, sql) {
            refused.push(used);
        }
    }
    refused
}

#[test]
fn uses_of_masked_columns_are_told_apart() {
    for (sql, expected) in [
        ("SELECT id FROM customers WHERE ssn = '1'", &["filter"][..]),
        (
            "SELECT id FROM customers WHERE id IN (SELECT id FROM customers WHERE email LIKE 'a%')",
            &["filter"],
        ),
        (
            "SELECT count(*) FROM customers WHERE substr(ssn, 1, 1) = '1'",
            &["filter"],
        ),
        (
            "SELECT count(*) FILTER (WHERE ssn = '1') FROM customers",
            &["filter"],
        ),
        (
            "SELECT 1 FROM orders LIMIT (SELECT length(ssn) FROM customers)",
            &["filter"],
        ),
        (
            "UPDATE customers SET name = 'x' WHERE ssn = '1'",
            &["filter"],
        ),
        (
            "SELECT id FROM contacts JOIN customers ON true WHERE e = 'x'",
            &["filter"],
        ),
        ("SELECT id FROM customers ORDER BY ssn", &["order"]),
        ("SELECT name, ssn FROM customers ORDER BY 2", &["order"]),
        (
            "SELECT name, ssn AS harmless FROM customers ORDER BY harmless",
            &["order"],
        ),
        (
            "SELECT rank() OVER (ORDER BY ssn) FROM customers",
            &["order"],
        ),
        (
            "SELECT array_agg(id ORDER BY email) FROM customers",
            &["order"],
        ),
        ("SELECT count(*) FROM customers GROUP BY ssn", &["group"]),
        (
            "SELECT count(*) OVER (PARTITION BY ssn) FROM customers",
            &["group"],
        ),
        (
            "SELECT count(*) FROM customers GROUP BY email HAVING min(ssn) > '1'",
            &["filter", "group"],
        ),
        (
            "SELECT a.id FROM customers a JOIN customers b ON a.ssn = b.ssn",
            &["join"],
        ),
        (
            "SELECT a.id FROM customers a JOIN customers b USING (ssn)",
            &["join"],
        ),
        (
            "SELECT a.id FROM customers a NATURAL JOIN customers b",
            &["join"],
        ),
        (
            "SELECT x.id FROM (SELECT id, ssn AS s FROM customers) x WHERE s = '1'",
            &["filter"],
        ),
        // None of these asks for anything masked.
        ("SELECT ssn FROM customers WHERE id = 1 ORDER BY name", &[]),
        (
            "SELECT ssn, email FROM customers JOIN orders USING (id)",
            &[],
        ),
        ("SELECT count(ssn) FROM customers", &[]),
        ("SELECT total FROM orders WHERE total > 1 ORDER BY 1", &[]),
        ("INSERT INTO customers (id, ssn) VALUES (1, 'x')", &[]),
    ] {
        assert_eq!(refused_for(sql), expected, "{sql}");
    }
}

/// What cannot be seen through may ask anything.
#[test]
fn doubt_restricts() {
    let mut pair = Pair::running(
        &policy("filter").replace("default: allow", "default: allow\n  incomplete: allow"),
    );
    let sql = "DO 'BEGIN END'";
    pair.client(&query(sql));
    assert!(!holds(&pair.to_server, sql));
}

/// A permission names what may be asked.
#[test]
fn what_permits_covers_every_use() {
    let policy = masked().replace("default: allow", "default: deny")
        + "\n---\nkind: Rule\nname: order-only\nspec:\n  match: {maskedUses: [order]}\n  then: allow\n";
    for (sql, passes) in [
        ("SELECT id FROM customers ORDER BY ssn", true),
        (
            "SELECT id FROM customers WHERE email = 'x' ORDER BY ssn",
            false,
        ),
        ("SELECT id FROM customers", false),
    ] {
        let mut pair = Pair::running(&policy);
        pair.client(&query(sql));
        assert_eq!(holds(&pair.to_server, sql), passes, "{sql}");
    }
}
