//! A cursor over a peer's bytes that cannot overrun, in network byte order.

/// Why bytes from a peer could not be understood. Carries no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ended inside a field.
    #[error("the message ends inside a field")]
    Short,
    /// Bytes were left over behind the last field.
    #[error("{0} bytes are left over behind the last field")]
    Trailing(usize),
    /// A string had no terminating zero.
    #[error("a string has no terminating zero")]
    Unterminated,
    /// A count or length was negative.
    #[error("a count or length is negative")]
    Negative,
    /// A field held a value that the protocol does not know.
    #[error("field `{0}` holds a value that the protocol does not know")]
    Unknown(&'static str),
}

/// A cursor over one message's body.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit integer.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    /// A 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned 32-bit integer, such as an object id.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 16-bit count. PostgreSQL reads it unsigned for parameters and columns (up to 65,535).
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    /// A string up to its zero, which is consumed and not returned.
    pub fn cstr(&mut self) -> Result<&'a [u8], DecodeError> {
        let end = memchr::memchr(0, self.rest).ok_or(DecodeError::Unterminated)?;
        let text = self.bytes(end)?;
        self.u8()?;
        Ok(text)
    }

    /// A value with a 32-bit length before it; −1 is NULL.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| DecodeError::Negative)?;
                self.bytes(length).map(Some)
            }
        }
    }

    /// Refuses bytes that are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
