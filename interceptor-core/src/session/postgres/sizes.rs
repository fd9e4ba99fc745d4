//! How large the tables of a command are, by the server's own statistics.

use alloc::vec::Vec;

use super::catalog::{Catalog, CatalogRelation};
use crate::command::{Facts, Relation};
use crate::sql::{self, Lineage};

/// How deep views stand on views, and partitions below tables, before a size counts as unknown.
const DEPTH_MAX: usize = 16;
/// Relations that are looked at for one command before its size counts as unknown.
const RELATIONS_MAX: usize = 1_000;

/// Of these nobody asks how large they are.
const SYSTEM: &[&str] = &["pg_catalog", "information_schema"];

impl Catalog {
    /// The most rows that statistics give any table that a command names; 0 if it names none. `None`
    /// if that is not known: of a table that was never analysed, a table that is not there, or a
    /// command that does not tell all that it does.
    pub fn estimated_rows(&self, facts: &Facts, lineage: &Lineage) -> Option<u64> {
        if facts.incomplete.is_some() {
            return None;
        }
        let creates = facts.kinds.iter().any(|kind| kind.starts_with("CREATE "));
        let mut looked = 0;
        let mut largest = 0;
        let read = facts.reads.iter().map(|named| (named, false));
        let written = facts.writes.iter().map(|named| (named, creates));
        for (named, may_be_new) in read.chain(written) {
            match self.rows_of(named, 0, &mut looked) {
                Some(rows) => largest = largest.max(rows?),
                // It is new, or a name within the statement.
                None if may_be_new || lineage.common.contains(&named.name) => {}
                None if is_system(named) => {}
                None => return None,
            }
        }
        Some(largest)
    }

    /// The rows of the largest relation that a name can mean; `None` if it means none.
    fn rows_of(&self, named: &Relation, depth: usize, looked: &mut usize) -> Option<Option<u64>> {
        let mut largest: Option<Option<u64>> = None;
        for relation in self.resolve(named) {
            let rows = self.rows(relation, depth, looked);
            largest = Some(match (largest, rows) {
                (None, rows) => rows,
                (Some(Some(known)), Some(rows)) => Some(known.max(rows)),
                _ => None,
            });
        }
        largest
    }

    /// A relation's own rows with those of its children; behind a view, the largest relation's.
    fn rows(&self, relation: &CatalogRelation, depth: usize, looked: &mut usize) -> Option<u64> {
        *looked += 1;
        if depth > DEPTH_MAX || *looked > RELATIONS_MAX {
            return None;
        }
        if let Some(view) = &relation.view
            && relation.rows.is_none()
        {
            let behind = sql::analyze(view).ok()?.facts.reads;
            let sizes = behind.iter().map(|named| {
                let rows = self.rows_of(named, depth + 1, looked);
                rows.unwrap_or_else(|| is_system(named).then_some(0))
            });
            return sizes.collect::<Option<Vec<u64>>>()?.into_iter().max();
        }
        let mut total = relation.rows?;
        for child in self.children(relation.oid) {
            total = total.saturating_add(self.rows(child, depth + 1, looked)?);
        }
        Some(total)
    }
}

fn is_system(named: &Relation) -> bool {
    match named.schema.as_deref() {
        Some(schema) => SYSTEM.contains(&schema),
        // The system's schema comes first in every search path.
        None => named.name.starts_with("pg_"),
    }
}
