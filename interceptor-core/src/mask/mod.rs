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

mod columns;
mod detector;
mod keys;
mod method;
mod patterns;
mod preserve;
mod text;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

pub(crate) use columns::{ColumnMask, Columns};
pub(crate) use detector::{Check, Detector};
pub use keys::{HashKey, KEY_BYTES_MAX, KEY_BYTES_MIN, KeyFiles, KeyNumber, LabelNumber};
pub(crate) use keys::{KeyError, KeyRing};
pub use method::{MASK_TEXT, Method};
pub use patterns::Pattern;
use preserve::Form;
pub(crate) use text::Finder;
pub use text::TextMask;
use text::TextPatterns;

/// What one or more documents hide, compiled.
#[derive(Debug)]
pub(crate) struct Layer {
    columns: Arc<Columns>,
    patterns: Vec<(Finder, Method)>,
}

impl Layer {
    pub(crate) fn new(columns: Vec<ColumnMask>, patterns: Vec<(Finder, Method)>) -> Self {
        Self {
            columns: Arc::new(Columns::new(columns)),
            patterns,
        }
    }
}

/// The masks in force on one target, compiled: layers, of which the one that shows least wins.
#[derive(Debug, Clone)]
pub struct Masks {
    /// None of them is empty.
    columns: Vec<Arc<Columns>>,
    patterns: TextPatterns,
    hash_key: HashKey,
}

impl Masks {
    pub(crate) fn new<'a>(layers: impl IntoIterator<Item = &'a Layer>, hash_key: HashKey) -> Self {
        let nothing = Self {
            columns: Vec::new(),
            patterns: TextPatterns::default(),
            hash_key,
        };
        let mut all = nothing.and(layers);
        if all.columns.len() > 1 {
            let joined = Columns::joined(all.columns.iter().map(|columns| &**columns));
            all.columns = Vec::from([Arc::new(joined)]);
        }
        all
    }

    /// These and others. What is compiled is shared. Where two name the same pattern, the one that
    /// shows less stays.
    pub(crate) fn and<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Self {
        let mut all = self.clone();
        for layer in layers {
            if !layer.columns.is_empty() {
                all.columns.push(Arc::clone(&layer.columns));
            }
            for (finder, method) in &layer.patterns {
                all.patterns.add(finder, *method);
            }
        }
        all
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
        self.patterns.mask(&self.hash_key, text, out)
    }

    /// Tells each finding of a pattern in force, in order, by the pattern's name.
    pub fn find_in_text(&self, text: &[u8], found: impl FnMut(&str, Range<usize>)) {
        self.patterns.name_findings(text, found);
    }

    /// Appends what is shown instead of `cell`. For [`Method::Null`] that is the full mask: a
    /// caller that can send a null sends one instead (see [`Method::is_null`]).
    pub fn apply(&self, method: Method, cell: &[u8], out: &mut Vec<u8>) {
        method.apply(&self.hash_key, cell, out);
    }

    /// 32 bytes that stand for a value under the method `token`; `None` under any other.
    pub(crate) fn token(&self, method: Method, value: &[u8]) -> Option<[u8; 32]> {
        method.token(&self.hash_key, value)
    }

    /// A whole number of so many bits, in decimal, under the method `preserve`.
    pub(crate) fn preserved_integer(
        &self,
        method: Method,
        text: &[u8],
        bits: u32,
    ) -> Option<Vec<u8>> {
        method.preserved(&self.hash_key, text, Form::Integer { bits })
    }

    /// The same for a decimal number without an exponent.
    pub(crate) fn preserved_decimal(&self, method: Method, text: &[u8]) -> Option<Vec<u8>> {
        method.preserved(&self.hash_key, text, Form::Decimal)
    }

    /// The same for hexadecimal digits and signs between them.
    pub(crate) fn preserved_hexadecimal(&self, method: Method, text: &[u8]) -> Option<Vec<u8>> {
        method.preserved(&self.hash_key, text, Form::Hexadecimal)
    }

    /// As [`Self::column`], for a table as a statement names it: without a schema, a table of that
    /// name in any.
    pub fn method(&self, schema: Option<&str>, table: &str, column: &str) -> Option<Method> {
        let masks = self.columns.iter();
        masks
            .flat_map(|columns| columns.on_column(schema, table, column))
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
            .flat_map(move |columns| columns.on_table(schema, table))
    }
}
