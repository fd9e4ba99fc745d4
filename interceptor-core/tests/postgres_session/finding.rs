//! Names are found as the server finds them: a rule on `schema.table` is met where a name means that
//! table, not where it means another for certain, and in doubt.

use interceptor_core::session::postgres::catalog::{
    Catalog, CatalogFunction, CatalogRelation, Contents, Language, RelationKind, SearchPath,
    Volatility,
};

use crate::pair::{CONTACTS, ORDERS, Pair, built_in, relation, relations, settings};
use crate::text::*;

/// What is written stays, in each of two schemas.
const RULES: &str = r#"
kind: Target
name: shop
spec:
  protocol: postgres
  endpoints: ["10.0.0.5:5432"]
  default: allow
  catalog: {user: reader}
---
kind: Rule
name: sales-stay
spec:
  match: {writes: [public.orders, public.customers]}
  then: {deny: "they stay"}
"#;

/// `orders` is in `public` and in `archive`, `parcels` in `public` alone.
fn two_schemas() -> Vec<CatalogRelation> {
    let mut relations = relations();
    relations.push(relation(20_010, "archive", "orders", &["id", "total"]));
    relations.push(relation(20_011, "public", "parcels", &["id"]));
    relations
}

fn begin(relations: Vec<CatalogRelation>, parameters: &[&str]) -> Pair {
    let mut pair = Pair::new(RULES);
    pair.relations = relations;
    pair.client(&startup_with(parameters));
    pair.server(&authentication(0, &[]));
    pair.server(&settings());
    pair.forget();
    pair
}

/// Whether the command is refused; it is answered.
fn refused(pair: &mut Pair, sql: &str) -> bool {
    pair.to_server.clear();
    pair.client(&query(sql));
    let refused = holds(&pair.to_server, "refused_by_interceptor");
    let reply = match refused {
        true => error("42601", "syntax error"),
        false => complete("DELETE 0"),
    };
    pair.server(&[reply, ready(b'I')].concat());
    refused
}

fn set(pair: &mut Pair, sql: &str) {
    pair.exchange(sql, &[complete("SET"), ready(b'I')]);
}

#[test]
fn a_name_that_is_there_once_is_certain() {
    let mut pair = begin(two_schemas(), &[]);
    assert!(refused(&mut pair, "DELETE FROM customers"));
    assert!(!refused(&mut pair, "DELETE FROM parcels"));
    assert!(!refused(&mut pair, "DELETE FROM archive.orders"));
}

#[test]
fn without_a_known_path_a_name_of_two_is_in_doubt() {
    let mut pair = begin(two_schemas(), &[]);
    assert!(refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn the_path_decides() {
    for parameters in [
        &["search_path", "archive"][..],
        &["options", "-c search_path=archive"],
        &["options", "--search-path=archive -c work_mem=4MB"],
    ] {
        let mut pair = begin(two_schemas(), parameters);
        assert!(!refused(&mut pair, "DELETE FROM orders"), "{parameters:?}");
        set(&mut pair, "SET search_path = public");
        assert!(refused(&mut pair, "DELETE FROM orders"));
        set(&mut pair, "RESET search_path");
        assert!(!refused(&mut pair, "DELETE FROM orders"));
    }
    // A schema that the user may not use is passed over.
    let mut pair = begin(two_schemas(), &["search_path", "archive, public"]);
    assert!(refused(&mut pair, "DELETE FROM orders"));
    let mut pair = begin(two_schemas(), &["options", "-c search_path=archive\\ "]);
    assert!(refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn options_are_read_as_the_server_splits_them() {
    for options in [
        "-c search_path=archive -c s\\earch_path=public",
        "-c search_path=archive --s\\earch-path=public",
        "-c search_path=archive,x\u{b}-csearch_path=public",
    ] {
        let mut pair = begin(two_schemas(), &["options", options]);
        assert!(refused(&mut pair, "DELETE FROM orders"), "{options:?}");
    }
    // The server takes the last, which leaves the path as it is.
    let path = "-c search_path=archive";
    let twice = &["options", path, "options", "-c work_mem=4MB"];
    let mut pair = begin(two_schemas(), twice);
    assert!(refused(&mut pair, "DELETE FROM orders"));
    // White space to some servers, a part of the name to others.
    let mut pair = begin(two_schemas(), &["search_path", "public\u{b}, archive"]);
    assert!(refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn names_of_schemas_are_cut_and_may_be_numbers() {
    let mut relations = two_schemas();
    relations.push(relation(20_012, "1.5", "orders", &["id"]));
    let long = "x".repeat(63);
    relations.push(relation(20_013, &long, "orders", &["id"]));
    let archive = &["search_path", "archive"][..];
    let mut pair = begin(relations.clone(), archive);
    set(&mut pair, "SET search_path = 1.5, public");
    assert!(refused(&mut pair, "DELETE FROM orders"));
    set(&mut pair, "SET search_path = 1.5");
    assert!(!refused(&mut pair, "DELETE FROM orders"));
    let rules = RULES.replace("[public.orders", &format!("[{long}.orders"));
    let mut pair = Pair::new(&rules);
    pair.relations = relations;
    pair.client(&startup_with(&[
        "search_path",
        &format!("{long}y, archive"),
    ]));
    pair.server(&authentication(0, &[]));
    pair.server(&settings());
    assert!(refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn one_part_of_a_text_changes_what_the_next_one_finds() {
    for sql in [
        "SELECT set_config(lower('SEARCH_PATH'), 'public', false)",
        "SELECT set_config('role', 'bob', false)",
        "SET ROLE bob",
        "EXECUTE s",
        "CREATE TEMP TABLE orders (id int)",
    ] {
        let mut pair = begin(two_schemas(), &["search_path", "\"$user\", archive"]);
        let prepare = "PREPARE s AS SELECT set_config('search_path', 'public', false)";
        pair.exchange(prepare, &[complete("PREPARE"), ready(b'I')]);
        let both = format!("{sql}; DELETE FROM orders");
        assert!(refused(&mut pair, &both), "{sql}");
    }
}

/// `ALTER ROLE … SET search_path` is for sessions that begin later.
#[test]
fn a_role_s_later_path_is_not_this_session_s() {
    let usual = |pair: &mut Pair, path: &str| {
        let search_paths = vec![SearchPath {
            role: None,
            path: path.into(),
        }];
        let contents = Contents {
            relations: two_schemas(),
            search_paths,
            ..Contents::default()
        };
        let catalog = std::sync::Arc::new(Catalog::new(contents));
        pair.session.handle_catalog(catalog, 0);
    };
    let mut pair = begin(two_schemas(), &[]);
    usual(&mut pair, "archive");
    assert!(refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn a_change_counts_when_it_is_certain() {
    let archive = &["search_path", "archive"][..];
    // Sent, and not answered.
    let mut pair = begin(two_schemas(), archive);
    pair.client(&query("SET search_path = public"));
    pair.client(&query("DELETE FROM orders"));
    assert!(holds(&pair.to_server, "refused_by_interceptor"));
    // It failed, which it may do in more ways than one.
    let mut pair = begin(two_schemas(), &["search_path", "public"]);
    pair.exchange(
        "SET search_path = archive",
        &[error("25P02", "no"), ready(b'I')],
    );
    assert!(refused(&mut pair, "DELETE FROM orders"));
    // It was rolled back.
    let mut pair = begin(two_schemas(), &["search_path", "public"]);
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.exchange("SET search_path = archive", &[complete("SET"), ready(b'T')]);
    pair.exchange("ROLLBACK", &[complete("ROLLBACK"), ready(b'I')]);
    assert!(refused(&mut pair, "DELETE FROM orders"));
    // It was for a transaction, which is over.
    let mut pair = begin(two_schemas(), archive);
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    pair.exchange(
        "SET LOCAL search_path = public",
        &[complete("SET"), ready(b'T')],
    );
    pair.client(&query("DELETE FROM orders"));
    assert!(holds(&pair.to_server, "refused_by_interceptor"));
    pair.server(&[error("42601", "syntax error"), ready(b'E')].concat());
    pair.exchange("ROLLBACK", &[complete("ROLLBACK"), ready(b'I')]);
    assert!(!refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn more_values_than_are_kept_leave_doubt() {
    let sets = |count: usize| {
        let mut pair = begin(two_schemas(), &["search_path", "archive"]);
        pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
        for number in 0..count {
            let sql = format!("SET search_path = archive, s{number}");
            pair.exchange(&sql, &[complete("SET"), ready(b'T')]);
        }
        pair.client(&query("DELETE FROM orders"));
        holds(&pair.to_server, "refused_by_interceptor")
    };
    assert!(!sets(7));
    assert!(sets(8));
}

#[test]
fn what_the_server_reports_counts() {
    let mut pair = begin(two_schemas(), &["search_path", "public"]);
    pair.exchange(
        "SELECT set_config('search_path', 'archive', false)",
        &[
            rows(&[(0, 0)]),
            row(&[Some("archive")]),
            complete("SELECT 1"),
            parameter_status("search_path", "archive"),
            ready(b'I'),
        ],
    );
    assert!(!refused(&mut pair, "DELETE FROM orders"));
}

#[test]
fn a_function_that_sets_it_leaves_doubt() {
    let mut pair = begin(two_schemas(), &["search_path", "archive"]);
    pair.exchange(
        "SELECT set_config('search_path', 'public', false) WHERE false",
        &[rows(&[(0, 0)]), complete("SELECT 0"), ready(b'I')],
    );
    assert!(refused(&mut pair, "DELETE FROM orders"));
    let mut pair = begin(two_schemas(), &["search_path", "archive"]);
    assert!(refused(
        &mut pair,
        "SET search_path = public; DELETE FROM orders"
    ));
}

/// Read-only, a function that is not known may run: what it sets counts.
#[test]
fn a_function_in_a_read_only_session_leaves_doubt() {
    let read_only = "---
kind: Rule
name: look
spec:
  match: {users: [app]}
  then: {readOnly: true}
";
    let rules = RULES.replace("writes: [", "reads: [");
    let mut pair = Pair::new(&format!("{rules}{read_only}"));
    pair.relations = two_schemas();
    pair.functions = vec![made("turns", Volatility::Volatile, "plpgsql")];
    pair.client(&startup_with(&["search_path", "archive"]));
    pair.server(&authentication(0, &[]));
    let report = parameter_status("default_transaction_read_only", "on");
    pair.server(&[report, settings()].concat());
    assert!(!refused(&mut pair, "SELECT id FROM orders"));
    assert!(!refused(&mut pair, "SELECT turns()"));
    assert!(refused(&mut pair, "SELECT id FROM orders"));
}

#[test]
fn a_relation_of_the_session_leaves_doubt() {
    for sql in [
        "CREATE TEMP TABLE orders (id int)",
        "CREATE TABLE pg_temp.orders AS SELECT 1",
        "SELECT 1 INTO TEMP orders",
        "ALTER TABLE parcels RENAME TO orders",
    ] {
        let mut pair = begin(two_schemas(), &["search_path", "archive"]);
        pair.exchange(sql, &[complete("CREATE TABLE"), ready(b'I')]);
        assert!(refused(&mut pair, "DELETE FROM orders"), "{sql}");
        assert!(!refused(&mut pair, "DELETE FROM archive.orders"));
    }
}

#[test]
fn what_is_made_takes_the_first_schema_and_not_the_one_there_is() {
    let mut pair = begin(relations(), &[]);
    // `orders` is in `public` alone, and yet this may make another.
    assert!(refused(&mut pair, "CREATE TABLE orders (id int)"));
    assert!(refused(&mut pair, "DROP TABLE orders"));
}

#[test]
fn a_write_reaches_what_stands_behind_a_name() {
    let mut relations = two_schemas();
    let view = |relations: &mut Vec<CatalogRelation>| {
        let contacts = relations.iter_mut().find(|known| known.oid == CONTACTS);
        contacts.unwrap().kind = RelationKind::View;
    };
    view(&mut relations);
    let mut partition = relation(20_020, "archive", "orders_2024", &["id", "total"]);
    partition.parents = vec![ORDERS];
    relations.push(partition);
    let mut joined = relation(20_021, "archive", "joint", &["id"]);
    joined.kind = RelationKind::View;
    joined.view = Some("SELECT p.id FROM public.parcels p JOIN archive.orders o USING (id)".into());
    relations.push(joined);
    let mut pair = begin(relations, &[]);
    assert!(refused(&mut pair, "UPDATE contacts SET e = 'x'"));
    assert!(refused(&mut pair, "DELETE FROM archive.orders_2024"));
    // With an INSTEAD OF trigger only, and what that does is not seen.
    assert!(refused(&mut pair, "DELETE FROM joint"));
    assert!(!refused(&mut pair, "SELECT e FROM contacts"));
    let comment = "COMMENT ON VIEW joint IS 'x'";
    assert!(
        !refused(&mut pair, comment),
        "{}",
        String::from_utf8_lossy(&pair.to_client)
    );
}

fn made(name: &str, volatility: Volatility, language: &str) -> CatalogFunction {
    CatalogFunction {
        schema: "public".into(),
        volatility,
        language: match language {
            "c" => Language::C,
            "sql" => Language::Sql,
            other => Language::Other(other.into()),
        },
        ..built_in(name)
    }
}

#[test]
fn functions_that_somebody_made_are_what_the_catalogue_says() {
    let mut pair = Pair::new(RULES);
    pair.functions = vec![
        made("wipe", Volatility::Volatile, "plpgsql"),
        made("tidy", Volatility::Stable, "sql"),
        made("uuid_generate_v4", Volatility::Volatile, "c"),
        made("fetch", Volatility::Volatile, "c"),
        CatalogFunction {
            schema: "pg_temp_3".into(),
            ..made("hidden", Volatility::Volatile, "sql")
        },
        // One of the same name as a column.
        made("total", Volatility::Volatile, "sql"),
        // One of the same name as a function of the server.
        made("upper", Volatility::Volatile, "plpgsql"),
    ];
    pair.client(&startup());
    pair.server(&authentication(0, &[]));
    pair.server(&settings());
    for (sql, expected) in [
        ("SELECT wipe()", true),
        ("SELECT public.wipe()", true),
        ("SELECT fetch('http://x')", true),
        ("SELECT upper(id) FROM orders", true),
        ("SELECT pg_catalog.upper('x')", false),
        ("SELECT tidy(1)", false),
        ("SELECT uuid_generate_v4()", false),
        ("SELECT lower('X')", false),
        ("SELECT (home).city FROM customers", false),
        ("SELECT (home).wipe FROM customers", true),
        // A column of the row, or a call with the row.
        ("SELECT o.wipe FROM orders o", true),
        ("SELECT count(o.wipe) FROM orders o", true),
        ("SELECT 1 FROM orders o WHERE o.wipe IS NULL", true),
        ("SELECT o.fetch FROM (SELECT * FROM orders) o", true),
        ("SELECT o.tidy, o.total, o.upper FROM orders o", true),
        ("SELECT o.tidy, o.total FROM orders o", false),
        ("SELECT p.city FROM customers p", false),
        ("SELECT pg_temp.hidden()", true),
        ("EXPLAIN SELECT wipe()", false),
        ("EXPLAIN ANALYZE SELECT wipe()", true),
        // The server says that it is not there.
        ("SELECT nothing()", false),
    ] {
        assert_eq!(refused(&mut pair, sql), expected, "{sql}");
    }
}

#[test]
fn what_the_open_transaction_made_is_not_known() {
    let mut pair =
        Pair::new(&RULES.replace("default: allow", "default: allow\n  incomplete: allow"));
    pair.functions = vec![made("tidy", Volatility::Stable, "sql")];
    pair.client(&startup());
    pair.server(&authentication(0, &[]));
    pair.server(&settings());
    let known = |pair: &mut Pair, sql: &str| {
        pair.log.clear();
        pair.exchange(sql, &[complete("SELECT 1"), ready(b'T')]);
        !pair.logged(&["may change anything"]) && !pair.logged(&["does not know"])
    };
    pair.exchange("BEGIN", &[complete("BEGIN"), ready(b'T')]);
    assert!(known(&mut pair, "SELECT tidy(1)"));
    let sql = "CREATE FUNCTION s.wipe() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    pair.exchange(sql, &[complete("CREATE FUNCTION"), ready(b'T')]);
    assert!(!known(&mut pair, "SELECT tidy(1)"));
    assert!(!known(&mut pair, "SELECT wipe()"));
    assert!(known(&mut pair, "SELECT lower('x')"));
}

#[test]
fn without_a_catalogue_functions_that_somebody_made_are_unknown() {
    let rules = RULES.replace("  catalog: {user: reader}\n", "");
    for (sql, expected) in [
        ("SELECT wipe()", true),
        ("SELECT s.lower('x')", true),
        ("SELECT lower('x'), uuid_generate_v4()", false),
        ("SELECT (home).city FROM customers", false),
        ("EXPLAIN SELECT wipe()", false),
    ] {
        let mut pair = Pair::running(&rules);
        assert_eq!(refused(&mut pair, sql), expected, "{sql}");
    }
}
