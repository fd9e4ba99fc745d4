//! What a statement uses columns for, beside showing them: whoever may ask for the rows where a column
//! has a value learns the value in time, seen or not.
//!
//! It owns where in a tree each use is. Which columns matter is the masks'.

use alloc::boxed::Box;
use alloc::string::String;

use super::collect::References;
use super::walk::Step;

/// What a column is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It decides which rows there are, or how many.
    Filter,
    /// It decides on their order.
    Order,
    /// Rows of equal values become one.
    Group,
    /// It decides which rows belong together.
    Join,
}

impl Use {
    /// Every use with its name in policy files.
    pub const NAMES: &[(&str, Self)] = &[
        ("filter", Self::Filter),
        ("order", Self::Order),
        ("group", Self::Group),
        ("join", Self::Join),
    ];

    /// Its name in policy files.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names
            .find(|(_, known)| *known == self)
            .map_or("", |(name, _)| name)
    }
}

/// What each use refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses([References; 4]);

/// Where uses are in a tree.
const FIELDS: &[(&str, &str, Use)] = &[
    ("SelectStmt", "where_clause", Use::Filter),
    ("SelectStmt", "having_clause", Use::Filter),
    ("SelectStmt", "limit_count", Use::Filter),
    ("SelectStmt", "limit_offset", Use::Filter),
    ("UpdateStmt", "where_clause", Use::Filter),
    ("DeleteStmt", "where_clause", Use::Filter),
    ("OnConflictClause", "where_clause", Use::Filter),
    ("MergeWhenClause", "condition", Use::Filter),
    ("CopyStmt", "where_clause", Use::Filter),
    ("IndexStmt", "where_clause", Use::Filter),
    ("FuncCall", "agg_filter", Use::Filter),
    // How many rows it gives, and which.
    ("RangeFunction", "functions", Use::Filter),
    ("Constraint", "raw_expr", Use::Filter),
    ("SelectStmt", "sort_clause", Use::Order),
    ("FuncCall", "agg_order", Use::Order),
    ("WindowDef", "order_clause", Use::Order),
    ("IndexStmt", "index_params", Use::Order),
    ("SelectStmt", "group_clause", Use::Group),
    ("SelectStmt", "distinct_clause", Use::Group),
    ("WindowDef", "partition_clause", Use::Group),
    ("JoinExpr", "quals", Use::Join),
    ("JoinExpr", "using_clause", Use::Join),
    ("MergeStmt", "join_condition", Use::Join),
];

/// The innermost use that a place in the tree is within.
fn of(path: &[Step]) -> Option<Use> {
    path.iter().rev().find_map(|step| {
        let mut fields = FIELDS.iter();
        fields
            .find(|(node, field, _)| *node == step.node && *field == step.field)
            .map(|(_, _, used)| *used)
    })
}

impl Uses {
    /// Those that refer to anything.
    pub fn all(&self) -> impl Iterator<Item = (Use, &References)> {
        let named = Use::NAMES.iter().map(|(_, used)| *used);
        named.zip(&self.0).filter(|(_, references)| {
            references.star || !references.columns.is_empty() || !references.functions.is_empty()
        })
    }

    fn at(&mut self, path: &[Step]) -> Option<&mut References> {
        let used = of(path)?;
        let mut all = Use::NAMES.iter().zip(&mut self.0);
        all.find(|((_, known), _)| *known == used)
            .map(|(_, references)| references)
    }

    pub(super) fn column(
        &mut self,
        path: &[Step],
        column: &str,
        qualified: Option<(Box<str>, Box<str>)>,
    ) {
        if let Some(references) = self.at(path) {
            references.add(column, qualified);
        }
    }

    pub(super) fn star(&mut self, path: &[Step]) {
        if let Some(references) = self.at(path) {
            references.star = true;
        }
    }

    /// All columns of either side that have the same name.
    pub(super) fn natural_join(&mut self) {
        let [.., join] = &mut self.0;
        join.star = true;
    }

    pub(super) fn function(&mut self, path: &[Step], function: &str) {
        if let Some(references) = self.at(path)
            && !references.functions.iter().any(|known| known == function)
        {
            references.functions.push(String::from(function));
        }
    }

    /// `JOIN … USING (column)`, `CREATE INDEX … (column)`: names that are no expressions.
    pub(super) fn text(&mut self, path: &[Step], value: &str) {
        let is = |step: Option<&Step>, node: &str, field: &str| {
            step.is_some_and(|step| step.node == node && step.field == field)
        };
        let before = path.len().checked_sub(2).and_then(|at| path.get(at));
        let joins = is(path.last(), "String", "sval") && is(before, "JoinExpr", "using_clause");
        if (joins || is(path.last(), "IndexElem", "name")) && !value.is_empty() {
            self.column(path, value, None);
        }
    }

    /// `ORDER BY 1`: a number that stands for a column of the result, whichever that is.
    pub(super) fn number(&mut self, path: &[Step]) {
        let [.., outer, constant, _] = path else {
            return;
        };
        let stands_alone = (outer.node, outer.field) == ("SortBy", "node")
            || (outer.node, outer.field) == ("SelectStmt", "group_clause");
        if stands_alone && constant.node == "AConst" {
            self.star(path);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            own.columns.extend(other.columns);
            own.qualified.extend(other.qualified);
            own.functions.extend(other.functions);
            own.star |= other.star;
        }
    }
}
