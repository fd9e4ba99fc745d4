//! Masks on columns.
//!
//! It owns how a column finds its masks. It must not know where the masks come from, nor whether they
//! are in force.

use alloc::vec::Vec;

use super::Method;
use crate::policy::{Doubt, NamePattern, RelationPattern};

/// One entry of a mask's `columns`.
#[derive(Debug, Clone)]
pub(crate) struct ColumnMask {
    pub(crate) relation: RelationPattern,
    pub(crate) column: NamePattern,
    pub(crate) method: Method,
}

/// Column masks that are in force together.
#[derive(Debug)]
pub(crate) struct Columns(Vec<ColumnMask>);

impl Columns {
    pub(crate) fn new(columns: Vec<ColumnMask>) -> Self {
        Self(columns)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those on a table; without a schema, on a table of that name in any.
    pub(super) fn on_table<'a>(
        &'a self,
        schema: Option<&'a str>,
        table: &'a str,
    ) -> impl Iterator<Item = &'a ColumnMask> {
        self.0
            .iter()
            .filter(move |mask| mask.relation.matches(schema, table, Doubt::Matches))
    }
}
