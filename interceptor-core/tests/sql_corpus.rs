//! What the analysis says of many statements, beside what libpg_query's own summary says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail by panicking"
)]

use std::collections::BTreeSet;

use interceptor_core::command::KINDS;
use interceptor_core::sql;

/// A statement, the kind it is, in lines: `KIND | text`.
const CORPUS: &str = include_str!("sql_corpus.txt");

fn corpus() -> Vec<(&'static str, &'static str)> {
    CORPUS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" | ").unwrap_or_else(|| panic!("{line}")))
        .collect()
}

#[test]
fn statements_have_the_kinds_they_have() {
    for (kind, text) in corpus() {
        let analysis = sql::analyze(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(
            analysis.facts.kinds.contains(&kind),
            "{text}: {:?}",
            analysis.facts.kinds
        );
        for reported in &analysis.facts.kinds {
            assert!(KINDS.contains(reported), "{text}: {reported}");
        }
    }
}

#[test]
fn every_kind_is_in_the_corpus() {
    let found: BTreeSet<_> = corpus().into_iter().map(|(kind, _)| kind).collect();
    // CONNECT is no statement, FUNCTION CALL is a message of its own, REPLICATION has a grammar of its own, OTHER is what the grammar may bring one day.
    let missing: Vec<_> = KINDS
        .iter()
        .filter(|kind| {
            !found.contains(*kind)
                && !matches!(
                    **kind,
                    "CONNECT" | "FUNCTION CALL" | "OTHER" | "REPLICATION"
                )
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(corpus().len() >= 150, "{}", corpus().len());
}

/// Tables that libpg_query sees changed are among ours, or we say that there may be more.
#[test]
fn writes_are_no_fewer_than_the_parsers_own() {
    let mut incomplete = 0;
    for (_, text) in corpus() {
        let facts = sql::analyze(text).unwrap().facts;
        incomplete += usize::from(facts.incomplete.is_some());
        let parsed = pg_query::parse(text, 0).unwrap();
        let prepared = facts.kinds == ["PREPARE"];
        let explained = facts.kinds.first() == Some(&"EXPLAIN");
        if prepared || explained {
            continue;
        }
        let known: BTreeSet<String> = facts.writes.iter().map(ToString::to_string).collect();
        let read: BTreeSet<String> = facts.reads.iter().map(ToString::to_string).collect();
        for table in parsed.dml_tables() {
            // The parser's summary calls COPY a change in either direction.
            let copied = facts.kinds.contains(&"COPY TO") && read.contains(&table);
            assert!(
                known.contains(&table) || copied || facts.incomplete.is_some(),
                "{text}: {table} is not among {known:?}"
            );
        }
        for table in parsed.ddl_tables() {
            // What a definition only refers to is read: a parent, the query of a view.
            assert!(
                known.contains(&table)
                    || known.contains(&format!("pg_temp.{table}"))
                    || read.contains(&table)
                    || facts.incomplete.is_some(),
                "{text}: {table} is not among {known:?}"
            );
        }
        for table in parsed.select_tables() {
            assert!(
                known.contains(&table)
                    || known.contains(&format!("pg_temp.{table}"))
                    || read.contains(&table),
                "{text}: {table} is neither read nor written"
            );
        }
    }
    let all = corpus().len();
    println!("incomplete: {incomplete} of {all} statements");
    assert!(incomplete * 3 < all, "too much is not understood");
}

/// The first word of a text may be anything: what counts is what runs.
#[test]
fn kinds_add_up_over_statements() {
    let corpus = corpus();
    for pair in corpus.windows(2) {
        let [(first, a), (second, b)] = pair else {
            continue;
        };
        let text = format!("{a}\n;\n{b}");
        let facts = sql::analyze(&text).unwrap().facts;
        assert!(facts.kinds.contains(first) || *first == "EMPTY", "{text}");
        assert!(facts.kinds.contains(second) || *second == "EMPTY", "{text}");
        for single in [a, b] {
            for relation in sql::analyze(single).unwrap().facts.writes {
                assert!(facts.writes.contains(&relation), "{text}");
            }
        }
    }
}

/// Every prefix of every text: an answer or an error.
#[test]
fn no_prefix_panics() {
    for (_, text) in corpus() {
        for (end, _) in text.char_indices() {
            let _ = sql::analyze(text.get(..end).unwrap());
        }
    }
}

/// Columns that libpg_query's own walk finds are among ours, or we say that all of some relation are.
#[test]
fn columns_are_no_fewer_than_the_parsers_own() {
    let mut found = 0;
    for (_, text) in corpus() {
        let facts = sql::analyze(text).unwrap().facts;
        if facts.kinds == ["PREPARE"] {
            continue;
        }
        let parsed = pg_query::parse(text, 0).unwrap();
        for (node, ..) in parsed.protobuf.nodes() {
            let pg_query::NodeRef::ColumnRef(column) = node else {
                continue;
            };
            let Some(Some(pg_query::NodeEnum::String(name))) =
                column.fields.last().map(|field| field.node.as_ref())
            else {
                continue;
            };
            found += 1;
            let named = |known: &interceptor_core::command::Column| {
                known.name.as_deref().is_none_or(|known| known == name.sval)
            };
            assert!(
                facts.columns_read.iter().any(named),
                "{text}: {} is not among {:?}",
                name.sval,
                facts.columns_read
            );
        }
        for kind in ["INSERT", "UPDATE", "COPY FROM", "CREATE TABLE AS"] {
            let sets = !facts.columns_written.is_empty();
            assert!(sets || !facts.kinds.contains(&kind), "{text}");
        }
    }
    assert!(found > 20, "{found}");
}
