//! Messages that the gateway itself writes.

use bytes::{BufMut, BytesMut};

/// How bad an [`error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The command ends, the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    fn text(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// What an ErrorResponse of the gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorText {
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// The primary message.
    pub message: alloc::string::String,
    /// What to do, or empty.
    pub hint: alloc::string::String,
    /// Character position in the statement from 1, or 0.
    pub position: usize,
}

impl ErrorText {
    /// A code and a message, without hint or position.
    pub fn new(code: &'static str, message: &str) -> Self {
        Self {
            code,
            message: message.into(),
            hint: alloc::string::String::new(),
            position: 0,
        }
    }
}

/// Writes a whole message: `kind`, the length, and what `body` writes.
pub fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - at).unwrap_or(i32::MAX);
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes a string and its zero. A zero inside would end it early, so it is left out.
pub fn cstr(out: &mut BytesMut, text: &[u8]) {
    out.extend(text.iter().filter(|&&byte| byte != 0));
    out.put_u8(0);
}

fn field(out: &mut BytesMut, code: u8, text: &str) {
    if !text.is_empty() {
        out.put_u8(code);
        cstr(out, text.as_bytes());
    }
}

/// ErrorResponse.
pub fn error(out: &mut BytesMut, severity: Severity, error: &ErrorText) {
    message(out, b'E', |out| {
        field(out, b'S', severity.text());
        field(out, b'V', severity.text());
        field(out, b'C', error.code);
        field(out, b'M', &error.message);
        field(out, b'H', &error.hint);
        if error.position > 0 {
            field(out, b'P', &alloc::format!("{}", error.position));
        }
        out.put_u8(0);
    });
}

/// NoticeResponse of severity NOTICE.
pub fn notice(out: &mut BytesMut, text: &str) {
    message(out, b'N', |out| {
        field(out, b'S', "NOTICE");
        field(out, b'V', "NOTICE");
        field(out, b'C', "00000");
        field(out, b'M', text);
        out.put_u8(0);
    });
}

/// NegotiateProtocolVersion: the minor version of protocol 3 that is spoken, and extensions that are
/// not known.
pub fn negotiate_protocol_version(out: &mut BytesMut, minor: u16, extensions: &[&[u8]]) {
    message(out, b'v', |out| {
        out.put_u16(3);
        out.put_u16(minor);
        out.put_u32(u32::try_from(extensions.len()).unwrap_or(u32::MAX));
        for name in extensions {
            cstr(out, name);
        }
    });
}

/// Query.
pub fn query(out: &mut BytesMut, text: &str) {
    message(out, b'Q', |out| cstr(out, text.as_bytes()));
}

/// Parse of the statement `name`.
pub fn parse(out: &mut BytesMut, name: &str, text: &str) {
    message(out, b'P', |out| {
        cstr(out, name.as_bytes());
        cstr(out, text.as_bytes());
        out.put_i16(0);
    });
}

/// Describe of a portal.
pub fn describe_portal(out: &mut BytesMut, portal: &[u8]) {
    message(out, b'D', |out| {
        out.put_u8(b'P');
        cstr(out, portal);
    });
}

/// Flush.
pub fn flush(out: &mut BytesMut) {
    message(out, b'H', |_| {});
}
