//! Which columns a statement reads and sets, as far as its text shows.
//!
//! It owns what a name of a column can mean where the catalogue is not at hand. What it cannot tell
//! it gives as more columns, never as fewer: a column of any relation, or every column of one.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use pg_query::protobuf::CmdType;

use super::walk::Step;
use crate::command::{Column, Relation};

/// Built-in functions that take a whole row, and so can be written like its column: `row.to_jsonb`.
const ROW_FUNCTIONS: &[&str] = &[
    "any_value",
    "array_agg",
    "bpchar",
    "concat",
    "hash_record",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "max",
    "min",
    "name",
    "quote_literal",
    "quote_nullable",
    "record_out",
    "record_send",
    "row_to_json",
    "text",
    "to_json",
    "to_jsonb",
    "varchar",
];

/// Statements in whose clauses a `*` of its own can stand, with the fields that say whose columns it
/// is.
const FRAMES: &[(&str, &[&str])] = &[
    ("SelectStmt", &["from_clause"]),
    ("InsertStmt", &["relation"]),
    ("UpdateStmt", &["relation", "from_clause"]),
    ("DeleteStmt", &["relation", "using_clause"]),
    ("MergeStmt", &["relation", "source_relation"]),
];

/// Statements that set columns of the relation that they name, or read them: COPY.
const TARGETS: &[&str] = &[
    "AlterTableStmt",
    "CopyStmt",
    "InsertStmt",
    "IntoClause",
    "MergeStmt",
    "RenameStmt",
    "UpdateStmt",
];

/// Where columns that are set have their names.
const SET_LISTS: &[(&str, &str)] = &[
    ("InsertStmt", "cols"),
    ("UpdateStmt", "target_list"),
    ("OnConflictClause", "target_list"),
    ("MergeWhenClause", "target_list"),
];

/// Gathers columns while the tree is walked.
#[derive(Default)]
pub(super) struct Columns {
    read: BTreeSet<Column>,
    written: BTreeSet<Column>,
    /// Columns by qualifier and name, for when all relations are known.
    named: BTreeSet<Named>,
    /// Names of relations: each alias, or the name where there is none.
    rows: BTreeSet<(Box<str>, Relation)>,
    /// Names of joins and of rows before and after a change: they stand for any relation.
    any_rows: BTreeSet<Box<str>>,
    relations: BTreeSet<Relation>,
    frames: Vec<Frame>,
    targets: Vec<Target>,
    /// The action of a MERGE that is being read: it inserts, and names the columns.
    merging: (bool, bool),
}

/// A column as the text names it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    schema: Option<Box<str>>,
    qualifier: Option<Box<str>>,
    /// `None` for `*`.
    name: Option<Box<str>>,
}

/// A statement with a FROM clause of its own.
#[derive(Default)]
struct Frame {
    star: bool,
    relations: Vec<Relation>,
}

/// A statement that sets columns.
#[derive(Default)]
struct Target {
    relation: Option<Relation>,
    /// It says which ones.
    lists: bool,
}

impl Columns {
    pub(super) fn enter(&mut self, node: &'static str) {
        if FRAMES.iter().any(|(frame, _)| *frame == node) {
            self.frames.push(Frame::default());
        }
        if TARGETS.contains(&node) {
            self.targets.push(Target::default());
        }
        if node == "MergeWhenClause" {
            self.merging = (false, false);
        }
    }

    pub(super) fn leave(&mut self, node: &'static str, copy_reads: bool) {
        if FRAMES.iter().any(|(frame, _)| *frame == node)
            && let Some(frame) = self.frames.pop()
            && frame.star
        {
            // Of what is derived, the columns stand where it is derived.
            self.read.extend(frame.relations.into_iter().map(every));
        }
        if node == "MergeWhenClause" && self.merging == (true, false) {
            self.set(None);
        }
        if TARGETS.contains(&node)
            && let Some(target) = self.targets.pop()
            && let Some(relation) = target.relation.filter(|_| !target.lists)
        {
            match node {
                "CopyStmt" if copy_reads => drop(self.read.insert(every(relation))),
                // Of these the relation alone says what is set: all of it.
                "CopyStmt" | "InsertStmt" | "IntoClause" => {
                    self.written.insert(every(relation));
                }
                _ => {}
            }
        }
    }

    /// A relation was read, with its alias.
    pub(super) fn relation(&mut self, path: &[Step], relation: &Relation, alias: Option<&str>) {
        let name = alias.map_or_else(|| relation.name.clone(), Into::into);
        self.rows.insert((name, relation.clone()));
        self.relations.insert(relation.clone());
        let sets = path.last().is_some_and(|step| {
            TARGETS.contains(&step.node) && matches!(step.field, "relation" | "rel")
        });
        if sets && let Some(target) = self.targets.last_mut() {
            target.relation.get_or_insert_with(|| relation.clone());
        }
        // Up to the clause that it stands in there are only joins.
        let outer = path
            .iter()
            .rfind(|step| step.node != "JoinExpr" && step.node != "RangeTableSample");
        let in_frame = outer.is_some_and(|step| {
            FRAMES
                .iter()
                .any(|(frame, fields)| *frame == step.node && fields.contains(&step.field))
        });
        if in_frame && let Some(frame) = self.frames.last_mut() {
            frame.relations.push(relation.clone());
        }
    }

    /// The relation's columns have other names here.
    pub(super) fn renamed(&mut self, relation: Option<&Relation>) {
        self.read.insert(Column {
            relation: relation.cloned(),
            name: None,
        });
    }

    /// A name that stands for any of the relations.
    pub(super) fn any_row(&mut self, name: &str) {
        self.any_rows.insert(name.into());
    }

    /// A natural join compares columns that nobody names.
    pub(super) fn natural_join(&mut self) {
        self.renamed(None);
    }

    /// A reference to a column: its parts, the last of which may be a `*`.
    pub(super) fn reference(&mut self, parts: &[Box<str>], star: bool) {
        let mut before = parts.iter().rev().cloned();
        let name = if star { None } else { before.next() };
        let (qualifier, schema) = (before.next(), before.next());
        if name.is_none() && qualifier.is_none() {
            if let Some(frame) = self.frames.last_mut() {
                frame.star = true;
            } else {
                self.renamed(None);
            }
            return;
        }
        self.named.insert(Named {
            schema,
            qualifier,
            name,
        });
    }

    /// A text field of a node.
    pub(super) fn text(&mut self, path: &[Step], value: &str, copy_reads: bool) {
        let Some((last, before)) = path.split_last() else {
            return;
        };
        let parent = before.last().map(|step| (step.node, step.field));
        match ((last.node, last.field), parent) {
            (("ResTarget", "name"), Some(parent)) if SET_LISTS.contains(&parent) => {
                self.merging.1 |= parent.0 == "MergeWhenClause";
                self.set(Some(value));
            }
            (("String", "sval"), Some(("CopyStmt", "attlist"))) if copy_reads => {
                self.list();
                let relation = self
                    .targets
                    .last()
                    .and_then(|target| target.relation.clone());
                self.read.insert(column(relation, value));
            }
            (("String", "sval"), Some(("CopyStmt", "attlist"))) => self.set(Some(value)),
            (("String", "sval"), Some(("JoinExpr", "using_clause"))) => {
                self.read.insert(column(None, value));
            }
            (("IndexElem", "name"), _) if !value.is_empty() => {
                self.read.insert(column(None, value));
            }
            (("AlterTableCmd", "name") | ("RenameStmt", "subname"), _) if !value.is_empty() => {
                self.set(Some(value));
            }
            (("ColumnDef", "colname"), Some(("AlterTableCmd", "def"))) if !value.is_empty() => {
                self.set(Some(value));
            }
            _ => {}
        }
    }

    /// A number of a node.
    pub(super) fn number(&mut self, path: &[Step], value: i32) {
        let inserts = value == CmdType::CmdInsert as i32;
        if let Some(step) = path.last()
            && (step.node, step.field) == ("MergeWhenClause", "command_type")
        {
            self.merging.0 = inserts;
        }
    }

    fn list(&mut self) {
        if let Some(target) = self.targets.last_mut() {
            target.lists = true;
        }
    }

    /// A column of the statement's relation is set; all of them for `None`.
    fn set(&mut self, name: Option<&str>) {
        self.list();
        self.written.insert(Column {
            relation: self
                .targets
                .last()
                .and_then(|target| target.relation.clone()),
            name: name.map(Into::into),
        });
    }

    /// All columns that the statement reads, and all that it sets. `derived`: its FROM clauses derive
    /// columns, so that an unqualified name may be of none of the relations.
    pub(super) fn finish(mut self, derived: bool) -> (Vec<Column>, Vec<Column>) {
        for named in core::mem::take(&mut self.named) {
            match &named.qualifier {
                Some(qualifier) => self.qualified(&named, qualifier),
                None => self.unqualified(&named, derived),
            }
        }
        (
            self.read.into_iter().collect(),
            self.written.into_iter().collect(),
        )
    }

    fn qualified(&mut self, named: &Named, qualifier: &str) {
        let calls = named
            .name
            .as_deref()
            .is_some_and(|name| ROW_FUNCTIONS.contains(&name));
        let mut relations: Vec<Relation> = match &named.schema {
            Some(schema) => alloc::vec![Relation {
                schema: Some(schema.clone()),
                name: qualifier.into(),
            }],
            None => {
                let rows = self.rows.iter().filter(|(name, _)| **name == *qualifier);
                rows.map(|(_, relation)| relation.clone()).collect()
            }
        };
        let any =
            named.schema.is_none() && (relations.is_empty() || self.any_rows.contains(qualifier));
        // Of a subquery, all columns stand in the subquery.
        if any && (named.name.is_some() || self.any_rows.contains(qualifier)) {
            self.read.insert(Column {
                relation: None,
                name: named.name.clone(),
            });
        }
        for relation in relations.drain(..) {
            if calls {
                self.read.insert(every(relation.clone()));
            }
            self.read.insert(Column {
                relation: Some(relation),
                name: named.name.clone(),
            });
        }
    }

    fn unqualified(&mut self, named: &Named, derived: bool) {
        let Some(name) = &named.name else { return };
        // A name of a row stands for the whole row.
        if self.any_rows.contains(name) {
            self.renamed(None);
        }
        let rows = self.rows.iter().filter(|(row, _)| row == name);
        let whole: Vec<Column> = rows.map(|(_, relation)| every(relation.clone())).collect();
        self.read.extend(whole);
        let only = match (self.relations.len(), derived) {
            (1, false) => self.relations.first().cloned(),
            _ => None,
        };
        self.read.insert(Column {
            relation: only,
            name: Some(name.clone()),
        });
    }
}

/// Columns of a list that is sorted each time when others are added.
const SORTED_MAX: usize = 256;

/// Adds columns to a list in order, each once; in a long list some may stand twice.
pub fn absorb_columns(columns: &mut Vec<Column>, others: &[Column]) {
    if others.is_empty() {
        return;
    }
    let sorts = !columns.is_empty() && columns.len() <= SORTED_MAX;
    columns.extend_from_slice(others);
    if sorts {
        columns.sort_unstable();
        columns.dedup();
    }
}

/// Puts a long list in order, each column once.
pub(super) fn dedupe_columns(columns: &mut Vec<Column>) {
    if columns.len() > SORTED_MAX {
        columns.sort_unstable();
        columns.dedup();
    }
}

fn every(relation: Relation) -> Column {
    Column {
        relation: Some(relation),
        name: None,
    }
}

fn column(relation: Option<Relation>, name: &str) -> Column {
    Column {
        relation,
        name: Some(name.into()),
    }
}

#[cfg(test)]
mod tests;
