//! Framing: where a message starts and ends.

/// Bytes of type and length before a message's body.
pub const HEADER_BYTES: usize = 5;

/// A message's type and whole size, header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub kind: u8,
    /// Bytes of the whole message: type, length and body.
    pub size: usize,
}

/// Why a header cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is smaller than itself, or negative.
    #[error("a message of type {} has an impossible length of {length}", kind.escape_ascii())]
    Length {
        /// The type byte.
        kind: u8,
        /// What the length field said.
        length: i32,
    },
    /// The message is larger than the limit for its kind.
    #[error("a message of type {} has {size} bytes, more than the limit of {limit}", kind.escape_ascii())]
    TooLarge {
        /// The type byte.
        kind: u8,
        /// Bytes of the whole message.
        size: usize,
        /// The limit that it passes.
        limit: usize,
    },
}

/// Reads the header at the start of `buffer`; `None` until five bytes are there.
pub fn header(buffer: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(&[kind, a, b, c, d]) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(bytes) if bytes >= 4 => Ok(Some(Header {
            kind,
            size: bytes + 1,
        })),
        _ => Err(FrameError::Length { kind, length }),
    }
}
