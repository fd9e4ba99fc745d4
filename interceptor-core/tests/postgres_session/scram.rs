//! SCRAM-SHA-256 by hand, so that the machine is not held against itself.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(crate) fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// A password as a server keeps it.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) salt: Vec<u8>,
    client_key: Vec<u8>,
    server_key: Vec<u8>,
}

pub(crate) const ITERATIONS: u32 = 4096;

impl Kept {
    pub(crate) fn new(password: &str, salt: &[u8]) -> Self {
        // PBKDF2 with one block, as RFC 5802 has it.
        let mut last = hmac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
        let mut salted = last.clone();
        for _ in 1..ITERATIONS {
            last = hmac(password.as_bytes(), &last);
            salted
                .iter_mut()
                .zip(&last)
                .for_each(|(byte, other)| *byte ^= other);
        }
        Self {
            salt: salt.to_vec(),
            client_key: hmac(&salted, b"Client Key"),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// As `pg_authid` has it.
    pub(crate) fn verifier(&self) -> String {
        format!(
            "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
            base64(&self.salt),
            base64(&hash(&self.client_key)),
            base64(&self.server_key)
        )
    }

    /// Every message of an exchange between a client with one nonce and a server with another.
    pub(crate) fn exchange(
        &self,
        client: &str,
        server: &str,
        header: &str,
        end_point: &[u8],
    ) -> Exchange {
        let bare = format!("n=,r={client}");
        let server_first = format!("r={client}{server},s={},i={ITERATIONS}", base64(&self.salt));
        let binding = base64(&[header.as_bytes(), end_point].concat());
        let without_proof = format!("c={binding},r={client}{server}");
        let said = format!("{bare},{server_first},{without_proof}");
        let signature = hmac(&hash(&self.client_key), said.as_bytes());
        let proof: Vec<u8> = self
            .client_key
            .iter()
            .zip(&signature)
            .map(|(key, byte)| key ^ byte)
            .collect();
        Exchange {
            client_first: format!("{header}{bare}"),
            server_first,
            client_final: format!("{without_proof},p={}", base64(&proof)),
            server_final: format!("v={}", base64(&hmac(&self.server_key, said.as_bytes()))),
        }
    }
}

pub(crate) struct Exchange {
    pub(crate) client_first: String,
    pub(crate) server_first: String,
    pub(crate) client_final: String,
    pub(crate) server_final: String,
}
