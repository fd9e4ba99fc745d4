//! What a server sends. Each decoder takes a message's body.

use alloc::vec::Vec;

use super::startup::CancelKey;
use crate::wire::{DecodeError, Reader};

/// Message types that a server may send.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// Decodes BackendKeyData.
pub fn backend_key_data(body: &[u8]) -> Result<CancelKey, DecodeError> {
    let mut reader = Reader::new(body);
    let process_id = reader.u32()?;
    let secret = reader.rest();
    if !(4..=256).contains(&secret.len()) {
        return Err(DecodeError::Unknown("cancel key"));
    }
    Ok(CancelKey {
        process_id,
        secret: secret.to_vec(),
    })
}

/// NegotiateProtocolVersion.
pub struct Negotiated<'a> {
    /// The minor version of protocol 3 that the server speaks.
    pub minor: u16,
    /// Extensions that it does not know.
    pub extensions: Vec<&'a [u8]>,
}

/// Decodes NegotiateProtocolVersion.
pub fn negotiate_protocol_version(body: &[u8]) -> Result<Negotiated<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let [a, b, c, d] = reader.u32()?.to_be_bytes();
    if [a, b] != [0, 3] {
        return Err(DecodeError::Unknown("protocol version"));
    }
    let minor = u16::from_be_bytes([c, d]);
    let mut extensions = Vec::new();
    for _ in 0..reader.u32()? {
        extensions.push(reader.cstr()?);
    }
    reader.finish()?;
    Ok(Negotiated { minor, extensions })
}

/// Decodes ParameterStatus: name and value.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let mut reader = Reader::new(body);
    let pair = (reader.cstr()?, reader.cstr()?);
    reader.finish()?;
    Ok(pair)
}

/// Where a session stands with its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// None is open.
    Idle,
    /// One is open.
    Open,
    /// One is open and has failed: all but its end is refused.
    Failed,
}

/// Decodes ReadyForQuery.
pub fn ready_for_query(body: &[u8]) -> Result<TransactionStatus, DecodeError> {
    let mut reader = Reader::new(body);
    let status = match reader.u8()? {
        b'I' => TransactionStatus::Idle,
        b'T' => TransactionStatus::Open,
        b'E' => TransactionStatus::Failed,
        _ => return Err(DecodeError::Unknown("transaction status")),
    };
    reader.finish()?;
    Ok(status)
}

/// One column of a RowDescription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The relation it comes from; 0 for an expression.
    pub table_oid: u32,
    /// Its attribute number there; 0 for an expression.
    pub attribute: i16,
    /// Its type.
    pub type_oid: u32,
    /// Its cells are in binary format.
    pub binary: bool,
}

/// Decodes RowDescription, without the names: they are the client's to choose.
pub fn row_description(body: &[u8]) -> Result<Vec<Column>, DecodeError> {
    let mut reader = Reader::new(body);
    let count = reader.count()?;
    let mut columns = Vec::with_capacity(count.min(1_664));
    for _ in 0..count {
        reader.cstr()?;
        let table_oid = reader.u32()?;
        let attribute = reader.i16()?;
        let type_oid = reader.u32()?;
        reader.i16()?;
        reader.i32()?;
        let binary = reader.i16()? == 1;
        columns.push(Column {
            table_oid,
            attribute,
            type_oid,
            binary,
        });
    }
    reader.finish()?;
    Ok(columns)
}

/// The cells of a DataRow.
pub struct Cells<'a> {
    reader: Reader<'a>,
    left: usize,
}

/// Opens a DataRow: the number of cells, and the cells.
pub fn data_row(body: &[u8]) -> Result<(usize, Cells<'_>), DecodeError> {
    let mut reader = Reader::new(body);
    let count = reader.count()?;
    Ok((
        count,
        Cells {
            reader,
            left: count,
        },
    ))
}

impl<'a> Cells<'a> {
    /// The next cell: outer `None` at the end of a row without left-over bytes.
    pub fn next_cell(&mut self) -> Result<Option<Option<&'a [u8]>>, DecodeError> {
        if self.left == 0 {
            self.reader.clone().finish()?;
            return Ok(None);
        }
        self.left -= 1;
        self.reader.value().map(Some)
    }
}

/// Decodes CommandComplete: the tag.
pub fn command_complete(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(body);
    let tag = reader.cstr()?;
    reader.finish()?;
    Ok(tag)
}

/// The format of a COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyResponse {
    /// The whole stream is binary.
    pub binary: bool,
    /// Columns a row.
    pub columns: usize,
}

/// Decodes CopyInResponse and CopyOutResponse.
pub fn copy_response(body: &[u8]) -> Result<CopyResponse, DecodeError> {
    let mut reader = Reader::new(body);
    let binary = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return Err(DecodeError::Unknown("copy format")),
    };
    let columns = reader.count()?;
    for _ in 0..columns {
        reader.i16()?;
    }
    reader.finish()?;
    Ok(CopyResponse { binary, columns })
}

/// One field of an ErrorResponse or NoticeResponse: its code and its text.
pub type ErrorField<'a> = (u8, &'a [u8]);

/// Decodes ErrorResponse and NoticeResponse.
pub fn error_fields(body: &[u8]) -> Result<Vec<ErrorField<'_>>, DecodeError> {
    let mut reader = Reader::new(body);
    let mut fields = Vec::with_capacity(8);
    loop {
        match reader.u8()? {
            0 => break,
            code => fields.push((code, reader.cstr()?)),
        }
    }
    reader.finish()?;
    Ok(fields)
}
