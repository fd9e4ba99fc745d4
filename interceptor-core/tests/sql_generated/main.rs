//! Statements made by a grammar that knows what each of them writes, reads and does: the analysis
//! finds the same, or says that it may not have found all. What libpg_query's own tree shows, read in
//! a way of its own, is a second opinion.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

mod grammar;

use std::collections::BTreeSet;

use interceptor_core::sql;
use regex::Regex;

use grammar::{Grammar, Made};

/// Statements made, each from a seed of its own.
const STATEMENTS: u64 = 5_000;

fn statements() -> impl Iterator<Item = Made> {
    (0..STATEMENTS).map(|seed| Grammar::new(seed).statement())
}

fn names(relations: &[interceptor_core::command::Relation]) -> BTreeSet<String> {
    relations.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_written_is_found() {
    let (mut incomplete, mut writing) = (0, 0);
    for made in statements() {
        let facts = sql::analyze(&made.text)
            .unwrap_or_else(|error| panic!("{}: {error}", made.text))
            .facts;
        let written = names(&facts.writes);
        writing += usize::from(!made.writes.is_empty());
        if facts.incomplete.is_some() {
            incomplete += 1;
            assert!(
                made.hides || written.is_superset(&made.writes),
                "{}: {written:?}",
                made.text
            );
            continue;
        }
        assert!(!made.hides, "{} hides something", made.text);
        assert_eq!(written, made.writes, "{}", made.text);
        let read = names(&facts.reads);
        assert!(read.is_superset(&made.reads), "{}: {read:?}", made.text);
        for kind in &made.kinds {
            assert!(
                facts.kinds.contains(kind),
                "{}: {:?}",
                made.text,
                facts.kinds
            );
        }
        assert!(
            !facts.only_reads() || (made.writes.is_empty() && !made.locks),
            "{}",
            made.text
        );
    }
    println!("incomplete: {incomplete} of {STATEMENTS} statements; {writing} write");
    assert!(writing > 1_000 && incomplete * 10 < STATEMENTS);
}

/// The targets in the tree's own `Debug`, which knows nothing of our walk.
fn targets(text: &str) -> BTreeSet<String> {
    let target = Regex::new(
        r#"(?:InsertStmt|UpdateStmt|DeleteStmt|MergeStmt) \{ relation: Some\(RangeVar \{ catalogname: "[^"]*", schemaname: "([^"]*)", relname: "([^"]*)""#,
    )
    .unwrap();
    let tree = format!("{:?}", pg_query::parse(text, 0).unwrap().protobuf);
    target
        .captures_iter(&tree)
        .map(|found| match &found[1] {
            "" => found[2].to_owned(),
            schema => format!("{schema}.{}", &found[2]),
        })
        .collect()
}

#[test]
fn the_tree_shows_no_other_target() {
    let mut compared = 0;
    for made in statements().filter(|made| made.runs) {
        let facts = sql::analyze(&made.text).unwrap().facts;
        let targets = targets(&made.text);
        compared += targets.len();
        let written = names(&facts.writes);
        assert!(
            written.is_superset(&targets) || facts.incomplete.is_some(),
            "{}: {targets:?} are not all among {written:?}",
            made.text
        );
    }
    println!("targets compared: {compared}");
    assert!(compared > 1_000, "{compared}");
}
