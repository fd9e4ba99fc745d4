//! Rows of COPY TO STDOUT in text and CSV format: fields are found, masked and written again.
//!
//! The stream is cut into CopyData messages as the server likes; one message need not be one row.

use alloc::vec::Vec;

use super::cells::{self, Replaced};
use super::copy_binary::BinaryCopy;
use super::provenance::CopyColumn;
use crate::mask::Masks;
use crate::sql::CopyFormat;

/// Bytes of one row that are held until its end is seen.
pub(super) const ROW_BYTES_MAX: usize = 16 << 20;

/// Why a stream could not be masked; the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CopyError {
    #[error("a row of COPY is longer than the limit of {ROW_BYTES_MAX} bytes")]
    TooLong,
    #[error("a row of COPY has {row} fields where {columns} were announced")]
    Count { row: usize, columns: usize },
    #[error("what came is not COPY's binary format")]
    Binary,
}

/// Rewrites one COPY's stream.
pub(super) enum CopyMasker {
    /// Text or CSV.
    Text(TextCopy),
    /// Binary.
    Binary(BinaryCopy),
}

impl CopyMasker {
    /// Rows and masked cells so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Self::Text(copy) => copy.counts(),
            Self::Binary(copy) => copy.counts(),
        }
    }

    /// Takes one CopyData's bytes and writes the rows that are whole.
    pub(super) fn push(
        &mut self,
        data: &[u8],
        masks: &Masks,
        out: &mut Vec<u8>,
    ) -> Result<(), CopyError> {
        match self {
            Self::Text(copy) => copy.push(data, masks, out),
            Self::Binary(copy) => copy.push(data, masks, out),
        }
    }

    /// The stream ended.
    pub(super) fn finish(&mut self, masks: &Masks, out: &mut Vec<u8>) -> Result<(), CopyError> {
        match self {
            Self::Text(copy) => copy.finish(masks, out),
            Self::Binary(copy) => copy.finish(),
        }
    }
}

/// Rewrites one stream of text or CSV.
pub(super) struct TextCopy {
    format: CopyFormat,
    columns: Vec<CopyColumn>,
    scan: bool,
    header: bool,
    /// The start of a row whose end has not come.
    partial: Vec<u8>,
    rows: u64,
    masked: u64,
}

impl TextCopy {
    pub(super) fn new(format: CopyFormat, columns: Vec<CopyColumn>, masks: &Masks) -> Self {
        let header = format.header;
        Self {
            format,
            columns,
            scan: masks.has_patterns(),
            header,
            partial: Vec::new(),
            rows: 0,
            masked: 0,
        }
    }

    fn counts(&self) -> (u64, u64) {
        (self.rows, self.masked)
    }

    fn push(&mut self, data: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Result<(), CopyError> {
        let joined;
        let mut rest = if self.partial.is_empty() {
            data
        } else {
            self.partial.extend_from_slice(data);
            joined = core::mem::take(&mut self.partial);
            joined.as_slice()
        };
        while let Some(end) = self.row_end(rest) {
            let (row, tail) = rest.split_at(end);
            self.row(row, masks, out)?;
            rest = tail;
        }
        if rest.len() > ROW_BYTES_MAX {
            return Err(CopyError::TooLong);
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    /// The stream ended: whatever is left is a row without its end.
    fn finish(&mut self, masks: &Masks, out: &mut Vec<u8>) -> Result<(), CopyError> {
        let rest = core::mem::take(&mut self.partial);
        if rest.is_empty() {
            Ok(())
        } else {
            self.row(&rest, masks, out)
        }
    }

    /// Bytes up to and with the newline that ends the row at the start of `rest`.
    fn row_end(&self, rest: &[u8]) -> Option<usize> {
        if !self.format.csv {
            return memchr::memchr(b'\n', rest).map(|at| at + 1);
        }
        let (quote, escape) = (self.format.quote, self.format.escape);
        let mut quoted = false;
        let mut at = 0;
        while let Some(&byte) = rest.get(at) {
            match byte {
                _ if quoted && byte == escape && escape != quote => at += 1,
                _ if byte == quote => quoted = !quoted,
                b'\n' if !quoted => return Some(at + 1),
                _ => {}
            }
            at += 1;
        }
        None
    }

    fn row(&mut self, row: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Result<(), CopyError> {
        if core::mem::take(&mut self.header) {
            out.extend_from_slice(row);
            return Ok(());
        }
        let (line, end) = match row.strip_suffix(b"\n") {
            Some(line) => (line, &b"\n"[..]),
            None => (row, &[][..]),
        };
        let mut fields = 0;
        let mut rest = Some(line);
        while let Some(line) = rest {
            let (field, tail) = self.next_field(line);
            if fields > 0 {
                out.push(self.format.delimiter);
            }
            let column = self.columns.get(fields);
            let rewritten = match column {
                Some(column) => self.field(column, field, masks, out),
                None => return Err(self.count(fields + 1)),
            };
            self.masked += u64::from(rewritten);
            fields += 1;
            rest = tail;
        }
        // A relation without columns copies as empty lines.
        if fields != self.columns.len() && !(self.columns.is_empty() && line.is_empty()) {
            return Err(self.count(fields));
        }
        out.extend_from_slice(end);
        self.rows += 1;
        Ok(())
    }

    fn count(&self, row: usize) -> CopyError {
        CopyError::Count {
            row,
            columns: self.columns.len(),
        }
    }

    /// The first field, raw, and what is behind its delimiter.
    fn next_field<'a>(&self, line: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
        let format = &self.format;
        let mut quoted = false;
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            if format.csv {
                if quoted && byte == format.escape && format.escape != format.quote {
                    at += 1;
                } else if byte == format.quote {
                    quoted = !quoted;
                } else if byte == format.delimiter && !quoted {
                    break;
                }
            } else if byte == b'\\' {
                at += 1;
            } else if byte == format.delimiter {
                break;
            }
            at += 1;
        }
        match line.split_at_checked(at) {
            Some((field, [_, tail @ ..])) => (field, Some(tail)),
            _ => (line, None),
        }
    }

    /// Writes one field; true if it was rewritten.
    fn field(&self, column: &CopyColumn, raw: &[u8], masks: &Masks, out: &mut Vec<u8>) -> bool {
        let cell = cells::in_copy(column);
        if raw == self.format.null || !cell.is_touched(self.scan) {
            out.extend_from_slice(raw);
            return false;
        }
        let value = self.unescape(raw);
        let mut replacement = Vec::new();
        let replaced = cell.rewritten(&value, masks, self.scan, &mut replacement);
        match replaced {
            Replaced::No => out.extend_from_slice(raw),
            Replaced::Null => out.extend_from_slice(&self.format.null),
            Replaced::By => self.escape(&replacement, out),
        }
        replaced != Replaced::No
    }

    fn unescape(&self, raw: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter().copied().peekable();
        if self.format.csv {
            let mut quoted = false;
            while let Some(byte) = bytes.next() {
                let next = bytes.peek().copied();
                let escapes = quoted
                    && byte == self.format.escape
                    && next.is_some_and(|next| {
                        next == self.format.quote || next == self.format.escape
                    });
                if escapes {
                    value.extend(bytes.next());
                } else if byte == self.format.quote {
                    quoted = !quoted;
                } else {
                    value.push(byte);
                }
            }
            return value;
        }
        while let Some(byte) = bytes.next() {
            value.push(match byte {
                b'\\' => match bytes.next() {
                    Some(b'b') => 8,
                    Some(b'f') => 12,
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'v') => 11,
                    Some(other) => other,
                    None => b'\\',
                },
                other => other,
            });
        }
        value
    }

    fn escape(&self, value: &[u8], out: &mut Vec<u8>) {
        let format = &self.format;
        if format.csv {
            out.push(format.quote);
            for &byte in value {
                if byte == format.quote || byte == format.escape {
                    out.push(format.escape);
                }
                out.push(byte);
            }
            out.push(format.quote);
            return;
        }
        for &byte in value {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                _ => {
                    if byte == b'\\' || byte == format.delimiter {
                        out.push(b'\\');
                    }
                    out.push(byte);
                }
            }
        }
    }
}
