//! What a permission must do beyond matching: vouch for the whole command.
//!
//! It owns that rule. One statement, table, column or function that its lists do not name, or a doubt
//! that it does not name, and it says nothing; otherwise `SELECT FROM allowed; DROP TABLE other` would
//! ride along. What passes through without being understood has to be named: `match: {}` is not enough.

use core::fmt;

use super::RelationPattern;
use super::condition::{
    Condition, Conditions, is_among, is_column_among, is_connection, is_function_among,
};
use super::name::{ColumnPattern, Doubt};
use crate::command::{Column, Facts, Relation};

/// What of a command a permission does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncovered<'a> {
    Connection,
    Incomplete(&'a str),
    Statement(&'a str),
    Read(&'a Relation),
    Written(&'a Relation),
    ColumnRead(&'a Column),
    ColumnWritten(&'a Column),
    Function(&'a str),
    MaskedUse(&'a str),
}

impl fmt::Display for Uncovered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => f.write_str(
                "what passes without being looked at, without its kind under `statements`",
            ),
            Self::Incomplete(why) => {
                write!(f, "what cannot be seen ({why}), without `incomplete: true`")
            }
            Self::Statement(kind) => write!(f, "the statement {kind}"),
            Self::Read(relation) => write!(f, "reading {relation}"),
            Self::Written(relation) => write!(f, "writing {relation}"),
            Self::ColumnRead(column) => write!(f, "reading the column {column}"),
            Self::ColumnWritten(column) => write!(f, "writing the column {column}"),
            Self::Function(name) => write!(f, "the function {name}"),
            Self::MaskedUse(used) => write!(f, "using a masked column: {used}"),
        }
    }
}

/// The lists of a `match` that name things of a command.
#[derive(Default)]
struct Lists<'a> {
    statements: Option<&'a [&'static str]>,
    tables: Option<&'a [RelationPattern]>,
    reads: Option<&'a [RelationPattern]>,
    writes: Option<&'a [RelationPattern]>,
    functions: Option<&'a [RelationPattern]>,
    columns_read: Option<&'a [ColumnPattern]>,
    columns_written: Option<&'a [ColumnPattern]>,
    masked_uses: Option<&'a [&'static str]>,
    is_for_incomplete: bool,
}

impl<'a> Lists<'a> {
    fn of(conditions: &'a Conditions) -> Self {
        let mut lists = Self::default();
        for condition in &conditions.0 {
            match condition {
                Condition::Statements(list) => lists.statements = Some(list),
                Condition::Tables(list) => lists.tables = Some(list),
                Condition::Reads(list) => lists.reads = Some(list),
                Condition::Writes(list) => lists.writes = Some(list),
                Condition::Functions(list) => lists.functions = Some(list),
                Condition::ColumnsRead(list) => lists.columns_read = Some(list),
                Condition::ColumnsWritten(list) => lists.columns_written = Some(list),
                Condition::MaskedUses(list) => lists.masked_uses = Some(list),
                Condition::Incomplete(expected) => lists.is_for_incomplete = *expected,
                _ => {}
            }
        }
        lists
    }

    fn name_columns(&self) -> bool {
        self.columns_read.is_some() || self.columns_written.is_some()
    }

    fn name_relations(&self) -> bool {
        self.tables.is_some()
            || self.reads.is_some()
            || self.writes.is_some()
            || self.name_columns()
    }
}

/// Gives the first thing that is not covered. A list of columns names their tables as well.
pub(super) fn check<'f>(conditions: &Conditions, facts: &'f Facts) -> Result<(), Uncovered<'f>> {
    let lists = Lists::of(conditions);
    if lists.statements.is_none() && is_connection(facts) {
        return Err(Uncovered::Connection);
    }
    if let (Some(why), false) = (facts.incomplete, lists.is_for_incomplete) {
        return Err(Uncovered::Incomplete(why));
    }
    let statement = |kind: &&&str| lists.statements.is_some_and(|list| !list.contains(kind));
    if let Some(kind) = facts.kinds.iter().find(statement) {
        return Err(Uncovered::Statement(kind));
    }
    let used = |used: &&&str| lists.masked_uses.is_some_and(|list| !list.contains(used));
    if let Some(used) = facts.masked_uses.iter().find(used) {
        return Err(Uncovered::MaskedUse(used));
    }
    if lists.name_relations() {
        check_relations(&lists, facts)?;
    }
    if lists.name_columns() {
        check_columns(&lists, facts)?;
    }
    let Some(functions) = lists.functions else {
        return Ok(());
    };
    let is_named =
        |name: &&alloc::string::String| !is_function_among(name, functions, Doubt::Differs);
    match facts.functions.iter().find(is_named) {
        Some(name) => Err(Uncovered::Function(name)),
        None => Ok(()),
    }
}

fn check_relations<'f>(lists: &Lists<'_>, facts: &'f Facts) -> Result<(), Uncovered<'f>> {
    type Relations<'a> = Option<&'a [RelationPattern]>;
    let covered = |name: &Relation, own: Relations<'_>, columns: Option<&[ColumnPattern]>| {
        let named =
            |list: Relations<'_>| list.is_some_and(|list| is_among(name, list, Doubt::Differs));
        let has_columns =
            |pattern: &ColumnPattern| pattern.relation.matches_relation(name, Doubt::Differs);
        named(lists.tables)
            || named(own)
            || columns.is_some_and(|columns| columns.iter().any(has_columns))
    };
    let mut reads = facts.reads.iter();
    if let Some(name) = reads.find(|name| !covered(name, lists.reads, lists.columns_read)) {
        return Err(Uncovered::Read(name));
    }
    let mut writes = facts.writes.iter();
    match writes.find(|name| !covered(name, lists.writes, lists.columns_written)) {
        Some(name) => Err(Uncovered::Written(name)),
        None => Ok(()),
    }
}

fn check_columns<'f>(lists: &Lists<'_>, facts: &'f Facts) -> Result<(), Uncovered<'f>> {
    let uncovered = |column: &&Column, list: Option<&[ColumnPattern]>| {
        !list.is_some_and(|list| is_column_among(column, facts, list, Doubt::Differs))
    };
    let mut read = facts.columns_read.iter();
    if let Some(column) = read.find(|column| uncovered(column, lists.columns_read)) {
        return Err(Uncovered::ColumnRead(column));
    }
    let mut written = facts.columns_written.iter();
    match written.find(|column| uncovered(column, lists.columns_written)) {
        Some(column) => Err(Uncovered::ColumnWritten(column)),
        None => Ok(()),
    }
}
