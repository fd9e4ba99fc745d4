use super::*;
use alloc::string::ToString;
use std::vec;

fn facts(text: &str) -> Facts {
    analyze(text).unwrap().facts
}

fn names(relations: &[crate::command::Relation]) -> Vec<String> {
    relations.iter().map(ToString::to_string).collect()
}

#[test]
fn every_kind_reported_is_a_known_kind() {
    for text in [
        "select 1",
        "copy a to '/tmp/x'",
        "copy a to program 'x'",
        "do $$begin end$$",
        "drop table a",
        "create unlogged table a()",
        "create materialized view v as select 1",
        "vacuum a",
        "analyze a",
        "set role x",
        "alter table a rename b to c",
        "explain analyze select 1",
        "declare c cursor for select 1",
        "grant select on a to b",
        "alter default privileges grant select on tables to x",
        "",
    ] {
        for kind in facts(text).kinds {
            assert!(crate::command::KINDS.contains(&kind), "{kind} of {text:?}");
        }
    }
}

#[test]
fn writes_are_found_wherever_they_hide() {
    for (text, kind, table) in [
        (
            "with x as (delete from t returning *) select * from x",
            "DELETE",
            "t",
        ),
        (
            "explain (analyze) update s.t set a = 1 where b",
            "UPDATE",
            "s.t",
        ),
        ("copy (delete from t returning *) to stdout", "DELETE", "t"),
        (
            "merge into t using u on t.a = u.a when matched then delete",
            "MERGE",
            "t",
        ),
        ("select * into t from u", "CREATE TABLE AS", "t"),
        (
            "(with x as (insert into t values (1) returning 1) select 1) union select 2",
            "INSERT",
            "t",
        ),
        ("truncate a, t", "TRUNCATE", "t"),
        ("drop table if exists s.t cascade", "DROP TABLE", "s.t"),
        ("copy t from stdin", "COPY FROM", "t"),
        ("select 1; delete from t", "DELETE", "t"),
        (
            "create rule r as on insert to u do also delete from t",
            "DELETE",
            "t",
        ),
    ] {
        let facts = facts(text);
        assert!(facts.kinds.contains(&kind), "{text}: {:?}", facts.kinds);
        assert!(
            names(&facts.writes).contains(&table.to_string()),
            "{text}: {:?}",
            facts.writes
        );
    }
}

#[test]
fn what_is_only_read_is_no_write() {
    let facts =
        facts("insert into t select * from a join b using (c) where exists (select 1 from d)");
    assert_eq!(names(&facts.writes), ["t"]);
    assert_eq!(names(&facts.reads), ["a", "b", "d"]);
}

#[test]
fn a_missing_where_is_seen_at_any_depth() {
    assert!(facts("delete from t").unfiltered);
    assert!(facts("with x as (update t set a = 1 returning 1) select 1 where true").unfiltered);
    assert!(!facts("delete from t where a = 1").unfiltered);
    assert!(facts("delete from t where a = 1; delete from u").unfiltered);
}

#[test]
fn what_cannot_be_known_is_incomplete() {
    for text in [
        "do $$begin end$$",
        "call p()",
        "select query_to_xml('select 1', true, true, '')",
        "select pg_read_file('x')",
        "select * from dblink('x', 'y') as t(a int)",
        "copy t to '/tmp/x'",
    ] {
        assert!(facts(text).incomplete.is_some(), "{text}");
    }
    assert!(facts("select lower(a) from t").incomplete.is_none());
}

#[test]
fn prepare_does_nothing_yet_and_is_remembered() {
    let analysis = analyze("prepare p as delete from t").unwrap();
    assert_eq!(analysis.facts.kinds, ["PREPARE"]);
    assert!(analysis.facts.writes.is_empty());
    assert_eq!(analysis.prepares[0].1.facts.kinds, ["DELETE"]);
    assert_eq!(analyze("execute p").unwrap().executes, ["p"]);
    assert_eq!(
        analyze("explain analyze execute p").unwrap().executes,
        ["p"]
    );
    assert_eq!(
        analyze("create table x as execute p").unwrap().executes,
        ["p"]
    );
}

#[test]
fn explain_runs_nothing() {
    let facts = facts("explain delete from t");
    assert_eq!(facts.kinds, ["EXPLAIN"]);
    assert!(facts.writes.is_empty() && names(&facts.reads) == ["t"]);
}

#[test]
fn columns_are_told_apart_by_position() {
    let lineage = analyze("select count(email), upper(ssn), 1 from customers")
        .unwrap()
        .lineage;
    let columns = lineage.columns.unwrap();
    assert!(columns[0].columns.is_empty());
    assert_eq!(columns[1].columns, vec!["ssn".into()]);
    assert!(columns[2].columns.is_empty());
    assert!(
        analyze("select *, 1 from customers")
            .unwrap()
            .lineage
            .columns
            .is_none()
    );
    assert!(
        analyze("select c.* from customers c")
            .unwrap()
            .lineage
            .columns
            .is_none()
    );
    assert!(
        analyze("select a from b union select email from c")
            .unwrap()
            .lineage
            .columns
            .is_none()
    );
    assert!(
        analyze("select a from (select email as a from c) s")
            .unwrap()
            .lineage
            .derived
    );
    assert!(analyze("select a from c as c(a)").unwrap().lineage.derived);
}

#[test]
fn a_schema_named_count_hides_nothing() {
    let lineage = analyze("select count.f(email), email from customers")
        .unwrap()
        .lineage;
    assert_eq!(lineage.columns.unwrap()[0].columns, vec!["email".into()]);
}

#[test]
fn copy_options_are_read() {
    let copy = analyze("copy s.t (a, b) to stdout with (format csv, delimiter ';', header)")
        .unwrap()
        .copies_out
        .remove(0);
    assert!(copy.format.csv && copy.format.header && copy.format.delimiter == b';');
    assert!(matches!(copy.source, CopySource::Relation(_, columns) if columns.len() == 2));
    let copy = analyze("copy t to stdout null 'x' csv quote ''''")
        .unwrap()
        .copies_out
        .remove(0);
    assert_eq!(
        (copy.format.null.as_slice(), copy.format.quote),
        (&b"x"[..], b'\'')
    );
}

#[test]
fn hostile_nesting_is_an_error() {
    for (open, close, count) in [
        ("(", ")", 200_000),
        ("~ ", "", 500_000),
        ("array[", "]", 100_000),
        ("case when ", " then 1 end", 50_000),
        ("not ", "", 200_000),
        ("(select ", ")", 50_000),
    ] {
        let text = std::format!("select {}1{}", open.repeat(count), close.repeat(count));
        assert!(analyze(&text).is_err(), "{open}");
    }
    assert!(analyze(&std::format!("select 1{}", "+1".repeat(100_000))).is_err());
}

#[test]
fn a_password_does_not_survive_normalisation() {
    for text in [
        "alter role x password 'hunter2'",
        "create user x with password 'hunter2' login",
    ] {
        assert!(analyze(text).unwrap().sensitive);
        assert!(!without_constants(text).unwrap().contains("hunter2"));
    }
}

#[test]
fn how_deep_an_honest_statement_may_nest() {
    let chain = |terms: usize| std::format!("select 'a'{}", " || 'b'".repeat(terms));
    assert!(analyze(&chain(40)).is_ok());
    let values = std::format!("insert into t values {}(0)", "(1), ".repeat(20_000));
    assert!(analyze(&values).is_ok());
    let list = std::format!(
        "select 1 where a in ({}0) and {} true",
        "1, ".repeat(20_000),
        "b = 1 and ".repeat(5_000)
    );
    assert!(analyze(&list).is_ok());
}

#[test]
fn what_moves_is_known() {
    let moved = |text: &str| analyze(text).unwrap().lineage.moved;
    for text in [
        "insert into t select email from c",
        "insert into t values ((select email from c))",
        "update c set note = email where id = 1",
        "create table t as select email from c",
        "select email into t from c",
        "select set_config('a.b', email, false) from c",
        "alter table c add x text generated always as (lower(email)) stored",
        "alter table c alter note type text using email",
        "merge into t using c on t.id = c.id when not matched then insert values (c.email)",
        "with x as (insert into t select email from c returning 1) select 1",
    ] {
        assert!(moved(text).columns.contains(&"email".into()), "{text}");
    }
    assert!(moved("insert into t select * from c").star);
    for text in [
        "update c set note = 'x' where email = 'y'",
        "insert into t select id from c where email = 'y' order by email",
        "select email from c",
        "delete from c where email = 'y'",
        "create view v as select email from c",
    ] {
        assert!(!moved(text).columns.contains(&"email".into()), "{text}");
    }
    assert_eq!(
        analyze("update c set email = lower(email)")
            .unwrap()
            .lineage
            .destinations,
        vec!["email".into()]
    );
}

#[test]
fn a_syntax_error_has_the_servers_position() {
    let position = |text: &str| match analyze(text) {
        Err(AnalysisError::Syntax { position, .. }) => position,
        other => panic!("{other:?}"),
    };
    assert_eq!(position("SELECT * FORM orders;"), 10);
    assert_eq!(position("select 1; selec 2"), 11);
    assert_eq!(position("select 'ä', 1 1"), 15);
    assert_eq!(position("select (1"), 10);
    assert_eq!(position("select 'open"), 0);
}

#[test]
fn a_text_that_would_fill_the_memory_is_refused() {
    let text = std::format!("insert into t values {}(1)", "(1),".repeat(100_000));
    assert!(matches!(analyze(&text), Err(AnalysisError::TooManyTokens)));
    let text = std::format!("select '{}'", "a".repeat(10 << 20));
    assert!(analyze(&text).is_ok());
}

#[test]
fn code_that_hides_behind_an_operator_is_incomplete() {
    for text in [
        "create operator ### (rightarg = text, procedure = ts_stat)",
        "create cast (text as word) with function ts_stat(text)",
        "create aggregate total(text) (sfunc = textcat, stype = text)",
        "create rule r as on insert to t do instead select email || '' from c",
        "create trigger g before update on c for each row execute function tsvector_update_trigger(v, 'pg_catalog.simple', email)",
        "create foreign table f (email text) server s options (table_name 'c')",
        "import foreign schema public from server s into other",
        "create server s foreign data wrapper w",
    ] {
        assert!(analyze(text).unwrap().facts.incomplete.is_some(), "{text}");
    }
}

#[test]
fn another_name_moves_all_columns() {
    for text in [
        "alter table c rename column email to harmless",
        "alter table c rename to d",
        "alter table c set schema other",
        "alter view v rename column email to harmless",
    ] {
        assert!(analyze(text).unwrap().lineage.moved.star, "{text}");
    }
    for text in [
        "alter table c add column x int",
        "alter type t rename to u",
        "alter role r rename to q",
    ] {
        assert!(!analyze(text).unwrap().lineage.moves(), "{text}");
    }
}

#[test]
fn functions_are_found_in_the_notation_of_a_part() {
    for text in [
        "select ('/etc/passwd').pg_read_file",
        "select (array['/etc/passwd'])[1].pg_read_file",
        "select ((select a from t)).pg_read_file from t",
        "explain analyze select ('/etc/passwd'::text).pg_read_file",
        "select ('select to_tsvector(password) from customers'::text).ts_stat",
        "delete from t where a = ('select 1'::text).dblink_exec",
    ] {
        assert!(facts(text).incomplete.is_some(), "{text}");
    }
    assert_eq!(
        facts("select (a).f, lower(b) from t").functions,
        ["f", "lower"]
    );
    assert_eq!(facts("select (a)[1] from t").functions, [""; 0]);
}

#[test]
fn a_name_of_a_function_has_two_parts_at_most() {
    for (text, name) in [
        ("select shop.pg_catalog.lower('A')", "pg_catalog.lower"),
        ("select \"a.b\".s.f()", "s.f"),
        // One name with a dot in it is not a name in that schema.
        ("select \"pg_catalog.lower\"('A')", "\"pg_catalog.lower\""),
    ] {
        assert_eq!(facts(text).functions, [name], "{text}");
    }
    let counted = |text: &str| analyze(text).unwrap().lineage.whole.columns.is_empty();
    assert!(counted("select shop.pg_catalog.count(a) from t"));
    assert!(!counted("select \"pg_catalog.count\"(a) from t"));
}

#[test]
fn what_an_action_does_is_among_the_kinds() {
    for (text, kinds) in [
        (
            "merge into t using u on t.a = u.a when matched then delete",
            &["MERGE", "DELETE"][..],
        ),
        (
            "merge into t using u on t.a = u.a when matched and t.b then update set b = 1 \
             when not matched then insert values (1)",
            &["MERGE", "UPDATE", "INSERT"],
        ),
        (
            "merge into t using u on t.a = u.a when matched then do nothing",
            &["MERGE"],
        ),
        (
            "insert into t values (1) on conflict (a) do update set a = 2",
            &["INSERT", "UPDATE"],
        ),
        (
            "insert into t values (1) on conflict do nothing",
            &["INSERT"],
        ),
        ("commit prepared 'x'", &["COMMIT PREPARED"]),
        ("rollback prepared 'x'", &["ROLLBACK PREPARED"]),
        (
            "select set_config('role', 'x', false)",
            &["SELECT", "SET ROLE"],
        ),
        (
            "select pg_catalog.set_config('Session_Authorization'::text, 'x', true)",
            &["SELECT", "SET ROLE"],
        ),
        (
            "select set_config('search_path', $1, true)",
            &["SELECT", "SET"],
        ),
        (
            "select set_config($1, $2, true)",
            &["SELECT", "SET ROLE", "SET"],
        ),
        (
            "select set_config(lower('search_path'), $2, true)",
            &["SELECT", "SET ROLE", "SET"],
        ),
        (
            "select pg_terminate_backend(pid) from pg_stat_activity",
            &["SELECT", "ALTER SYSTEM"],
        ),
        ("select pg_notify('a', 'b')", &["SELECT", "NOTIFY"]),
        ("select pg_advisory_xact_lock(1)", &["SELECT", "LOCK"]),
    ] {
        let found = facts(text).kinds;
        assert_eq!(found, kinds, "{text}");
        assert!(
            found
                .iter()
                .all(|kind| crate::command::KINDS.contains(kind))
        );
    }
}

#[test]
fn what_can_only_read_is_told_strictly() {
    for text in [
        "select abalance from pgbench_accounts where aid = $1",
        "select lower(a), count(*) from s.t where b = 1 and c::int4 > 2 and d like 'x%' order by 1",
        "select a from t where id in (1, 2) and b between 1 and 2 and c = any($1::uuid[])",
        "with x as (select 1) select * from x join generate_series(1, 2) g on true",
        "show search_path",
        "begin",
        "copy t to stdout",
        "explain delete from u where a = 1; select now()",
        "explain analyze select 1",
        "values (1, current_timestamp)",
        "",
    ] {
        assert!(facts(text).only_reads(), "{text}");
    }
    for text in [
        "select a from t for update",
        "select a from t for key share",
        "select wipe(a) from t",
        "select s.lower(a) from t",
        "select nextval('s')",
        "select a ### b from t",
        "select a operator(s.=) b from t",
        "select 'x'::mood",
        "select * into u from t",
        "with x as (delete from t returning 1) select 1",
        "explain analyze delete from t",
        "select pg_read_file('x')",
        "select (a).wipe from t",
        "select * from wipe()",
        "select a from t tablesample mine (1)",
        "commit",
        "rollback",
        "set a.b = 1",
        "do $$begin end$$",
        "select 1; insert into t values (1)",
        "execute p",
        "lock t",
        "select lo_unlink(1)",
        "select pg_advisory_lock(1)",
    ] {
        assert!(!facts(text).only_reads(), "{text}");
    }
}

#[test]
fn many_names_cost_no_more_each_than_few() {
    // Quadratic, each of these took minutes.
    let many = |begin: &str, one: fn(usize) -> String, between: &str| {
        let names: Vec<String> = (0..30_000).map(one).collect();
        std::format!("{begin}{}", names.join(between))
    };
    for text in [
        many("select ", |n| std::format!("c{n}"), ","),
        many("select ", |n| std::format!("t.c{n}"), ","),
        many("select ", |n| std::format!("f{n}()"), ","),
        many("select * from ", |n| std::format!("t{n}"), ","),
        many("", |n| std::format!("select a{n} from t{n}"), ";"),
        many("", |n| std::format!("delete from t{n}"), ";"),
    ] {
        let started = std::time::Instant::now();
        let facts = facts(&text);
        let named = facts.columns_read.len() + facts.functions.len() + facts.reads.len();
        assert!(named + facts.writes.len() >= 30_000, "{named}");
        assert!(started.elapsed().as_secs() < 40, "{}", &text[..40]);
    }
}
