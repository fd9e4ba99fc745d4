//! Cells of result rows: which are replaced, and by what.
//!
//! It owns what a replacement looks like in each type and format. A type that cannot hold the
//! replacement's text gets NULL.

use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use super::provenance::CopyColumn;
use super::types::{self, Family, family};
use super::{nested, numeric};
use crate::mask::{MASK_TEXT, Masks, Method, TextMask};
use crate::wire::DecodeError;
use crate::wire::postgres::backend::{self, Column};
use crate::wire::postgres::encode;

#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) mask: Option<Method>,
    pub(super) type_oid: u32,
    pub(super) family: Family,
    pub(super) binary: bool,
}

/// A column of COPY's text formats. The type of an expression (0) is not known there: text, then.
pub(super) fn in_copy(column: &CopyColumn) -> Cell {
    let family = match column.type_oid {
        0 => Family::Text,
        known => family(known),
    };
    Cell {
        mask: column.mask,
        type_oid: column.type_oid,
        family,
        binary: false,
    }
}

impl Cell {
    /// Its values may have to be rewritten. `scan`: patterns are looked for.
    pub(super) fn is_touched(&self, scan: bool) -> bool {
        self.mask.is_some() || (scan && self.family != Family::Safe)
    }

    /// Writes what stands for a value, if something has to.
    pub(super) fn rewritten(
        self,
        value: &[u8],
        masks: &Masks,
        scan: bool,
        out: &mut Vec<u8>,
    ) -> Replaced {
        match self.mask {
            Some(method) => replace(self, method, value, masks, out),
            None if scan => self::scan(self, value, masks, 0, out),
            None => Replaced::No,
        }
    }
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
                type_oid: column.type_oid,
                family: family(column.type_oid),
                binary: column.binary,
            })
            .collect();
        let idle = !cells.iter().any(|cell| cell.is_touched(scan));
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
        let replaced = cell.rewritten(value, masks, self.scan, scratch);
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

/// What became of a cell.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Replaced {
    /// It may be seen.
    No,
    /// It is null.
    Null,
    /// What was written stands for it.
    By,
}

fn put_value(out: &mut BytesMut, value: &[u8]) {
    // A cell came out of a message whose length fits an i32, and a replacement is shorter or small.
    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
    out.put_slice(value);
}

/// Writes what stands for a value of a masked column: of the same type, or null.
pub(super) fn replace(
    cell: Cell,
    method: Method,
    value: &[u8],
    masks: &Masks,
    out: &mut Vec<u8>,
) -> Replaced {
    let replaced = match (method, cell.family) {
        (Method::Null, _) => return Replaced::Null,
        (_, Family::Text) => {
            masks.apply(method, value, out);
            true
        }
        (_, Family::Padded) => {
            masks.apply(method, value.trim_ascii_end(), out);
            true
        }
        (_, Family::Byte) => {
            out.push(b'*');
            true
        }
        (_, Family::Xml) => {
            let mut shown = Vec::new();
            masks.apply(method, value, &mut shown);
            escape_xml(&shown, out);
            true
        }
        (_, Family::Json | Family::Jsonb) => json_string(cell, method, value, masks, out),
        (Method::Placeholder(_), _) => types::neutral(cell.type_oid, cell.binary, value, out),
        (Method::Token(_), _) => token(cell, method, value, masks, out).is_some(),
        (Method::Preserve(_), _) => preserve(cell, method, value, masks, out).is_some(),
        _ => false,
    };
    match replaced {
        true => Replaced::By,
        false => Replaced::Null,
    }
}

fn json_string(cell: Cell, method: Method, value: &[u8], masks: &Masks, out: &mut Vec<u8>) -> bool {
    let mut value = value;
    if cell.family == Family::Jsonb && cell.binary {
        let Some((&version, text)) = value.split_first() else {
            return false;
        };
        out.push(version);
        value = text;
    }
    let mut shown = Vec::new();
    match method {
        // Parts of a document are no parts of a value.
        Method::Partial | Method::Preserve(_) => shown.extend_from_slice(MASK_TEXT.as_bytes()),
        _ => masks.apply(method, value, &mut shown),
    }
    nested::quoted(&shown, out);
    true
}

fn escape_xml(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            _ => out.push(byte),
        }
    }
}

/// The value as the server writes it in text, the same whichever format it came in: what tokens and
/// encryption start from.
fn in_text(cell: Cell, value: &[u8]) -> Option<Vec<u8>> {
    if !cell.binary {
        let text = str::from_utf8(value).ok()?;
        return Some(match cell.family {
            // 1.50 and 1.5 are one number.
            Family::Numeric => plain_decimal(text)?.as_bytes().to_vec(),
            Family::Bytes => hex::decode(text.strip_prefix("\\x")?).ok()?,
            _ => value.to_vec(),
        });
    }
    let text = match cell.family {
        Family::Int4 => alloc::format!("{}", i32::from_be_bytes(value.try_into().ok()?)),
        Family::Int8 => alloc::format!("{}", i64::from_be_bytes(value.try_into().ok()?)),
        Family::Numeric => plain_decimal(&numeric::to_text(value)?)?.into(),
        Family::Uuid => {
            let digits = hex::encode(<[u8; 16]>::try_from(value).ok()?);
            let part = |from: usize, to: usize| digits.get(from..to);
            alloc::format!(
                "{}-{}-{}-{}-{}",
                part(0, 8)?,
                part(8, 12)?,
                part(12, 16)?,
                part(16, 20)?,
                part(20, 32)?
            )
        }
        Family::Bytes => return Some(value.to_vec()),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// Without zeros at the end of the fraction; `None` for what has no digits.
fn plain_decimal(text: &str) -> Option<&str> {
    let digits = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    };
    text.bytes().all(digits).then_some(text)
}

/// Writes a text in the cell's own type and format.
fn put_text(cell: Cell, text: &str, out: &mut Vec<u8>) -> Option<()> {
    match (cell.family, cell.binary) {
        (_, false) => out.extend_from_slice(text.as_bytes()),
        (Family::Int4, true) => out.extend_from_slice(&text.parse::<i32>().ok()?.to_be_bytes()),
        (Family::Int8, true) => out.extend_from_slice(&text.parse::<i64>().ok()?.to_be_bytes()),
        (Family::Numeric, true) => out.extend_from_slice(&numeric::to_binary(text)?),
        (Family::Uuid, true) => {
            let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
            out.extend_from_slice(&hex::decode(digits).ok()?);
        }
        _ => return None,
    }
    Some(())
}

/// A token in types that have room for one.
fn token(cell: Cell, method: Method, value: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Option<()> {
    let digest = masks.token(method, &in_text(cell, value)?)?;
    let (start, _) = digest.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(*start);
    let text = match cell.family {
        Family::Int4 => alloc::format!("{}", number >> 33),
        Family::Int8 => alloc::format!("{}", number >> 1),
        Family::Numeric => alloc::format!("{}", number % NUMERIC_TOKENS),
        Family::Uuid => {
            let mut bytes = *digest.first_chunk::<16>()?;
            // Version 8, of whatever origin (RFC 9562).
            let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
            *version = (*version & 0x0f) | 0x80;
            *variant = (*variant & 0x3f) | 0x80;
            let cell = Cell {
                binary: true,
                ..cell
            };
            let text = in_text(cell, &bytes)?;
            alloc::string::String::from_utf8(text).ok()?
        }
        Family::Bytes => {
            let bytes = digest.first_chunk::<16>()?;
            match cell.binary {
                true => out.extend_from_slice(bytes),
                false => {
                    out.extend_from_slice(alloc::format!("\\x{}", hex::encode(bytes)).as_bytes())
                }
            }
            return Some(());
        }
        _ => return None,
    };
    put_text(cell, &text, out)
}

/// Numbers that tokens of type `numeric` are drawn from.
const NUMERIC_TOKENS: u64 = 1_000_000_000_000_000_000;

/// A value of the same format, in types that have one.
fn preserve(
    cell: Cell,
    method: Method,
    value: &[u8],
    masks: &Masks,
    out: &mut Vec<u8>,
) -> Option<()> {
    let text = in_text(cell, value)?;
    let preserved = match cell.family {
        Family::Int4 => masks.preserved_integer(method, &text, 32),
        Family::Int8 => masks.preserved_integer(method, &text, 64),
        Family::Numeric => masks.preserved_decimal(method, &text),
        Family::Uuid => masks.preserved_hexadecimal(method, &text),
        _ => None,
    }?;
    put_text(cell, str::from_utf8(&preserved).ok()?, out)
}

/// Looks for patterns in a value that is not masked. `depth`: how many values it is inside of.
pub(super) fn scan(
    cell: Cell,
    value: &[u8],
    masks: &Masks,
    depth: usize,
    out: &mut Vec<u8>,
) -> Replaced {
    if depth > nested::DEPTH_MAX {
        return Replaced::Null;
    }
    let (text, rewritable) = match (cell.family, cell.binary) {
        (Family::Safe | Family::Int4 | Family::Uuid, _) => return Replaced::No,
        (Family::Json, _) | (Family::Jsonb, false) => return nested::json(value, masks, out),
        (Family::Jsonb, true) => {
            let Some((&version, text)) = value.split_first() else {
                return Replaced::Null;
            };
            out.push(version);
            return nested::json(text, masks, out);
        }
        (Family::Text | Family::Padded, _) => (value, true),
        (Family::Record | Family::Other, false) => (value, true),
        (Family::Array(element), false) => (value, is_text(element)),
        (Family::Int8 | Family::Numeric | Family::Inet | Family::Mac, true) => {
            let Some(text) = readable(cell, value) else {
                return Replaced::No;
            };
            return match masks.mask_text(text.as_bytes(), out) {
                TextMask::Clean => Replaced::No,
                _ => Replaced::Null,
            };
        }
        (Family::Array(_) | Family::Record | Family::Other, true) => {
            return composite(value, masks, depth, out);
        }
        // Lengths stand inside, or not every text is a value.
        _ => (value, false),
    };
    match masks.mask_text(text, out) {
        TextMask::Clean => Replaced::No,
        TextMask::Rewritten { .. } if rewritable => Replaced::By,
        TextMask::Rewritten { .. } | TextMask::Null { .. } => Replaced::Null,
    }
}

fn is_text(type_oid: u32) -> bool {
    matches!(types::family(type_oid), Family::Text | Family::Padded)
}

/// An array or a row, whichever it is; of what is neither the bytes are looked at as they are.
fn composite(value: &[u8], masks: &Masks, depth: usize, out: &mut Vec<u8>) -> Replaced {
    let start = out.len();
    for take in [nested::array, nested::record] {
        if let Some(found) = take(value, masks, depth, out) {
            return found;
        }
        out.truncate(start);
    }
    match masks.mask_text(value, out) {
        TextMask::Clean => Replaced::No,
        _ => Replaced::Null,
    }
}

/// What a pattern would find in the value's text form.
fn readable(cell: Cell, value: &[u8]) -> Option<alloc::string::String> {
    match (cell.family, value) {
        (Family::Int8, _) => Some(alloc::format!(
            "{}",
            i64::from_be_bytes(value.try_into().ok()?)
        )),
        (Family::Numeric, _) => numeric::to_text(value),
        // Family, bits, whether it is a network, length, address.
        (Family::Inet, [_, _, _, 4, address @ ..]) => {
            let address = <[u8; 4]>::try_from(address).ok()?;
            Some(alloc::format!("{}", core::net::Ipv4Addr::from(address)))
        }
        (Family::Inet, [_, _, _, 16, address @ ..]) => {
            let address = <[u8; 16]>::try_from(address).ok()?;
            Some(alloc::format!("{}", core::net::Ipv6Addr::from(address)))
        }
        (Family::Mac, _) => {
            let parts: Vec<_> = value
                .iter()
                .map(|byte| alloc::format!("{byte:02x}"))
                .collect();
            Some(parts.join(":"))
        }
        _ => None,
    }
}
