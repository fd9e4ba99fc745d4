//! Cells of result rows: which are replaced, and by what.
//!
//! It owns what a replacement looks like in each type and format. A type that cannot hold the
//! replacement's text gets NULL.

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use crate::mask::{MASK_TEXT, Masks, Method, TextMask};
use crate::wire::DecodeError;
use crate::wire::postgres::backend::{self, Column};
use crate::wire::postgres::encode;

/// How the cells of a type can be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Any text will do: text, varchar, char(n), name, xml, unknown.
    Text,
    /// A JSON text: the replacement is a JSON string.
    Json,
    /// JSON behind a version byte, in binary format.
    Jsonb,
    /// A whole number of eight bytes: a payment card number may hide in it.
    Int8,
    /// A decimal number.
    Numeric,
    /// Nothing that a pattern looks for fits in: booleans, dates, floats, small integers, UUIDs.
    Safe,
    /// Anything else: arrays, composites, enums, extension types.
    Other,
}

/// The family of a type, by its object id in `pg_type.dat`.
pub(super) fn family(type_oid: u32) -> Family {
    match type_oid {
        18 | 19 | 25 | 142 | 705 | 1042 | 1043 => Family::Text,
        114 => Family::Json,
        3802 => Family::Jsonb,
        20 => Family::Int8,
        1700 => Family::Numeric,
        16 | 21 | 23 | 26 | 700 | 701 | 1082 | 1083 | 1114 | 1184 | 1186 | 1266 | 2950 => {
            Family::Safe
        }
        _ => Family::Other,
    }
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    mask: Option<Method>,
    family: Family,
    binary: bool,
}

/// What happens to the cells of one result's rows.
#[derive(Debug, Clone)]
pub(super) struct RowPlan {
    cells: Vec<Cell>,
    scan: bool,
    idle: bool,
}

impl RowPlan {
    /// For the columns described, with the mask on each.
    pub(super) fn new(columns: &[Column], methods: Vec<Option<Method>>, masks: &Masks) -> Self {
        let scan = masks.has_patterns();
        let cells: Vec<Cell> = columns
            .iter()
            .zip(methods)
            .map(|(column, mask)| Cell {
                mask,
                family: family(column.type_oid),
                binary: column.binary,
            })
            .collect();
        let idle = !cells
            .iter()
            .any(|cell| cell.mask.is_some() || (scan && cell.family != Family::Safe));
        Self { cells, scan, idle }
    }

    /// Rows pass untouched.
    pub(super) fn is_idle(&self) -> bool {
        self.idle
    }

    /// Writes a DataRow with the cells rewritten; returns how many were.
    pub(super) fn rewrite(
        &self,
        body: &[u8],
        masks: &Masks,
        out: &mut BytesMut,
    ) -> Result<u64, RowError> {
        let (count, mut cells) = backend::data_row(body)?;
        if count != self.cells.len() {
            return Err(RowError::Count {
                row: count,
                described: self.cells.len(),
            });
        }
        let mut masked = 0;
        let mut scratch = Vec::new();
        let mut result = Ok(());
        encode::message(out, backend::kind::DATA_ROW, |out| {
            out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
            for cell in &self.cells {
                match cells.next_cell() {
                    Ok(Some(None)) => out.put_i32(-1),
                    Ok(Some(Some(value))) => {
                        masked += u64::from(self.write(*cell, value, masks, &mut scratch, out))
                    }
                    Ok(None) => {}
                    Err(error) => result = Err(error),
                }
            }
        });
        result?;
        // The row must end where its cells do.
        cells.next_cell()?;
        Ok(masked)
    }

    /// Writes one cell; true if it was rewritten.
    fn write(
        &self,
        cell: Cell,
        value: &[u8],
        masks: &Masks,
        scratch: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> bool {
        scratch.clear();
        let replaced = match cell.mask {
            Some(method) => replace(cell, method, value, masks, scratch),
            None if self.scan => scan(cell, value, masks, scratch),
            None => Replaced::No,
        };
        match replaced {
            Replaced::No => put_value(out, value),
            Replaced::Null => out.put_i32(-1),
            Replaced::By => put_value(out, scratch),
        }
        replaced != Replaced::No
    }
}

/// Why a row could not be masked; the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    #[error("a row is malformed: {0}")]
    Malformed(#[from] DecodeError),
    #[error("a row has {row} cells where {described} were described")]
    Count { row: usize, described: usize },
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Replaced {
    No,
    Null,
    By,
}

fn put_value(out: &mut BytesMut, value: &[u8]) {
    // A cell came out of a message whose length fits an i32, and a replacement is shorter or small.
    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
    out.put_slice(value);
}

fn replace(cell: Cell, method: Method, value: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Replaced {
    match (cell.family, cell.binary) {
        _ if method.is_null() => return Replaced::Null,
        (Family::Text, _) => masks.apply(method, value, out),
        (Family::Json, _) | (Family::Jsonb, false) => json_string(out),
        (Family::Jsonb, true) => {
            out.push(1);
            json_string(out);
        }
        _ => return Replaced::Null,
    }
    Replaced::By
}

fn json_string(out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(MASK_TEXT.as_bytes());
    out.push(b'"');
}

fn scan(cell: Cell, value: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Replaced {
    let mut digits = Vec::new();
    let (text, rewritable) = match (cell.family, cell.binary) {
        (Family::Safe, _) => return Replaced::No,
        (Family::Text | Family::Json, _) | (Family::Jsonb | Family::Other, false) => (value, true),
        (Family::Int8, true) => {
            let number = value.try_into().map_or(0, i64::from_be_bytes);
            digits.extend_from_slice(alloc::format!("{number}").as_bytes());
            (digits.as_slice(), false)
        }
        (Family::Numeric, true) => {
            numeric_digits(value, &mut digits);
            (digits.as_slice(), false)
        }
        // Lengths stand inside, so that nothing can be replaced in place.
        (Family::Int8 | Family::Numeric, false) | (Family::Jsonb | Family::Other, true) => {
            (value, false)
        }
    };
    match masks.mask_text(text, out) {
        TextMask::Clean => Replaced::No,
        TextMask::Rewritten { .. } if rewritable => Replaced::By,
        TextMask::Rewritten { .. } | TextMask::Null { .. } => Replaced::Null,
    }
}

/// The whole digits of a binary numeric: groups of four (`numeric_send`).
fn numeric_digits(value: &[u8], out: &mut Vec<u8>) {
    let word = |index: usize| {
        value
            .get(index * 2..index * 2 + 2)
            .and_then(|word| word.try_into().ok())
            .map(u16::from_be_bytes)
    };
    let (Some(groups), Some(weight)) = (word(0), word(1)) else {
        return;
    };
    for index in 0..i32::from(weight as i16) + 1 {
        let group = usize::try_from(index).unwrap_or(0);
        let digits = if group < usize::from(groups) {
            word(4 + group).unwrap_or(0)
        } else {
            0
        };
        let text = if out.is_empty() {
            alloc::format!("{digits}")
        } else {
            alloc::format!("{digits:04}")
        };
        out.extend_from_slice(text.as_bytes());
        // A numeric may have 131,072 digits; a card number has 19.
        if out.len() > 64 {
            return;
        }
    }
}
