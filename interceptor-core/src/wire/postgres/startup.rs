//! What a client may send before anything else.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut as _, BytesMut};
use subtle::ConstantTimeEq as _;

use super::encode;
use crate::wire::{DecodeError, Reader};

/// PostgreSQL's own limit on a startup packet, in bytes (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The latest minor version of protocol 3 that is understood: 3.2.
pub const MINOR_MAX: u16 = 2;

/// How the names of extensions of the protocol begin.
const EXTENSION: &[u8] = b"_pq_.";

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// The secret that lets a client cancel its session's command: the process id and the key that
/// BackendKeyData carried. Never printed.
#[derive(Clone)]
pub struct CancelKey {
    /// The backend's process id.
    pub process_id: u32,
    /// 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Vec<u8>,
}

impl CancelKey {
    /// Whether it is the same key. How long that takes does not tell how much of the secret is right.
    pub fn is(&self, other: &Self) -> bool {
        let same = self.process_id == other.process_id;
        same & bool::from(self.secret.ct_eq(&other.secret))
    }
}

/// A first packet.
pub enum FirstPacket {
    /// The client asks for TLS.
    SslRequest,
    /// The client asks for GSSAPI encryption.
    GssEncRequest,
    /// This connection only cancels another one's command.
    CancelRequest(CancelKey),
    /// The client starts a session.
    Startup(Startup),
}

/// A StartupMessage.
#[derive(Default)]
pub struct Startup {
    /// Minor version: 0 for 3.0, 2 for 3.2.
    pub minor: u16,
    /// `user`.
    pub user: String,
    /// `database`; the user's name where none is given, as the server does.
    pub database: String,
    /// `application_name`, or empty.
    pub application: String,
    /// `replication` is present and not `false`.
    pub replication: bool,
    /// A parameter sets the role that the session acts as.
    pub sets_role: bool,
    /// Names of the extensions of the protocol that it asks for (`_pq_.…`).
    pub extensions: Vec<Vec<u8>>,
    /// What a parameter says of `search_path`.
    pub search_path: Begun,
}

/// What the parameters of a startup packet say of `search_path`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Begun {
    /// Nothing.
    #[default]
    Usual,
    /// This value.
    Set(Box<str>),
    /// Something that is not read here.
    Unclear,
}

/// Why a first packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length field is out of range.
    #[error("the startup packet's length of {0} is outside 8 to {STARTUP_BYTES_MAX}")]
    Length(i32),
    /// Another major version.
    #[error("protocol version {major}.{minor} is not supported: only 3.x is")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// A field could not be read.
    #[error("the startup packet is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// A parameter is not UTF-8.
    #[error("startup parameter `{0}` is not UTF-8")]
    Encoding(&'static str),
    /// No user name.
    #[error("the startup packet names no user")]
    NoUser,
    /// The same parameter twice: which one the server takes is not ours to guess.
    #[error("startup parameter `{0}` is given twice")]
    Repeated(&'static str),
}

/// The size of the packet at the start of `buffer`; `None` until its length is there.
pub fn packet_size(buffer: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(length) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(size) if (8..=STARTUP_BYTES_MAX).contains(&size) => Ok(Some(size)),
        _ => Err(StartupError::Length(length)),
    }
}

/// Decodes a whole first packet.
pub fn decode(packet: &[u8]) -> Result<FirstPacket, StartupError> {
    let mut reader = Reader::new(packet);
    reader.u32()?;
    let code = reader.u32()?;
    match code {
        SSL_REQUEST => reader
            .finish()
            .map(|()| FirstPacket::SslRequest)
            .map_err(Into::into),
        GSSENC_REQUEST => reader
            .finish()
            .map(|()| FirstPacket::GssEncRequest)
            .map_err(Into::into),
        CANCEL_REQUEST => cancel_request(reader),
        version => startup_message(version, reader).map(FirstPacket::Startup),
    }
}

fn cancel_request(mut reader: Reader<'_>) -> Result<FirstPacket, StartupError> {
    let process_id = reader.u32()?;
    let secret = reader.rest();
    if !(4..=256).contains(&secret.len()) {
        return Err(DecodeError::Unknown("cancel key").into());
    }
    Ok(FirstPacket::CancelRequest(CancelKey {
        process_id,
        secret: secret.to_vec(),
    }))
}

fn startup_message(version: u32, mut reader: Reader<'_>) -> Result<Startup, StartupError> {
    let (major, minor) = ((version >> 16) as u16, (version & 0xffff) as u16);
    if major != 3 {
        return Err(StartupError::Version { major, minor });
    }
    let mut startup = Startup {
        minor,
        ..Startup::default()
    };
    let (mut user, mut database, mut application, mut replication) = (None, None, None, None);
    loop {
        let name = reader.cstr()?;
        if name.is_empty() {
            break;
        }
        let value = reader.cstr()?;
        match name {
            b"user" => set(&mut user, "user", value)?,
            b"database" => set(&mut database, "database", value)?,
            b"application_name" => set(&mut application, "application_name", value)?,
            b"replication" => set(&mut replication, "replication", value)?,
            _ if name.starts_with(EXTENSION) => startup.extensions.push(name.to_vec()),
            _ => {
                startup.sets_role |= sets_role(name, value);
                startup.search_path.read(name, value);
            }
        }
    }
    reader.finish()?;
    startup.user = user
        .filter(|name: &String| !name.is_empty())
        .ok_or(StartupError::NoUser)?;
    startup.database = database
        .filter(|name: &String| !name.is_empty())
        .unwrap_or_else(|| startup.user.clone());
    startup.application = application.unwrap_or_default();
    startup.replication = replication.is_some_and(|value: String| !is_off(&value));
    Ok(startup)
}

/// The server reads the value as `false`: in any case, and by its first letters. To take it for
/// replication would let a text pass that the server reads as SQL.
fn is_off(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let starts = |word: &str, least: usize| value.len() >= least && word.starts_with(&*value);
    value == "0" || starts("false", 1) || starts("no", 1) || starts("off", 2)
}

/// A StartupMessage without extensions of the protocol, for this minor version. `packet` is one that
/// [`decode`] took.
pub fn understood(packet: &[u8], minor: u16) -> BytesMut {
    let mut reader = Reader::new(packet);
    let _ = (reader.u32(), reader.u32());
    let mut kept = BytesMut::with_capacity(packet.len());
    kept.put_u32(0);
    kept.put_u16(3);
    kept.put_u16(minor);
    while let (Ok(name), Ok(value)) = (reader.cstr(), reader.cstr()) {
        if !name.starts_with(EXTENSION) {
            kept.put_slice(name);
            kept.put_u8(0);
            kept.put_slice(value);
            kept.put_u8(0);
        }
    }
    kept.put_u8(0);
    let length = u32::try_from(kept.len()).unwrap_or(u32::MAX);
    if let Some(place) = kept.first_chunk_mut::<4>() {
        *place = length.to_be_bytes();
    }
    kept
}

impl Begun {
    fn read(&mut self, name: &[u8], value: &[u8]) {
        let options = name.eq_ignore_ascii_case(b"options");
        let said = if name.eq_ignore_ascii_case(b"search_path") {
            core::str::from_utf8(value).ok().map(Into::into)
        } else if options && names_path(value) {
            core::str::from_utf8(value).ok().and_then(path_option)
        } else if options && *self != Self::Usual {
            // Of options given twice the server takes the last.
            None
        } else {
            return;
        };
        *self = match (said, &self) {
            (Some(said), Self::Usual) => Self::Set(said),
            _ => Self::Unclear,
        };
    }
}

/// The options in lower case, without the backslashes that the server takes away when it splits them.
fn unescaped(options: &[u8]) -> Vec<u8> {
    let mut text = options.to_ascii_lowercase();
    text.retain(|byte| *byte != b'\\');
    text
}

fn names_path(options: &[u8]) -> bool {
    let text = unescaped(options);
    [&b"search_path"[..], b"search-path"]
        .iter()
        .any(|word| text.windows(word.len()).any(|part| part == *word))
}

/// The value in `-c search_path=…`, where the options say nothing that is harder to read: the server
/// splits them at white space that has no backslash before it, a vertical tab too.
fn path_option(options: &str) -> Option<Box<str>> {
    if options.contains(['\\', '\u{b}']) {
        return None;
    }
    let mut words = options.split_ascii_whitespace();
    let mut found = None;
    while let Some(word) = words.next() {
        let setting = match (word, word.strip_prefix("--")) {
            ("-c", _) => words.next()?,
            (_, Some(setting)) => setting,
            _ => word.strip_prefix("-c")?,
        };
        let (name, value) = setting.split_once('=')?;
        if name.replace('-', "_").eq_ignore_ascii_case("search_path")
            && found.replace(value.into()).is_some()
        {
            return None;
        }
    }
    found
}

/// A setting of the role, by itself or among the server's command-line options, whose syntax has
/// many ways to say it (`-c role=x`, `--role=x`): the word is enough.
fn sets_role(name: &[u8], value: &[u8]) -> bool {
    let is_role = |text: &[u8]| {
        let text = unescaped(text);
        [
            &b"role"[..],
            b"session_authorization",
            b"session-authorization",
        ]
        .iter()
        .any(|word| text.windows(word.len()).any(|part| part == *word))
    };
    is_role(name) || (name.eq_ignore_ascii_case(b"options") && is_role(value))
}

fn set(slot: &mut Option<String>, name: &'static str, value: &[u8]) -> Result<(), StartupError> {
    if slot.is_some() {
        return Err(StartupError::Repeated(name));
    }
    let text = core::str::from_utf8(value).map_err(|_| StartupError::Encoding(name))?;
    *slot = Some(String::from(text));
    Ok(())
}

/// The same packet with another user. It names the database, whose default would be that user's name.
/// `None` if it would be too long.
pub fn with_user(packet: &[u8], user: &str, database: &str) -> Option<BytesMut> {
    let mut out = BytesMut::from(packet.get(..8)?);
    for (name, value) in [("user", user), ("database", database)] {
        encode::cstr(&mut out, name.as_bytes());
        encode::cstr(&mut out, value.as_bytes());
    }
    let mut reader = Reader::new(packet.get(8..)?);
    loop {
        match reader.cstr().ok()? {
            b"" => break,
            b"user" | b"database" => drop(reader.cstr()),
            name => {
                encode::cstr(&mut out, name);
                encode::cstr(&mut out, reader.cstr().ok()?);
            }
        }
    }
    out.put_u8(0);
    let size = u32::try_from(out.len()).ok()?;
    *out.first_chunk_mut::<4>()? = size.to_be_bytes();
    (out.len() <= STARTUP_BYTES_MAX).then_some(out)
}

/// An SSLRequest.
pub const SSL_REQUEST_PACKET: [u8; 8] = {
    let [a, b, c, d] = SSL_REQUEST.to_be_bytes();
    [0, 0, 0, 8, a, b, c, d]
};

/// A CancelRequest for `key`, to be sent on a connection of its own.
pub fn encode_cancel(key: &CancelKey) -> Vec<u8> {
    let size = 12 + key.secret.len();
    let mut packet = Vec::with_capacity(size);
    packet.extend_from_slice(&(size as u32).to_be_bytes());
    packet.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
    packet.extend_from_slice(&key.process_id.to_be_bytes());
    packet.extend_from_slice(&key.secret);
    packet
}
