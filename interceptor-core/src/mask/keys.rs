//! The keys of masks.
//!
//! It owns what is derived from a key file's bytes, and that none of it prints. It must not know how
//! files are read.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::preserve::Ciphers;

/// Bytes that a key file must have, and may have.
pub const KEY_BYTES_MIN: usize = 32;
/// See [`KEY_BYTES_MIN`].
pub const KEY_BYTES_MAX: usize = 4_096;
/// Keys that one policy may use.
const KEYS_MAX: usize = 1_000;

/// Reads key files.
pub trait KeyFiles: Send + Sync {
    /// The bytes of a file, or why they cannot be had, without any of them.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, path: &str) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// Which key of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct KeyNumber(u16);

/// Which label of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LabelNumber(u16);

impl KeyNumber {
    /// The first, which stands for all where only the method counts.
    pub(super) const FIRST: Self = Self(0);
}

impl LabelNumber {
    /// As [`KeyNumber::FIRST`].
    pub(super) const FIRST: Self = Self(0);
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// The file cannot be read.
    Unreadable(String),
    /// It has this many bytes.
    Length(usize),
    /// There are too many.
    TooMany,
}

/// What is derived from one key file.
pub(super) struct Key {
    /// The file's name, by which it is found again.
    path: Box<str>,
    /// What may be known of it: eight hexadecimal digits.
    id: String,
    /// Keys tokens.
    pub(super) token: [u8; 32],
    /// Encrypts within a format.
    pub(super) ciphers: Ciphers,
}

impl Drop for Key {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// What one policy's masks use.
#[derive(Default)]
struct Loaded {
    keys: Vec<Arc<Key>>,
    labels: Vec<Box<str>>,
}

/// The keys of masks: 32 random bytes for the method `hash`, drawn once a process and kept across
/// reloads, and what policies name.
#[derive(Clone)]
pub struct HashKey {
    random: [u8; 32],
    files: Option<Arc<dyn KeyFiles>>,
    loaded: Arc<Loaded>,
}

impl HashKey {
    /// Takes the random bytes. Key files are not read: what they key is keyed by their names, which
    /// does for tools that only look at policies.
    pub fn new(random: [u8; 32]) -> Self {
        Self {
            random,
            files: None,
            loaded: Arc::default(),
        }
    }

    /// Reads key files, at each load of a policy.
    #[must_use]
    pub fn with_files(mut self, files: Arc<dyn KeyFiles>) -> Self {
        self.files = Some(files);
        self
    }

    /// The files that the policy's masks use and what may be known of each key: eight hexadecimal
    /// digits by which two gateways see that they have the same.
    pub fn ids(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.loaded.keys.iter();
        keys.map(|key| (&*key.path, key.id.as_str()))
    }

    pub(super) fn random(&self) -> &[u8; 32] {
        &self.random
    }

    pub(super) fn key(&self, number: KeyNumber) -> Option<&Key> {
        self.loaded
            .keys
            .get(usize::from(number.0))
            .map(|key| &**key)
    }

    pub(super) fn label(&self, number: LabelNumber) -> Option<&str> {
        self.loaded
            .labels
            .get(usize::from(number.0))
            .map(|label| &**label)
    }
}

/// Whoever has a key can find short values by trying them all: it must not print.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// Gathers the keys and labels of a policy while it is compiled.
pub(crate) struct KeyRing {
    random: [u8; 32],
    files: Option<Arc<dyn KeyFiles>>,
    loaded: Loaded,
}

impl KeyRing {
    /// Begins anew: files are read again, as they may have changed.
    pub(crate) fn new(key: &HashKey) -> Self {
        Self {
            random: key.random,
            files: key.files.clone(),
            loaded: Loaded::default(),
        }
    }

    pub(crate) fn finish(self) -> HashKey {
        HashKey {
            random: self.random,
            files: self.files,
            loaded: Arc::new(self.loaded),
        }
    }

    /// The key in a file, read once however many masks name it.
    pub(crate) fn key(&mut self, path: &str) -> Result<KeyNumber, KeyError> {
        let known = self.loaded.keys.iter().position(|key| *key.path == *path);
        let number = match known {
            Some(number) => number,
            None => {
                let key = Arc::new(self.read(path)?);
                self.loaded.keys.push(key);
                self.loaded.keys.len() - 1
            }
        };
        let number = u16::try_from(number).ok();
        number
            .filter(|number| usize::from(*number) < KEYS_MAX)
            .map(KeyNumber)
            .ok_or(KeyError::TooMany)
    }

    fn read(&self, path: &str) -> Result<Key, KeyError> {
        let bytes = match &self.files {
            None => Zeroizing::new(derived(&self.random, path.as_bytes()).to_vec()),
            Some(files) => files.read(path).map_err(KeyError::Unreadable)?,
        };
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
            return Err(KeyError::Length(bytes.len()));
        }
        let shown = derived(&bytes, b"interceptor mask key id");
        let cipher = Zeroizing::new(derived(&bytes, b"interceptor mask ff1 aes-256"));
        Ok(Key {
            path: path.into(),
            id: hex::encode(shown.get(..4).unwrap_or_default()),
            token: derived(&bytes, b"interceptor mask token"),
            ciphers: Ciphers::new(&cipher),
        })
    }

    /// A label, kept once.
    pub(crate) fn label(&mut self, text: &str) -> LabelNumber {
        let labels = &mut self.loaded.labels;
        let number = labels.iter().position(|label| **label == *text);
        let number = number.unwrap_or_else(|| {
            labels.push(text.into());
            labels.len() - 1
        });
        // A policy has no room for more; what does not fit has no label, and shows the full mask.
        LabelNumber(u16::try_from(number).unwrap_or(u16::MAX))
    }
}

/// HMAC-SHA-256.
pub(super) fn derived(key: &[u8], purpose: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length: the error cannot happen.
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(purpose);
            mac.finalize().into_bytes().into()
        }
        Err(_) => [0; 32],
    }
}
