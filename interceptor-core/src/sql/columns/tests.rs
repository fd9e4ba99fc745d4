use std::string::{String, ToString};
use std::vec::Vec;

use crate::sql::analyze;

/// Columns read, and columns set, with spaces between.
fn columns(text: &str) -> (String, String) {
    let facts = analyze(text).unwrap().facts;
    let words = |columns: &[crate::command::Column]| {
        let mut words: Vec<String> = columns.iter().map(ToString::to_string).collect();
        words.sort();
        words.join(" ")
    };
    (words(&facts.columns_read), words(&facts.columns_written))
}

#[track_caller]
fn check(cases: &[(&str, &str, &str)]) {
    for (text, read, written) in cases {
        let found = columns(text);
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (*read, *written),
            "{text}"
        );
    }
}

#[test]
fn columns_of_one_relation_are_certain() {
    check(&[
        (
            "select a, lower(b) from t where c = 1 order by d",
            "t.a t.b t.c t.d",
            "",
        ),
        ("select a from s.t", "s.t.a", ""),
        ("select s.t.a from s.t", "s.t.a", ""),
        ("select x.a from s.t x where x.b", "s.t.a s.t.b", ""),
        ("select count(a), count(*) from t", "t.a", ""),
        ("select 1", "", ""),
        ("delete from t where a = 1", "t.a", ""),
    ]);
}

#[test]
fn of_several_relations_a_qualifier_tells() {
    check(&[
        (
            "select x.a, y.b from t x join u y on x.c = y.c",
            "t.a t.c u.b u.c",
            "",
        ),
        ("select a from t, u", "a", ""),
        ("select a from t join u using (c)", "a c", ""),
        ("select 1 from t natural join u", "*", ""),
        // One alias for two relations, in two places: both.
        (
            "select (select x.a from t x), (select x.a from u x)",
            "t.a u.a",
            "",
        ),
        ("select z.a from t join u on true", "a", ""),
        ("select j.a from (t join u on true) as j", "a", ""),
        ("select j.* from (t join u on true) as j", "*", ""),
    ]);
}

#[test]
fn a_star_is_every_column_of_what_is_there() {
    check(&[
        ("select * from t", "t.*", ""),
        ("table s.t", "s.t.*", ""),
        ("select * from t join u on t.a = u.a", "t.* t.a u.* u.a", ""),
        ("select y.* from t x, u y", "u.*", ""),
        ("select count(x.*) from t x", "t.*", ""),
        // What a subquery does not read, a star around it does not read either.
        ("select * from (select a from t) x", "a", ""),
        ("select x.* from (select a from t) x", "a", ""),
        ("with x as (select a from t) select * from x", "a x.*", ""),
        ("update t set a = 1 returning *", "t.*", "t.a"),
        ("delete from t using u returning *", "t.* u.*", ""),
    ]);
}

#[test]
fn a_whole_row_is_every_column() {
    check(&[
        ("select t from t", "t.* t.t", ""),
        ("select x from t x", "t.* t.x", ""),
        ("select row_to_json(x) from t x", "t.* t.x", ""),
        ("select (x).a from t x", "t.* t.x", ""),
        ("select x.to_jsonb from t x", "t.* t.to_jsonb", ""),
        ("select x.text from t x", "t.* t.text", ""),
        // Under other names, which one is which cannot be told.
        ("select p from t as x (p, q)", "p t.*", ""),
        ("select p from (t join u on true) as x (p, q)", "* p", ""),
    ]);
}

#[test]
fn what_is_set_is_named_or_everything() {
    check(&[
        ("insert into t (a, b) values (1, 2)", "", "t.a t.b"),
        ("insert into s.t values (1, 2)", "", "s.t.*"),
        ("insert into t default values", "", "t.*"),
        ("insert into t (a) select b from u", "b", "t.a"),
        (
            "insert into t (a) values (1) on conflict (a) do update set b = excluded.b",
            "a b",
            "t.a t.b",
        ),
        ("update t set a = b + 1 where c = 2", "t.b t.c", "t.a"),
        (
            "update s.t x set (a, b) = (select c, d from u y)",
            "c d",
            "s.t.a s.t.b",
        ),
        (
            "update t set a = y.b from u y where y.c = t.c",
            "t.c u.b u.c",
            "t.a",
        ),
        (
            "merge into t x using u y on x.a = y.a when matched then update set b = y.b \
             when not matched then insert (a, c) values (y.a, y.c)",
            "t.a u.a u.b u.c",
            "t.a t.b t.c",
        ),
        (
            "merge into t using u on t.a = u.a when not matched then insert values (u.a)",
            "t.a u.a",
            "t.*",
        ),
        (
            "merge into t using u on t.a = u.a when matched then delete",
            "t.a u.a",
            "",
        ),
        ("create table t as select a from u", "a", "t.*"),
        ("select a into t from u", "a", "t.*"),
        (
            "alter table t drop column a, alter b type int",
            "",
            "t.a t.b",
        ),
        ("alter table t add column a int default 1", "", "t.a"),
        ("alter table t rename a to b", "", "t.a"),
        (
            "with x as (insert into t (a) select b from u returning *) update v set c = 1",
            "b t.*",
            "t.a v.c",
        ),
    ]);
}

#[test]
fn copy_reads_or_sets_its_list_or_everything() {
    check(&[
        ("copy t (a, b) to stdout", "t.a t.b", ""),
        ("copy s.t to stdout", "s.t.*", ""),
        ("copy (select a from t) to stdout", "t.a", ""),
        ("copy t (a) from stdin where b = 1", "t.b", "t.a"),
        ("copy t from stdin", "", "t.*"),
    ]);
}

#[test]
fn what_only_explains_sets_nothing() {
    check(&[
        ("explain update t set a = b", "t.a t.b", ""),
        ("explain analyze update t set a = b", "t.b", "t.a"),
        ("prepare p as update t set a = b", "", ""),
        ("select a from t; update u set b = 1", "t.a", "u.b"),
    ]);
}

#[test]
fn whole_rows_are_read_by_functions_in_the_notation_of_a_column() {
    for function in [
        "concat",
        "json_build_array",
        "record_send",
        "any_value",
        "to_jsonb",
    ] {
        let read = columns(&std::format!("select c.{function} from customers c")).0;
        assert!(read.contains("customers.*"), "{function}: {read}");
    }
}
