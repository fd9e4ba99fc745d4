//! SCRAM-SHA-256 from both ends: what a server keeps of a password, and the two exchanges that prove
//! that somebody knows it (RFC 5802, RFC 7677).
//!
//! It owns the mathematics. It must not know who proves what to whom, nor where secrets are kept. None
//! of its types prints itself.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::wire::DecodeError;
use crate::wire::scram::{self, ChannelBinding, ServerFinal};

/// The fewest and the most rounds of hashing that are done, or asked of a client. PostgreSQL's default is
/// the least; a server that asks for more than the most would keep a processor busy for a second.
pub const ITERATIONS: core::ops::RangeInclusive<u32> = ITERATIONS_MIN..=ITERATIONS_MAX;
const ITERATIONS_MIN: u32 = 4_096;
const ITERATIONS_MAX: u32 = 1_000_000;

/// Random bytes of one nonce, as PostgreSQL has it.
pub const NONCE_BYTES: usize = 18;
/// Bytes of the salt that a user is shown who is not known, as PostgreSQL has it.
const MOCK_SALT_BYTES: usize = 16;

/// A key, which is wiped when it is dropped.
pub(super) type Key = Zeroizing<[u8; 32]>;

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key that is shorter than a block is one that ends in zeros.
    let mut block = [0; 64];
    if let Some(start) = block.first_chunk_mut::<32>() {
        *start = *key;
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    block.zeroize();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut out = *left;
    for (byte, other) in out.iter_mut().zip(right) {
        *byte ^= other;
    }
    out
}

/// What a server keeps of a password (`pg_authid.rolpassword`). Who has it can prove to a client that he
/// is the server, and not to a server that he is the client.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$4096:SALT$STORED_KEY:SERVER_KEY`. `None` if it is nothing of that kind, or
    /// its rounds are outside [`ITERATIONS`].
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (strength, keys) = rest.split_once('$')?;
        let (iterations, salt) = strength.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text| scram::decode(text).ok()?.try_into().ok();
        let salt = scram::decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self {
            iterations: iterations
                .parse()
                .ok()
                .filter(|rounds| ITERATIONS.contains(rounds))?,
            salt,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// What a user is shown who is not known: the same salt each time, and as many rounds as `like`, so
    /// that nobody can tell who is known. No password fits.
    pub fn mock(secret: &[u8; 32], user: &str, like: Option<&Self>) -> Self {
        let part = |what: &[u8]| hmac(secret, &[what, b"\0", user.as_bytes()]);
        let bytes = like.map_or(MOCK_SALT_BYTES, |like| like.salt.len());
        let salt = (0_u8..).flat_map(|number| part(&[b's', number]));
        Self {
            iterations: like.map_or(ITERATIONS_MIN, |like| like.iterations),
            salt: salt.take(bytes).collect(),
            stored_key: part(b"stored key"),
            server_key: part(b"server key"),
        }
    }
}

/// What proves to a server that somebody knows the password.
pub struct Keys {
    pub(super) client: Key,
    pub(super) server: Key,
}

impl Keys {
    /// No password's.
    pub(super) fn of_nobody() -> Self {
        Self {
            client: Zeroizing::new([0; 32]),
            server: Zeroizing::new([0; 32]),
        }
    }
}

/// Hashing a password into [`Keys`]: slow by design, so that it is not done where others wait.
pub struct Derivation {
    pub(super) password: Zeroizing<Vec<u8>>,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl Derivation {
    /// Does it.
    pub fn run(self) -> Keys {
        let mut salted: Key = Zeroizing::new([0; 32]);
        let prepared = prepared(&self.password);
        pbkdf2::pbkdf2_hmac::<Sha256>(&prepared, &self.salt, self.iterations, &mut *salted);
        Keys {
            client: Zeroizing::new(hmac(&salted, &[b"Client Key"])),
            server: Zeroizing::new(hmac(&salted, &[b"Server Key"])),
        }
    }
}

/// The password as SASLprep has it; as PostgreSQL does, as it is where SASLprep cannot take it.
fn prepared(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = core::str::from_utf8(password).ok();
    let text = text.and_then(|text| stringprep::saslprep(text).ok());
    Zeroizing::new(match text {
        Some(text) => text.into_owned().into_bytes(),
        None => password.to_vec(),
    })
}

/// Why somebody's proof does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    #[error("a message of SCRAM is malformed: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the nonces of SCRAM do not fit together")]
    Nonce,
    #[error("the message of SCRAM does not fit its mechanism")]
    Mechanism,
    /// The client could bind its proof to the channel, and was made to believe that the server cannot.
    #[error("the client was kept from channel binding")]
    Downgrade,
    #[error("the proof is bound to another channel")]
    Channel,
    #[error("the password is wrong")]
    Proof,
    #[error(
        "it wants {0} iterations of SCRAM, which is outside {ITERATIONS_MIN} to {ITERATIONS_MAX}"
    )]
    Iterations(u32),
    #[error("it does not know the password itself")]
    Impostor,
    #[error("it ended SCRAM with an error")]
    Refused,
}

fn message_of(parts: [&str; 3]) -> String {
    parts.join(",")
}

/// GSS's header and the data of the channel, as the last message has them.
fn binding_data(header: &str, end_point: Option<&[u8]>) -> Vec<u8> {
    [header.as_bytes(), end_point.unwrap_or_default()].concat()
}

/// The server's end of an exchange, before the client's first message.
pub(super) struct Challenger {
    verifier: Verifier,
    nonce: String,
    /// Of the certificate that the client was shown, if its leg is encrypted.
    end_point: Option<Vec<u8>>,
}

/// The same, before the last one.
pub(super) struct Challenged {
    verifier: Verifier,
    nonce: String,
    binding: Vec<u8>,
    /// Both first messages.
    said: String,
}

/// What is known of a client that knows the password.
pub(super) struct Proven {
    pub(super) keys: Keys,
    pub(super) server_final: String,
}

impl Challenger {
    pub(super) fn new(
        verifier: Verifier,
        random: &[u8; NONCE_BYTES],
        end_point: Option<Vec<u8>>,
    ) -> Self {
        Self {
            verifier,
            nonce: scram::encode(random),
            end_point,
        }
    }

    /// Channel binding is to be offered.
    pub(super) fn binds(&self) -> bool {
        self.end_point.is_some()
    }

    /// Takes the client's first message, and gives the server's.
    pub(super) fn first(
        self,
        bound: bool,
        message: &[u8],
    ) -> Result<(Challenged, String), ScramError> {
        let first = scram::client_first(message)?;
        let end_point = match (first.binding, bound) {
            (ChannelBinding::EndPoint, true) => self.end_point.as_deref(),
            (ChannelBinding::Unasked, false) if self.end_point.is_some() => {
                return Err(ScramError::Downgrade);
            }
            (ChannelBinding::Unable | ChannelBinding::Unasked, false) => None,
            _ => return Err(ScramError::Mechanism),
        };
        let nonce = format!("{}{}", first.nonce, self.nonce);
        let Verifier {
            salt, iterations, ..
        } = &self.verifier;
        let reply = format!("r={nonce},s={},i={iterations}", scram::encode(salt));
        let challenged = Challenged {
            binding: binding_data(first.header, end_point),
            said: format!("{},{reply}", first.bare),
            nonce,
            verifier: self.verifier,
        };
        Ok((challenged, reply))
    }
}

impl Challenged {
    /// Takes the client's last message. Whose proof is right, knows the password: what is recovered of it
    /// is as good as the password for a server that keeps the same verifier.
    pub(super) fn last(self, message: &[u8]) -> Result<Proven, ScramError> {
        let last = scram::client_final(message)?;
        if last.nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        if last.binding != self.binding {
            return Err(ScramError::Channel);
        }
        let said = format!("{},{}", self.said, last.without_proof);
        let signature = hmac(&self.verifier.stored_key, &[said.as_bytes()]);
        let client = Zeroizing::new(xor(&last.proof, &signature));
        if !bool::from(sha256(&*client).ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::Proof);
        }
        let own = hmac(&self.verifier.server_key, &[said.as_bytes()]);
        let server = Zeroizing::new(self.verifier.server_key);
        Ok(Proven {
            keys: Keys { client, server },
            server_final: format!("v={}", scram::encode(&own)),
        })
    }
}

/// The client's end of an exchange, before the server's first message.
pub(super) struct Prover {
    nonce: String,
    binding: Vec<u8>,
    header: &'static str,
}

/// The same, once it knows how the server hashes the password.
pub(super) struct Asked {
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
    /// All that was said, with the last message but its proof.
    said: String,
    without_proof: String,
}

/// The same, after the last message: the server has to prove itself.
pub(super) struct Awaiting {
    signature: [u8; 32],
}

impl Prover {
    /// `binding` is what is said of the channel; `end_point` the server's, where the proof is bound.
    pub(super) fn new(
        random: &[u8; NONCE_BYTES],
        binding: ChannelBinding,
        end_point: Option<&[u8]>,
    ) -> Self {
        let header = match binding {
            ChannelBinding::Unable => "n,,",
            ChannelBinding::Unasked => "y,,",
            ChannelBinding::EndPoint => "p=tls-server-end-point,,",
        };
        let end_point = end_point.filter(|_| binding == ChannelBinding::EndPoint);
        Self {
            nonce: scram::encode(random),
            binding: binding_data(header, end_point),
            header,
        }
    }

    fn bare(&self) -> String {
        // PostgreSQL takes the user of the startup packet.
        format!("n=,r={}", self.nonce)
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("{}{}", self.header, self.bare())
    }

    /// Takes the server's first message.
    pub(super) fn asked(self, message: &[u8]) -> Result<Asked, ScramError> {
        let first = scram::server_first(message)?;
        let added = first.nonce.strip_prefix(self.nonce.as_str());
        if added.is_none_or(str::is_empty) {
            return Err(ScramError::Nonce);
        }
        if !ITERATIONS.contains(&first.iterations) {
            return Err(ScramError::Iterations(first.iterations));
        }
        let without_proof = format!("c={},r={}", scram::encode(&self.binding), first.nonce);
        let reply = core::str::from_utf8(message).unwrap_or_default();
        Ok(Asked {
            said: message_of([&self.bare(), reply, &without_proof]),
            without_proof,
            salt: first.salt,
            iterations: first.iterations,
        })
    }
}

impl Asked {
    /// The last message.
    pub(super) fn prove(self, keys: &Keys) -> (Awaiting, Zeroizing<String>) {
        let stored_key = sha256(&*keys.client);
        let proof = xor(&keys.client, &hmac(&stored_key, &[self.said.as_bytes()]));
        let last = format!("{},p={}", self.without_proof, scram::encode(&proof));
        let signature = hmac(&keys.server, &[self.said.as_bytes()]);
        (Awaiting { signature }, Zeroizing::new(last))
    }
}

impl Awaiting {
    /// Takes the server's last message: it has to know the password, too.
    pub(super) fn verify(self, message: &[u8]) -> Result<(), ScramError> {
        match scram::server_final(message)? {
            ServerFinal::Error => Err(ScramError::Refused),
            ServerFinal::Signature(found) if bool::from(found.ct_eq(&self.signature)) => Ok(()),
            ServerFinal::Signature(_) => Err(ScramError::Impostor),
        }
    }
}

#[cfg(test)]
mod tests;
