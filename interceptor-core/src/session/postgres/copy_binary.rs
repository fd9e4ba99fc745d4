//! Rows of COPY TO STDOUT in binary format: a header, tuples, and a trailer.
//!
//! ```text
//!  signature, 11 bytes   flags   extension     tuple: fields, each with its length    trailer
//! ┌────────────────────┬───────┬─────┬───────┬─────┬─────┬───────┬─────┬───────┬───┬──────┐
//! │ PGCOPY\n\377\r\n\0 │  u32  │ u32 │ bytes │ i16 │ i32 │ bytes │ i32 │ bytes │ … │  -1  │
//! └────────────────────┴───────┴─────┴───────┴─────┴─────┴───────┴─────┴───────┴───┴──────┘
//! ```
//!
//! A tuple is laid out as the body of a DataRow is, and masked as one.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::cells::RowPlan;
use super::copy::{CopyError, ROW_BYTES_MAX};
use super::provenance::CopyColumn;
use crate::mask::Masks;
use crate::wire::postgres::backend::Column;
use crate::wire::postgres::frame::HEADER_BYTES;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Bytes of a header's extension that are taken; today's servers send none.
const EXTENSION_BYTES_MAX: usize = 64 << 10;

/// Where in the stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Tuples,
    /// Behind the trailer, where nothing more comes.
    End,
}

/// Rewrites one binary COPY's stream.
pub(super) struct BinaryCopy {
    plan: RowPlan,
    columns: usize,
    place: Place,
    /// The start of what is not whole yet.
    partial: Vec<u8>,
    scratch: BytesMut,
    rows: u64,
    masked: u64,
}

impl BinaryCopy {
    pub(super) fn new(columns: &[CopyColumn], masks: &Masks) -> Self {
        let types = columns.iter().map(|column| Column {
            table_oid: 0,
            attribute: 0,
            type_oid: column.type_oid,
            binary: true,
        });
        let methods = columns.iter().map(|column| column.mask).collect();
        let types: Vec<Column> = types.collect();
        Self {
            plan: RowPlan::new(&types, methods, masks),
            columns: columns.len(),
            place: Place::Header,
            partial: Vec::new(),
            scratch: BytesMut::new(),
            rows: 0,
            masked: 0,
        }
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.rows, self.masked)
    }

    /// Takes one CopyData's bytes and writes what is whole.
    pub(super) fn push(
        &mut self,
        data: &[u8],
        masks: &Masks,
        out: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        let joined;
        let mut rest = if self.partial.is_empty() {
            data
        } else {
            self.partial.extend_from_slice(data);
            joined = core::mem::take(&mut self.partial);
            joined.as_slice()
        };
        while let Some(size) = self.part(rest)? {
            let (part, tail) = rest.split_at(size);
            self.take(part, masks, out)?;
            rest = tail;
        }
        if rest.len() > ROW_BYTES_MAX {
            return Err(CopyError::TooLong);
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// The stream ended: it has to do so behind its trailer.
    pub(super) fn finish(&self) -> Result<(), CopyError> {
        match (self.place, self.partial.is_empty()) {
            (Place::End, true) => Ok(()),
            _ => Err(CopyError::Binary),
        }
    }

    /// Bytes of the part that stands at the start of `rest`; `None` if it is not whole.
    fn part(&self, rest: &[u8]) -> Result<Option<usize>, CopyError> {
        match self.place {
            _ if rest.is_empty() => Ok(None),
            Place::Header => header(rest),
            Place::Tuples => self.tuple(rest),
            Place::End => Err(CopyError::Binary),
        }
    }

    /// Bytes of a tuple, or of the trailer.
    fn tuple(&self, rest: &[u8]) -> Result<Option<usize>, CopyError> {
        let Some((count, mut fields)) = rest.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            return Ok(Some(2));
        }
        let row = usize::try_from(count).map_err(|_| CopyError::Binary)?;
        if row != self.columns {
            let columns = self.columns;
            return Err(CopyError::Count { row, columns });
        }
        for _ in 0..row {
            let Some((length, tail)) = fields.split_first_chunk::<4>() else {
                return Ok(None);
            };
            let length = match i32::from_be_bytes(*length) {
                -1 => 0,
                length => usize::try_from(length).map_err(|_| CopyError::Binary)?,
            };
            match tail.get(length..) {
                Some(tail) => fields = tail,
                None => return Ok(None),
            }
        }
        Ok(Some(rest.len() - fields.len()))
    }

    /// Writes a part that is whole.
    fn take(&mut self, part: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Result<(), CopyError> {
        match (self.place, part) {
            (Place::Header, header) => {
                out.extend_from_slice(header);
                self.place = Place::Tuples;
            }
            (_, [0xff, 0xff]) => {
                out.extend_from_slice(part);
                self.place = Place::End;
            }
            (_, tuple) => {
                self.scratch.clear();
                let masked = self.plan.rewrite(tuple, masks, &mut self.scratch);
                self.masked += masked.map_err(|_| CopyError::Binary)?;
                self.rows += 1;
                out.extend_from_slice(self.scratch.get(HEADER_BYTES..).unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// Bytes of the header.
fn header(rest: &[u8]) -> Result<Option<usize>, CopyError> {
    let known = rest.len().min(SIGNATURE.len());
    if rest.get(..known) != SIGNATURE.get(..known) {
        return Err(CopyError::Binary);
    }
    let fields = rest.get(SIGNATURE.len()..).unwrap_or_default();
    let Some((flags, fields)) = fields.split_first_chunk::<4>() else {
        return Ok(None);
    };
    // The upper half are flags that a reader has to know. There was one, for object ids.
    if u32::from_be_bytes(*flags) >> 16 != 0 {
        return Err(CopyError::Binary);
    }
    let Some((length, extension)) = fields.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > EXTENSION_BYTES_MAX {
        return Err(CopyError::Binary);
    }
    let whole = rest.len() - extension.len() + length;
    Ok((extension.len() >= length).then_some(whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mask::{HashKey, Method};

    fn masks() -> Masks {
        Masks::new([], HashKey::new([0; 32]))
    }

    /// int4 and a masked text.
    fn copy() -> BinaryCopy {
        let column = |type_oid, mask| CopyColumn { type_oid, mask };
        let columns = [column(23, None), column(25, Some(Method::Full))];
        BinaryCopy::new(&columns, &masks())
    }

    fn stream(rows: &[Option<&[u8]>]) -> Vec<u8> {
        let mut stream = [SIGNATURE, &[0; 8]].concat();
        for row in rows {
            stream.extend([0, 2, 0, 0, 0, 4, 0, 0, 0, 7]);
            let length = row.map_or(-1, |row| i32::try_from(row.len()).unwrap());
            stream.extend(length.to_be_bytes());
            stream.extend(row.unwrap_or_default());
        }
        stream.extend([0xff, 0xff]);
        stream
    }

    fn masked(parts: &[&[u8]]) -> Result<Vec<u8>, CopyError> {
        let (mut copy, mut out) = (copy(), Vec::new());
        for part in parts {
            copy.push(part, &masks(), &mut out)?;
        }
        copy.finish()?;
        Ok(out)
    }

    #[test]
    fn cells_are_masked_by_type() {
        let given = stream(&[Some(b"secret"), None, Some(b"")]);
        let shown = stream(&[Some(b"****"), None, Some(b"****")]);
        assert_eq!(masked(&[&given]), Ok(shown));
    }

    #[test]
    fn what_is_no_such_stream_is_an_error() {
        let whole = stream(&[Some(b"secret")]);
        for end in 0..whole.len() {
            assert!(masked(&[&whole[..end]]).is_err(), "{end} bytes of it");
        }
        assert!(masked(&[&whole, b"more"]).is_err());
        let mut with_object_ids = whole.clone();
        with_object_ids[12] = 1;
        assert!(masked(&[&with_object_ids]).is_err());
        let mut three_fields = whole.clone();
        three_fields[20] = 3;
        let count = CopyError::Count { row: 3, columns: 2 };
        assert_eq!(masked(&[&three_fields]), Err(count));
        let mut negative = whole;
        negative[21] = 0x80;
        assert!(masked(&[&negative]).is_err());
    }

    proptest! {
        #[test]
        fn any_split_is_as_all_at_once(
            texts in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            cuts in prop::collection::vec(0_usize..300, 0..6),
        ) {
            let rows: Vec<Option<&[u8]>> = texts.iter().map(Option::as_deref).collect();
            let given = stream(&rows);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(given.len())).collect();
            cuts.extend([0, given.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &given[cut[0]..cut[1]]).collect();
            prop_assert_eq!(masked(&parts), masked(&[&given]));
        }

        #[test]
        fn any_bytes_panic_nowhere(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let stream = [SIGNATURE, &[0; 8], &bytes].concat();
            let _ = masked(&[&bytes]);
            let _ = masked(&[&stream]);
        }
    }
}
