//! PostgreSQL's protocol by hand, for what no driver would send: garbage, halves, odd orders.
//!
//! It logs in as the role `wire`, which the server lets in without a password. It is a client's
//! view only, and trusts what it reads as little as any client does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::postgres::DATABASE;

/// Longer replies than any test asks for are a fault of whoever sent them.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message's type byte.
    pub tag: u8,
    /// What follows its length.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text, for assertions.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field of an ErrorResponse or NoticeResponse: `C` is the code, `M` the message.
    pub fn field(&self, code: u8) -> Option<String> {
        self.body
            .split(|byte| *byte == 0)
            .filter_map(|field| field.split_first())
            .find(|(first, _)| **first == code)
            .map(|(_, text)| String::from_utf8_lossy(text).into_owned())
    }
}

/// A client connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Takes a fresh TCP connection. A reply that takes longer than ten seconds is a failure.
    pub fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sets how long to wait for a reply.
    pub fn limit(&self, limit: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(limit))?)
    }

    /// Logs in as `wire` and reads up to the first ReadyForQuery.
    pub fn log_in(&mut self) -> Result<Vec<Reply>> {
        self.send(&startup("wire", DATABASE))?;
        let replies = self.until(b'Z')?;
        if let Some(error) = replies.iter().find(|reply| reply.tag == b'E') {
            bail!("no session: {}", error.text());
        }
        Ok(replies)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the gateway closed")
    }

    /// The connection itself, for what is no whole reply.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Another handle on the same connection, for a second thread.
    pub fn split(&self) -> Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
        })
    }

    /// Reads one reply; `None` at the end of the stream.
    pub fn reply(&mut self) -> Result<Option<Reply>> {
        let mut tag = [0; 1];
        if self.stream.read(&mut tag).context("no reply")? == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        ensure!(
            (4..=MESSAGE_BYTES_MAX).contains(&length),
            "a reply of {length} bytes"
        );
        let mut body = vec![0; length.saturating_sub(4)];
        self.stream.read_exact(&mut body)?;
        let [tag] = tag;
        Ok(Some(Reply { tag, body }))
    }

    /// Reads up to and with the first reply of this type.
    pub fn until(&mut self, tag: u8) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        loop {
            let reply = self.reply()?.ok_or_else(|| {
                anyhow!("the stream ended before {:?}: {replies:?}", char::from(tag))
            })?;
            let last = reply.tag == tag;
            let fatal = reply.tag == b'E' && reply.field(b'S').as_deref() == Some("FATAL");
            replies.push(reply);
            if last || fatal {
                return Ok(replies);
            }
        }
    }

    /// Reads up to the end of the stream, whether closed or reset.
    pub fn until_closed(&mut self) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        loop {
            match self.reply() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => return Ok(replies),
                Err(error) if is_reset(&error) => return Ok(replies),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a simple query and reads all replies to it.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Reply>> {
        self.send(&query(sql))?;
        self.until(b'Z')
    }

    /// Sends a simple query and counts the rows (or COPY messages) of the answer without keeping
    /// any: the cheapest consumer there is, so that what is measured is the path.
    pub fn count(&mut self, sql: &str) -> Result<Counted> {
        self.send(&query(sql))?;
        self.count_rest()
            .map_err(|error| error.context(sql.to_owned()))
    }

    /// The same for the answer to a query that was sent before.
    pub fn count_rest(&mut self) -> Result<Counted> {
        let mut counted = Counted::default();
        let mut reader = Scanner::new(&mut self.stream);
        loop {
            let (tag, length) = reader.header()?;
            counted.bytes = counted.bytes.saturating_add(length).saturating_add(1);
            if tag == b'E' {
                let body = reader.take(length.saturating_sub(4))?;
                bail!("{}", String::from_utf8_lossy(&body));
            }
            reader.skip(length.saturating_sub(4))?;
            match tag {
                b'D' | b'd' => counted.rows = counted.rows.saturating_add(1),
                b'Z' => return Ok(counted),
                _ => {}
            }
        }
    }
}

/// What an answer held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// DataRow or CopyData messages.
    pub rows: u64,
    /// Bytes of all messages.
    pub bytes: usize,
}

/// Reads in large pieces and looks at headers only.
struct Scanner<'a> {
    stream: &'a mut TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Scanner<'a> {
    fn new(stream: &'a mut TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; 256 << 10],
            start: 0,
            end: 0,
        }
    }

    fn held(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = self.stream.read(free)?;
        ensure!(read > 0, "the stream ended in the middle of an answer");
        self.end = self.end.saturating_add(read);
        Ok(())
    }

    fn header(&mut self) -> Result<(u8, usize)> {
        loop {
            if let [tag, a, b, c, d, ..] = self.held() {
                let header = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
                self.start = self.start.saturating_add(5);
                return Ok((header.0, usize::try_from(header.1)?));
            }
            self.fill()?;
        }
    }

    fn skip(&mut self, mut bytes: usize) -> Result<()> {
        loop {
            let step = bytes.min(self.held().len());
            self.start = self.start.saturating_add(step);
            bytes = bytes.saturating_sub(step);
            if bytes == 0 {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        while self.held().len() < bytes.min(4096) {
            self.fill()?;
        }
        Ok(self.held().iter().copied().take(bytes).collect())
    }
}

/// The connection ended without a goodbye.
pub fn is_reset(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
    })
}

/// A message: type, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(length_of(body));
    bytes.extend(body);
    bytes
}

/// A StartupMessage of protocol 3.0.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", database] {
        body.extend(c_string(text));
    }
    body.push(0);
    let mut bytes = length_of(&body).to_vec();
    bytes.extend(body);
    bytes
}

/// A CancelRequest for the session whose BackendKeyData is `key`.
pub fn cancel(key: &Reply) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(&key.body);
    let mut bytes = length_of(&body).to_vec();
    bytes.extend(body);
    bytes
}

/// A simple Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &c_string(sql))
}

/// Parse of the unnamed statement, without parameter types.
pub fn parse(sql: &str) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(c_string(sql));
    body.extend([0, 0]);
    message(b'P', &body)
}

/// Bind of the unnamed statement to the unnamed portal, without parameters; all results in
/// binary or all in text.
pub fn bind(binary: bool) -> Vec<u8> {
    // portal "", statement "", no parameter formats, no parameters, one result format
    message(b'B', &[0, 0, 0, 0, 0, 0, 0, 1, 0, u8::from(binary)])
}

/// Describe of the unnamed portal.
pub fn describe() -> Vec<u8> {
    message(b'D', b"P\0")
}

/// Execute of the unnamed portal, all rows.
pub fn execute() -> Vec<u8> {
    message(b'E', &[0, 0, 0, 0, 0])
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// Parse, Bind, Describe and Execute of one statement, without Sync.
pub fn extended(sql: &str) -> Vec<u8> {
    [parse(sql), bind(false), describe(), execute()].concat()
}

fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The length word counts itself.
fn length_of(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len())
        .unwrap_or(u32::MAX)
        .saturating_add(4)
        .to_be_bytes()
}
