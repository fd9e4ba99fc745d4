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
mod tests {
    use alloc::vec;

    use super::*;

    /// `ALTER ROLE … PASSWORD 'pencil'` with the salt of RFC 7677, as PostgreSQL would keep it; the keys
    /// follow from that RFC's own figures.
    fn pencil() -> (Keys, Verifier) {
        derived(b"pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", 4096)
    }

    fn derived(password: &[u8], salt: &str, iterations: u32) -> (Keys, Verifier) {
        let salt = scram::decode(salt).unwrap();
        let keys = Derivation {
            password: Zeroizing::new(password.to_vec()),
            salt: salt.clone(),
            iterations,
        }
        .run();
        let verifier = Verifier {
            iterations,
            salt,
            stored_key: sha256(&*keys.client),
            server_key: *keys.server,
        };
        (keys, verifier)
    }

    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    /// The exchange of RFC 7677, section 3, from the server's end.
    #[test]
    fn a_server_by_the_vectors_of_rfc_7677() {
        let (_, verifier) = pencil();
        let mut challenger = Challenger::new(verifier, &[0; NONCE_BYTES], None);
        challenger.nonce = SERVER_NONCE.into();
        let first = format!("n,,n=user,r={CLIENT_NONCE}");
        let (challenged, reply) = challenger.first(false, first.as_bytes()).unwrap();
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        assert_eq!(
            reply,
            format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
        );
        let last = format!("c=biws,r={nonce},p={PROOF}");
        let proven = challenged.last(last.as_bytes());
        let proven = proven.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(proven.server_final, SIGNATURE);
        assert_eq!(*proven.keys.client, *pencil().0.client);
    }

    /// The same from the client's end; the user is PostgreSQL's, so that the proof is another.
    #[test]
    fn a_client_meets_a_server() {
        let (keys, verifier) = pencil();
        for end_point in [None, Some(vec![7; 32])] {
            let binding = match end_point {
                None => ChannelBinding::Unable,
                Some(_) => ChannelBinding::EndPoint,
            };
            let prover = Prover::new(&[1; NONCE_BYTES], binding, end_point.as_deref());
            let challenger =
                Challenger::new(verifier.clone(), &[2; NONCE_BYTES], end_point.clone());
            assert_eq!(challenger.binds(), end_point.is_some());
            let first = prover.first();
            let bound = end_point.is_some();
            let (challenged, reply) = challenger.first(bound, first.as_bytes()).unwrap();
            let asked = prover.asked(reply.as_bytes()).unwrap();
            assert_eq!((asked.iterations, asked.salt.len()), (4096, 16));
            let (awaiting, last) = asked.prove(&keys);
            let proven = challenged.last(last.as_bytes());
            let proven = proven.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(awaiting.verify(proven.server_final.as_bytes()), Ok(()));
            // What the server learnt is enough to log in with.
            assert_eq!(*proven.keys.client, *keys.client);
        }
    }

    /// What PostgreSQL 15 keeps of two passwords, the second with a soft hyphen in it.
    #[test]
    fn verifiers_of_postgresql() {
        const ALICE: &str = "SCRAM-SHA-256$4096:rFgDR7xZNFpPn1B6/2k6Kw==$abnM0AYNzIjq4c6dq/3LQWNAVXDQQZhKi4OVrnv8YQw=:NWi8hK1bFDfgnMViepkM6bn4k3hFzgjLs2a61bpTC1A=";
        const HYPHEN: &str = "SCRAM-SHA-256$4096:qAaZkf6qwWQX6GUbGFr2Ew==$6PQ8bR+K8J0kW///C0zb5z4BOC1DaKijQWQf58lyX60=:VB2PJAEB1jQ7fUlcQT5oNm7ivwtmDWtGWPT/yNODiiQ=";
        for (text, password, salt) in [
            (ALICE, "alice-password", "rFgDR7xZNFpPn1B6/2k6Kw=="),
            (HYPHEN, "I\u{ad}X", "qAaZkf6qwWQX6GUbGFr2Ew=="),
        ] {
            let (_, expected) = derived(password.as_bytes(), salt, 4096);
            assert!(Verifier::parse(text).is_some_and(|parsed| parsed == expected));
        }
        for iterations in ["4095", "1000001", "-1", ""] {
            let text = ALICE.replace("4096", iterations);
            assert!(Verifier::parse(&text).is_none(), "{iterations}");
        }
        for text in ["", "md5abc", "SCRAM-SHA-256$4096:YQ==$YQ==:YQ=="] {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (keys, verifier) = pencil();
        let exchange = |change: fn(String) -> String, end_point: Option<Vec<u8>>| {
            let prover = Prover::new(&[1; NONCE_BYTES], ChannelBinding::Unable, None);
            let challenger = Challenger::new(verifier.clone(), &[2; NONCE_BYTES], end_point);
            let first = prover.first();
            let (challenged, reply) = challenger.first(false, first.as_bytes())?;
            let (_, last) = prover.asked(reply.as_bytes())?.prove(&keys);
            challenged.last(change(last.as_str().into()).as_bytes())
        };
        let error = |change, end_point| exchange(change, end_point).err();
        assert_eq!(error(|last| last, None), None);
        // Who cannot bind may come unbound.
        assert_eq!(error(|last| last, Some(vec![1; 32])), None);
        let wrong = |last: String| {
            let at = last.rfind(",p=").unwrap() + 3;
            format!("{}{}", &last[..at], scram::encode(&[9; 32]))
        };
        assert_eq!(error(wrong, None), Some(ScramError::Proof));
        let other = |last: String| last.replace("c=biws", "c=eSws");
        assert_eq!(error(other, None), Some(ScramError::Channel));
        let nonce = |last: String| last.replacen("r=AQ", "r=BQ", 1);
        assert_eq!(error(nonce, None), Some(ScramError::Nonce));
    }

    #[test]
    fn a_downgrade_is_seen() {
        let (_, verifier) = pencil();
        let challenger =
            |end_point| Challenger::new(verifier.clone(), &[2; NONCE_BYTES], end_point);
        let first = |end_point: Option<Vec<u8>>, bound, message: &str| {
            let challenger = challenger(end_point);
            challenger
                .first(bound, message.as_bytes())
                .map(|_| ())
                .err()
        };
        let end_point = || Some(vec![1; 32]);
        assert_eq!(
            first(end_point(), false, "y,,n=,r=a"),
            Some(ScramError::Downgrade)
        );
        assert_eq!(first(None, false, "y,,n=,r=a"), None);
        assert_eq!(
            first(end_point(), true, "n,,n=,r=a"),
            Some(ScramError::Mechanism)
        );
        assert_eq!(
            first(end_point(), false, "p=tls-server-end-point,,n=,r=a"),
            Some(ScramError::Mechanism)
        );
        assert_eq!(
            first(end_point(), true, "p=tls-server-end-point,,n=,r=a"),
            None
        );
    }

    #[test]
    fn a_server_that_wants_too_much_or_too_little() {
        for (iterations, refused) in [(1, true), (4095, true), (4096, false), (1_000_001, true)] {
            let prover = Prover::new(&[1; NONCE_BYTES], ChannelBinding::Unable, None);
            let first = format!("r={}x,s=YQ==,i={iterations}", prover.nonce);
            assert_eq!(
                prover.asked(first.as_bytes()).is_err(),
                refused,
                "{iterations}"
            );
        }
        let prover = Prover::new(&[1; NONCE_BYTES], ChannelBinding::Unable, None);
        let own = format!("r={},s=YQ==,i=4096", prover.nonce);
        assert_eq!(prover.asked(own.as_bytes()).err(), Some(ScramError::Nonce));
    }

    #[test]
    fn a_server_that_does_not_know_the_password() {
        for (message, expected) in [
            (SIGNATURE, ScramError::Impostor),
            ("e=other-error", ScramError::Refused),
        ] {
            let awaiting = Awaiting { signature: [3; 32] };
            assert_eq!(awaiting.verify(message.as_bytes()), Err(expected));
        }
    }

    #[test]
    fn nobody_can_tell_who_is_known() {
        let (_, like) = derived(b"x", "W22ZaJ0SNY7soEsUEjb6gW22ZaJ0SNY7", 10_000);
        let mock = Verifier::mock(&[1; 32], "nobody", Some(&like));
        assert_eq!(mock.salt.len(), like.salt.len());
        assert_eq!(mock.iterations, 10_000);
        assert!(mock == Verifier::mock(&[1; 32], "nobody", Some(&like)));
        assert_ne!(mock.salt, Verifier::mock(&[1; 32], "other", None).salt);
        assert_ne!(
            mock.salt,
            Verifier::mock(&[2; 32], "nobody", Some(&like)).salt
        );
        assert_eq!(Verifier::mock(&[1; 32], "nobody", None).salt.len(), 16);
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        for (password, expected) in [
            (&b"pencil"[..], &b"pencil"[..]),
            // RFC 4013: a soft hyphen is nothing, a no-break space is a space, a roman nine is IX.
            ("I\u{ad}X".as_bytes(), b"IX"),
            ("a\u{a0}b".as_bytes(), b"a b"),
            ("\u{2168}".as_bytes(), b"IX"),
            // What is prohibited, or no UTF-8, is taken as it is.
            ("a\u{7}b".as_bytes(), "a\u{7}b".as_bytes()),
            (b"\xff\xfe", b"\xff\xfe"),
        ] {
            assert_eq!(&prepared(password)[..], expected);
        }
    }
}
