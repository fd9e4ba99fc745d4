//! What was made of a text before is what would be made of it anew, whatever happened in between.
//!
//! Two sessions go the same way. In one of them every text has a comment of its own, so that none of them
//! ever came before; what is on record of both has to be the same.

use interceptor_core::session::postgres::catalog::{CatalogRelation, RelationKind};
use proptest::prelude::*;

use crate::pair::{MASKS, ORDERS, Pair, masked, relation, relations, settings};
use crate::text::*;

const RULES: &str = "
---
kind: Rule
name: sales-stay
spec:
  match: {writes: [public.orders, public.customers]}
  then: {deny: 'they stay'}
---
kind: Rule
name: no-fishing
spec:
  match: {maskedUses: [filter]}
  then: {deny: 'it searches'}
";

const NO_CONTACTS: &str = "
---
kind: Rule
name: no-contacts
spec:
  match: {reads: [public.contacts]}
  then: {deny: 'not these'}
---
kind: Rule
name: small-ones
spec:
  match: {reads: [public.orders], estimatedRows: {over: 100}}
  then: {deny: 'too large'}
";

/// Asked again and again: by text, by shape, of tables, views and masked columns.
const PROBES: &[&str] = &[
    "DELETE FROM parcels",
    "UPDATE orders SET total = 1 WHERE id = 2",
    "SELECT total FROM orders WHERE id = 5",
    "SELECT id FROM customers WHERE email = name",
    "SELECT id FROM contacts WHERE id = 5",
    "SELECT e FROM contacts",
    "INSERT INTO parcels SELECT id FROM contacts",
    "SELECT mine(id) FROM parcels",
    "EXECUTE p",
];

/// What happens in between, and whether the server takes it.
#[derive(Debug, Clone)]
enum Step {
    Query(&'static str, bool),
    /// Sent, and not answered before the probe.
    Unanswered(&'static str),
    Policy(bool),
    /// Somebody else changes the catalogue: which one of [`catalogue`].
    Catalogue(usize),
}

const QUERIES: &[&str] = &[
    "SET search_path = archive",
    "SET search_path = public",
    "SET LOCAL search_path = archive",
    "SELECT set_config('search_path', 'archive', false)",
    "RESET search_path",
    "SET ROLE bob",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "CREATE TEMP TABLE orders (id int)",
    "CREATE TEMP TABLE customers (id int)",
    "CREATE OR REPLACE VIEW contacts AS SELECT 1 AS e",
    "ALTER TABLE orders ADD COLUMN email text",
    "DROP TABLE archive.orders",
    "PREPARE p AS SELECT email FROM customers",
    "PREPARE p AS DELETE FROM orders",
    "DEALLOCATE p",
    "DISCARD ALL",
    "DO 'BEGIN END'",
];

fn step() -> impl Strategy<Value = Step> {
    let sql = || prop::sample::select(QUERIES);
    prop_oneof![
        6 => (sql(), prop::bool::weighted(0.8)).prop_map(|(sql, taken)| Step::Query(sql, taken)),
        1 => sql().prop_map(Step::Unanswered),
        1 => any::<bool>().prop_map(Step::Policy),
        2 => (0..3_usize).prop_map(Step::Catalogue),
    ]
}

fn policy(more: bool) -> String {
    let lax = masked().replace("default: allow", "default: allow\n  incomplete: allow");
    match more {
        false => format!("{lax}{RULES}"),
        true => format!("{}{RULES}{NO_CONTACTS}", lax.replace(MASKS, "")),
    }
}

/// The same names mean other things in each.
fn catalogue(which: usize) -> Vec<CatalogRelation> {
    let mut relations = relations();
    for found in &mut relations {
        if found.view.is_some() {
            found.kind = RelationKind::View;
        }
    }
    match which {
        0 => relations.push(relation(20_011, "public", "parcels", &["id"])),
        1 => {
            relations.push(relation(20_010, "archive", "orders", &["id", "total"]));
            relations.push(relation(20_011, "archive", "parcels", &["id"]));
            relations.push(relation(20_012, "archive", "contacts", &["id", "e"]));
        }
        _ => {
            // The parcels are a part of the orders, which are many.
            let mut parcels = relation(20_011, "public", "parcels", &["id"]);
            parcels.parents = vec![ORDERS];
            relations.push(parcels);
            for found in &mut relations {
                found.rows = Some(1_000);
            }
        }
    }
    relations
}

/// A session under way.
struct Walk {
    pair: Pair,
    /// No text comes twice.
    anew: bool,
    texts: u32,
    /// Replies that the server still owes.
    owed: Vec<u8>,
    status: u8,
}

impl Walk {
    fn begin(anew: bool) -> Self {
        let mut pair = Pair::new(&policy(false));
        pair.relations = catalogue(1);
        pair.client(&startup());
        pair.server(&authentication(0, &[]));
        pair.server(&settings());
        Self {
            pair,
            anew,
            texts: 0,
            owed: Vec::new(),
            status: b'I',
        }
    }

    fn send(&mut self, sql: &str) {
        self.pair.forget();
        self.texts += 1;
        match self.anew {
            true => self
                .pair
                .client(&query(&format!("{sql} /* {} */", self.texts))),
            false => self.pair.client(&query(sql)),
        }
    }

    /// The server answers the last command, with an error unless it takes it.
    fn answer(&mut self, tag: &str, taken: bool) {
        if self.pair.logged(&["hold "]) {
            self.pair.resolve(false);
        }
        let refused = holds(&self.pair.to_server, "refused_by_interceptor");
        let mut replies = std::mem::take(&mut self.owed);
        if taken && !refused {
            self.status = match tag {
                "BEGIN" => b'T',
                "COMMIT" | "ROLLBACK" => b'I',
                _ => self.status,
            };
            replies.extend(complete(tag));
        } else {
            replies.extend(error("42601", "refused_by_interceptor"));
        }
        replies.extend(ready(self.status));
        self.pair.server(&replies);
    }

    /// What is on record of a command but its number, its text and its digest; it is answered.
    fn ask(&mut self, sql: &str) -> String {
        self.send(sql);
        let recorded = |line: &&String| line.starts_with("Command(");
        let line = self.pair.log.iter().find(recorded);
        let line = line.unwrap_or_else(|| panic!("no record of {sql}: {:#?}", self.pair.log));
        let (_, facts) = line.split_once(", parameters: ").unwrap();
        let facts = facts.to_owned();
        self.answer("SELECT 0", true);
        facts
    }

    /// Whether the target gets it.
    fn goes(&mut self, sql: &str) -> bool {
        self.ask(sql).contains("decision: \"allow\"")
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Query(sql, taken) => {
                self.send(sql);
                self.answer(sql, *taken);
            }
            Step::Unanswered(sql) => {
                self.send(sql);
                let refused = holds(&self.pair.to_server, "refused_by_interceptor");
                let reply = match refused {
                    true => error("42601", "refused_by_interceptor"),
                    false => complete("SET"),
                };
                self.owed.extend([reply, ready(self.status)].concat());
            }
            Step::Policy(more) => self.pair.reload(&policy(*more)),
            Step::Catalogue(which) => self.pair.change_catalogue(catalogue(*which)),
        }
    }
}

fn walk(steps: &[(Step, usize)]) {
    let mut both = [Walk::begin(false), Walk::begin(true)];
    let mut ask = |probe: &str, step: Option<&Step>| {
        let [again, anew] = both.each_mut().map(|walk| {
            if let Some(step) = step {
                walk.take(step);
            }
            walk.ask(probe)
        });
        assert_eq!(again, anew, "{probe} after {step:?}");
    };
    for probe in PROBES {
        ask(probe, None);
    }
    for (step, first) in steps {
        ask(PROBES[*first], Some(step));
        for offset in 1..3 {
            ask(PROBES[(first + offset) % PROBES.len()], None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_stands_is_what_would_be_found_anew(
        steps in prop::collection::vec((step(), 0..PROBES.len()), 1..16)
    ) {
        walk(&steps);
    }
}

#[test]
fn what_was_resolved_falls_with_what_it_rested_on() {
    let mut walk = Walk::begin(false);
    let update = "UPDATE orders SET total = 1 WHERE id = 2";
    for _ in 0..3 {
        walk.take(&Step::Query("SET search_path = archive", true));
        assert!(walk.goes(update) && walk.goes(update));
        walk.take(&Step::Query("SET search_path = public", true));
        assert!(!walk.goes(update) && !walk.goes(update));
    }
    // A table of the session's own, which comes before all others.
    walk.take(&Step::Query("SET search_path = archive", true));
    let read = "SELECT total FROM orders WHERE id = 5";
    assert!(walk.ask(read).contains("reads: [\"archive.orders\"]"));
    walk.take(&Step::Query("CREATE TEMP TABLE orders (id int)", true));
    assert!(walk.ask(read).contains("reads: [\"orders\"]"));
    // A transaction that changes what a name stands for, unseen from outside.
    let mut walk = Walk::begin(false);
    walk.take(&Step::Catalogue(0));
    walk.take(&Step::Query("BEGIN", true));
    let view = "SELECT e FROM contacts";
    for _ in 0..2 {
        assert!(walk.ask(view).contains("reads: [\"public.contacts\"]"));
    }
    walk.take(&Step::Query(
        "CREATE OR REPLACE VIEW contacts AS SELECT 1 AS e",
        true,
    ));
    assert!(walk.ask(view).contains("reads: [\"contacts\"]"));
    // Another catalogue, in which the parcels are a part of the orders.
    let mut walk = Walk::begin(false);
    walk.take(&Step::Catalogue(0));
    let parcels = "UPDATE parcels SET id = 1";
    assert!(walk.goes(parcels) && walk.goes(parcels));
    walk.take(&Step::Catalogue(2));
    assert!(!walk.goes(parcels) && !walk.goes(parcels));
    walk.take(&Step::Catalogue(0));
    assert!(walk.goes(parcels));
    // A filter by a column that masks do not cover any more.
    let filter = "SELECT id FROM customers WHERE email = name";
    assert!(!walk.goes(filter) && !walk.goes(filter));
    walk.take(&Step::Policy(true));
    assert!(walk.goes(filter) && walk.goes(filter));
    walk.take(&Step::Policy(false));
    assert!(!walk.goes(filter));
}
