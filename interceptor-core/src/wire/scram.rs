//! SCRAM's four messages (RFC 5802, RFC 7677): what a client and a server prove to each other with.
//!
//! It owns how they look. What they prove is not its matter. Everything here is text of a peer that has
//! proved nothing yet, so that no error repeats any of it.
//!
//! ```text
//!  client-first   n,,n=user,r=NONCE                      the part up to the second comma is GS2's header
//!  server-first   r=NONCE+NONCE,s=SALT,i=4096
//!  client-final   c=biws,r=NONCE+NONCE,p=PROOF
//!  server-final   v=SIGNATURE
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::DecodeError;

/// Bytes of a nonce, beyond which it is no nonce.
const NONCE_BYTES_MAX: usize = 512;
/// Bytes of a salt, decoded.
const SALT_BYTES_MAX: usize = 1024;

/// What the client says about binding the proof to the encrypted channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// `n`: the client cannot.
    Unable,
    /// `y`: the client could, and believes that the server cannot.
    Unasked,
    /// `p=tls-server-end-point`: the proof is bound.
    EndPoint,
}

/// The client's first message.
pub struct ClientFirst<'a> {
    /// GS2's header, with its last comma.
    pub header: &'a str,
    /// What the header says.
    pub binding: ChannelBinding,
    /// The message without the header.
    pub bare: &'a str,
    /// The client's nonce.
    pub nonce: &'a str,
}

/// The server's first message.
pub struct ServerFirst<'a> {
    /// Both nonces.
    pub nonce: &'a str,
    /// The salt of the password.
    pub salt: Vec<u8>,
    /// How often the password is hashed.
    pub iterations: u32,
}

/// The client's last message.
pub struct ClientFinal<'a> {
    /// GS2's header, with the data of the channel where the proof is bound.
    pub binding: Vec<u8>,
    /// Both nonces.
    pub nonce: &'a str,
    /// The proof.
    pub proof: [u8; 32],
    /// The message up to the proof: the proof is of this, too.
    pub without_proof: &'a str,
}

/// The server's last message.
pub enum ServerFinal {
    /// Its signature.
    Signature([u8; 32]),
    /// An error in its stead.
    Error,
}

/// Decodes what GS2's header of a first message says, and nothing else: all that a relay needs.
pub fn channel_binding(message: &[u8]) -> Result<ChannelBinding, DecodeError> {
    let message = text(message)?;
    let (flag, _) = message.split_once(',').ok_or(DecodeError::Short)?;
    binding(flag)
}

/// Decodes the client's first message.
pub fn client_first(message: &[u8]) -> Result<ClientFirst<'_>, DecodeError> {
    let message = text(message)?;
    let (flag, rest) = message.split_once(',').ok_or(DecodeError::Short)?;
    let (other_user, bare) = rest.split_once(',').ok_or(DecodeError::Short)?;
    if !other_user.is_empty() {
        return Err(DecodeError::Unknown("SCRAM authorization identity"));
    }
    let mut attributes = bare.split(',');
    // PostgreSQL takes the user of the startup packet; what stands here is not looked at.
    attribute(attributes.next(), "n=")?;
    let nonce = nonce(attributes.next())?;
    let header_bytes = message.len() - bare.len();
    Ok(ClientFirst {
        header: message.get(..header_bytes).unwrap_or_default(),
        binding: binding(flag)?,
        bare,
        nonce,
    })
}

/// Decodes the server's first message.
pub fn server_first(message: &[u8]) -> Result<ServerFirst<'_>, DecodeError> {
    let mut attributes = text(message)?.split(',');
    let nonce = nonce(attributes.next())?;
    let salt = decode(attribute(attributes.next(), "s=")?)?;
    let iterations = attribute(attributes.next(), "i=")?;
    let digits = !iterations.is_empty() && iterations.bytes().all(|byte| byte.is_ascii_digit());
    let iterations: Option<u32> = digits.then(|| iterations.parse().ok()).flatten();
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(DecodeError::Unknown("SCRAM salt"));
    }
    Ok(ServerFirst {
        nonce,
        salt,
        iterations: iterations.ok_or(DecodeError::Unknown("SCRAM iterations"))?,
    })
}

/// Decodes the client's last message.
pub fn client_final(message: &[u8]) -> Result<ClientFinal<'_>, DecodeError> {
    let message = text(message)?;
    // The proof is the last attribute.
    let (without_proof, proof) = message.rsplit_once(",p=").ok_or(DecodeError::Short)?;
    let mut attributes = without_proof.split(',');
    let binding = decode(attribute(attributes.next(), "c=")?)?;
    let nonce = nonce(attributes.next())?;
    let proof = decode(proof)?.try_into();
    Ok(ClientFinal {
        binding,
        nonce,
        proof: proof.map_err(|_| DecodeError::Unknown("SCRAM proof"))?,
        without_proof,
    })
}

/// Decodes the server's last message.
pub fn server_final(message: &[u8]) -> Result<ServerFinal, DecodeError> {
    let message = text(message)?;
    if message.starts_with("e=") {
        return Ok(ServerFinal::Error);
    }
    let signature = message.split(',').next();
    let signature = decode(attribute(signature, "v=")?)?.try_into();
    let signature = signature.map_err(|_| DecodeError::Unknown("SCRAM signature"))?;
    Ok(ServerFinal::Signature(signature))
}

/// Base64, as SCRAM has it.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Base64 back to bytes.
pub fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let bytes = STANDARD.decode(text);
    bytes.map_err(|_| DecodeError::Unknown("SCRAM base64"))
}

fn text(message: &[u8]) -> Result<&str, DecodeError> {
    core::str::from_utf8(message).map_err(|_| DecodeError::Unknown("SCRAM text"))
}

fn binding(flag: &str) -> Result<ChannelBinding, DecodeError> {
    match flag {
        "n" => Ok(ChannelBinding::Unable),
        "y" => Ok(ChannelBinding::Unasked),
        "p=tls-server-end-point" => Ok(ChannelBinding::EndPoint),
        _ => Err(DecodeError::Unknown("SCRAM channel binding")),
    }
}

fn attribute<'a>(attribute: Option<&'a str>, name: &str) -> Result<&'a str, DecodeError> {
    let attribute = attribute.ok_or(DecodeError::Short)?;
    let value = attribute.strip_prefix(name);
    // An extension that has to be understood (`m=`) is not.
    value.ok_or(DecodeError::Unknown("SCRAM attribute"))
}

fn nonce(found: Option<&str>) -> Result<&str, DecodeError> {
    let nonce = attribute(found, "r=")?;
    let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    match printable && (1..=NONCE_BYTES_MAX).contains(&nonce.len()) {
        true => Ok(nonce),
        false => Err(DecodeError::Unknown("SCRAM nonce")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_rfc_7677() {
        let first = client_first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.header, "n,,");
        assert_eq!(first.bare, "n=user,r=rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first.nonce, "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first.binding, ChannelBinding::Unable);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server = alloc::format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let server = server_first(server.as_bytes()).unwrap();
        assert_eq!((server.nonce, server.iterations), (nonce, 4096));
        assert_eq!(server.salt.len(), 16);
        let last =
            alloc::format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let last = client_final(last.as_bytes()).unwrap();
        assert_eq!(last.binding, b"n,,");
        assert_eq!(last.without_proof, alloc::format!("c=biws,r={nonce}"));
        let signature = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(matches!(
            server_final(signature),
            Ok(ServerFinal::Signature(_))
        ));
        assert!(matches!(
            server_final(b"e=invalid-proof"),
            Ok(ServerFinal::Error)
        ));
    }

    #[test]
    fn headers() {
        for (message, expected) in [
            ("y,,n=,r=abc", ChannelBinding::Unasked),
            ("p=tls-server-end-point,,n=,r=abc", ChannelBinding::EndPoint),
        ] {
            assert_eq!(channel_binding(message.as_bytes()), Ok(expected));
            let first = client_first(message.as_bytes()).unwrap();
            assert_eq!(first.binding, expected);
            assert_eq!(alloc::format!("{}{}", first.header, first.bare), message);
        }
    }

    #[test]
    fn what_is_no_message() {
        for message in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=",
            "n,,n=,r=",
            "n,,n=,r=a b",
            "n,,m=x,n=,r=abc",
            "n,a=other,n=,r=abc",
            "p=tls-unique,,n=,r=abc",
            "q,,n=,r=abc",
        ] {
            assert!(client_first(message.as_bytes()).is_err(), "{message}");
        }
        for message in [
            "r=a,s=,i=4096",
            "r=a,s=YQ==,i=-1",
            "r=a,s=YQ==,i=",
            "r=a,s=YQ==,i=4294967296",
            "r=a,s=Y,i=1",
            "s=YQ==,r=a,i=1",
            "m=x,r=a,s=YQ==,i=1",
        ] {
            assert!(server_first(message.as_bytes()).is_err(), "{message}");
        }
        for message in [
            "c=biws,r=a",
            "c=biws,r=a,p=",
            "c=biws,r=a,p=YQ==",
            "r=a,c=biws,p=YQ==",
        ] {
            assert!(client_final(message.as_bytes()).is_err(), "{message}");
        }
        assert!(server_final(b"v=YQ==").is_err());
        assert!(client_first(b"n,,n=\xff,r=abc").is_err());
        let long = alloc::format!("n,,n=,r={}", "x".repeat(NONCE_BYTES_MAX + 1));
        assert!(client_first(long.as_bytes()).is_err());
    }
}
