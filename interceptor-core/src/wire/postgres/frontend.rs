//! What a client sends once its session runs. Each decoder takes a message's body.

use alloc::vec::Vec;

use crate::wire::{DecodeError, Reader};

/// Message types that a client may send in a running session.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Query: one string of statements.
pub fn query(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.finish()?;
    Ok(text)
}

/// Parse.
pub struct Parse<'a> {
    /// The prepared statement's name; empty for the unnamed one.
    pub statement: &'a [u8],
    /// Its text.
    pub text: &'a [u8],
}

/// Decodes Parse.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let statement = reader.cstr()?;
    let text = reader.cstr()?;
    for _ in 0..reader.count()? {
        reader.u32()?;
    }
    reader.finish()?;
    Ok(Parse { statement, text })
}

/// One parameter of Bind.
pub struct Parameter<'a> {
    /// It is in binary format.
    pub binary: bool,
    /// Its bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// Bind.
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement's name.
    pub statement: &'a [u8],
    /// The parameters.
    pub parameters: Vec<Parameter<'a>>,
}

/// Decodes Bind.
pub fn bind(body: &[u8]) -> Result<Bind<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    let statement = reader.cstr()?;
    let formats = formats(&mut reader)?;
    let count = reader.count()?;
    // A count is no promise: the vector grows as values are really there.
    let mut parameters = Vec::with_capacity(count.min(64));
    for index in 0..count {
        let binary = match formats.as_slice() {
            [] => false,
            [all] => *all,
            each => *each.get(index).ok_or(DecodeError::Short)?,
        };
        parameters.push(Parameter {
            binary,
            value: reader.value()?,
        });
    }
    self::formats(&mut reader)?;
    reader.finish()?;
    Ok(Bind {
        portal,
        statement,
        parameters,
    })
}

fn formats(reader: &mut Reader<'_>) -> Result<Vec<bool>, DecodeError> {
    let count = reader.count()?;
    let mut formats = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        formats.push(match reader.i16()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Unknown("format")),
        });
    }
    Ok(formats)
}

/// What Describe and Close speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// Decodes Describe and Close: the object's kind and name.
pub fn object(body: &[u8]) -> Result<(Object, &[u8]), DecodeError> {
    let mut reader = Reader::new(body);
    let object = match reader.u8()? {
        b'S' => Object::Statement,
        b'P' => Object::Portal,
        _ => return Err(DecodeError::Unknown("object")),
    };
    let name = reader.cstr()?;
    reader.finish()?;
    Ok((object, name))
}

/// Decodes Execute: the portal's name.
pub fn execute(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    reader.i32()?;
    reader.finish()?;
    Ok(portal)
}

/// Decodes a message without a body: Sync, Flush, CopyDone, Terminate.
pub fn empty(body: &[u8]) -> Result<(), DecodeError> {
    Reader::new(body).finish()
}

/// Decodes CopyFail; the client's reason is for the server.
pub fn copy_fail(body: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    reader.cstr()?;
    reader.finish()
}
