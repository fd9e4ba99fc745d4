//! What an attempt is told, and what it tells.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

/// What the row says about the attempt.
pub(crate) struct Parameters(Value);

impl Parameters {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        value
            .is_object()
            .then_some(Self(value))
            .ok_or_else(|| anyhow!("not an object: {text}"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        self.0
            .get(key)
            .and_then(Value::as_str)
            .with_context(|| format!("the attempt needs a text {key:?}"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<u64> {
        self.0
            .get(key)
            .and_then(Value::as_u64)
            .with_context(|| format!("the attempt needs a number {key:?}"))
    }

    pub(crate) fn address(&self, key: &str) -> Result<IpAddr> {
        Ok(self.text(key)?.parse()?)
    }

    pub(crate) fn port(&self) -> Result<u16> {
        Ok(u16::try_from(self.number("port")?)?)
    }

    /// Where the attempt wants to get.
    pub(crate) fn target(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.address("target")?, self.port()?))
    }

    pub(crate) fn path(&self, key: &str) -> Result<PathBuf> {
        Ok(self.text(key)?.into())
    }

    /// A hardware address.
    pub(crate) fn hardware(&self, key: &str) -> Result<[u8; 6]> {
        let text = self.text(key)?;
        let bytes: Vec<u8> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect::<Result<_, _>>()?;
        bytes
            .try_into()
            .map_err(|_| anyhow!("{text} is no hardware address"))
    }

    /// The bytes by which the witness knows the attempt wherever they turn up.
    pub(crate) fn token(&self) -> Result<Vec<u8>> {
        Ok(token(self.port()?))
    }

    pub(crate) fn is(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| value == true)
    }
}

const TOKEN_BEGIN: &[u8] = b"icpt";
const TOKEN_END: &[u8] = b"tkn.";

/// The token of the attempt on `port`. To a server of PostgreSQL it is a message of 1.7 GB.
pub(crate) fn token(port: u16) -> Vec<u8> {
    let digits = format!("{port:05}");
    [TOKEN_BEGIN, digits.as_bytes(), TOKEN_END].concat()
}

/// The port of the first token in `bytes`.
pub(crate) fn find_token(bytes: &[u8]) -> Option<u16> {
    let length = token(0).len();
    bytes.windows(length).find_map(|window| {
        let digits = window.strip_prefix(TOKEN_BEGIN)?.strip_suffix(TOKEN_END)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// What the attempt saw.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// A connection was there and somebody answered or closed it in order.
    pub(crate) connected: bool,
    /// What the kernel or the peer said, for people.
    pub(crate) said: String,
    /// The kernel has no such protocol.
    pub(crate) absent: bool,
    /// What the attempt got hold of without the target, such as a descriptor of the proxy.
    pub(crate) effect: Option<String>,
}

impl Report {
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self {
            said: text.into(),
            ..Self::default()
        }
    }

    pub(crate) fn effect(text: impl Into<String>) -> Self {
        Self {
            effect: Some(text.into()),
            ..Self::default()
        }
    }

    pub(crate) fn refused(error: &io::Error) -> Self {
        let code = error.raw_os_error().unwrap_or_default();
        Self {
            said: name_of(error),
            absent: [
                libc::EPROTONOSUPPORT,
                libc::EAFNOSUPPORT,
                libc::ESOCKTNOSUPPORT,
                libc::ENOPROTOOPT,
            ]
            .contains(&code),
            ..Self::default()
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "connected": self.connected,
            "said": self.said,
            "absent": self.absent,
            "effect": self.effect,
        })
    }
}

/// The errno's name, as manual pages have it.
pub(crate) fn name_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{:?}", nix::errno::Errno::from_raw(code)),
        None => format!("{:?}", error.kind()),
    }
}
