//! Masking: which cells may not be seen, and what is shown instead.
//!
//! It owns methods and patterns. It must not know how a protocol frames a cell.
//!
//! Two ways lead to a mask. A *column* mask hides every value of a column: the caller looks the
//! column up once ([`Masks::column`]) and applies the method to each cell ([`Masks::apply`]). A
//! *pattern* mask hides what looks like a payment card, an email address and so on wherever it
//! stands in a text ([`Masks::mask_text`]).
//!
//! Nothing here prints a value: no `Debug`, no error.

mod digits;
mod email;
mod method;
mod text;

use alloc::vec::Vec;
use core::fmt;

use crate::policy::{Doubt, NamePattern, RelationPattern};

pub use method::{MASK_TEXT, Method};
pub use text::{Pattern, TextMask};

/// The key of the method `hash`: 32 random bytes, drawn once a process and kept across reloads.
#[derive(Clone)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// Takes the random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Whoever has the key can find short values by trying them all: it must not print.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// The masks in force on one target, compiled.
#[derive(Debug, Clone)]
pub struct Masks {
    columns: Vec<ColumnMask>,
    patterns: Vec<(Pattern, Method)>,
    hash_key: HashKey,
}

/// One entry of a mask's `columns`.
#[derive(Debug, Clone)]
pub(crate) struct ColumnMask {
    pub(crate) relation: RelationPattern,
    pub(crate) column: NamePattern,
    pub(crate) method: Method,
}

impl Masks {
    /// Where two masks name the same pattern, the one that shows less stays.
    pub(crate) fn new(
        columns: Vec<ColumnMask>,
        patterns: impl IntoIterator<Item = (Pattern, Method)>,
        hash_key: HashKey,
    ) -> Self {
        let mut unique: Vec<(Pattern, Method)> = Vec::new();
        for (pattern, method) in patterns {
            match unique.iter_mut().find(|(known, _)| *known == pattern) {
                Some((_, known)) => *known = method.max(*known),
                None => unique.push((pattern, method)),
            }
        }
        Self {
            columns,
            patterns: unique,
            hash_key,
        }
    }

    /// How to mask a column; `None` if it may be seen. Where several masks name it, the one that
    /// shows least wins.
    pub fn column(&self, schema: &str, table: &str, column: &str) -> Option<Method> {
        self.method(Some(schema), table, column)
    }

    /// Whether a column of a table as a statement names it may be masked: without a schema, by a
    /// mask on that table in any schema.
    pub fn may_mask(&self, schema: Option<&str>, table: &str, column: &str) -> bool {
        self.method(schema, table, column).is_some()
    }

    /// Any column mask at all is in force.
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Some column of the table may be masked.
    pub fn masks_table(&self, schema: Option<&str>, table: &str) -> bool {
        self.on_table(schema, table).next().is_some()
    }

    /// The column names that masks on a table hold, as written: `*` stands for any run of
    /// characters.
    pub fn column_names<'a>(
        &'a self,
        schema: Option<&'a str>,
        table: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.on_table(schema, table)
            .map(|mask| mask.column.as_str())
    }

    /// Any pattern mask at all is in force.
    pub fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Finds every pattern in force in `text`. If there is one, the text with the findings
    /// replaced is appended to `out`; else `out` is left alone.
    pub fn mask_text(&self, text: &[u8], out: &mut Vec<u8>) -> TextMask {
        text::mask_text(&self.patterns, &self.hash_key, text, out)
    }

    /// Appends what is shown instead of `cell`. For [`Method::Null`] that is the full mask: a
    /// caller that can send a null sends one instead (see [`Method::is_null`]).
    pub fn apply(&self, method: Method, cell: &[u8], out: &mut Vec<u8>) {
        method.apply(&self.hash_key, cell, out);
    }

    /// As [`Self::column`], for a table as a statement names it: without a schema, a table of that
    /// name in any.
    pub fn method(&self, schema: Option<&str>, table: &str, column: &str) -> Option<Method> {
        self.on_table(schema, table)
            .filter(|mask| mask.column.matches_identifier(column, Doubt::Matches))
            .map(|mask| mask.method)
            .max()
    }

    fn on_table<'a>(
        &'a self,
        schema: Option<&'a str>,
        table: &'a str,
    ) -> impl Iterator<Item = &'a ColumnMask> {
        self.columns
            .iter()
            .filter(move |mask| mask.relation.matches(schema, table, Doubt::Matches))
    }
}
