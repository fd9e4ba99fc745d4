//! What is shown instead of a value.
//!
//! It owns the methods. It must not know why a value is masked.

use alloc::vec::Vec;

use super::HashKey;
use super::keys::{KeyNumber, LabelNumber, derived};
use super::patterns::email;
use super::preserve::Form;

/// What the method `full` shows: as long for every value, so that not even the length is told.
pub const MASK_TEXT: &str = "****";

/// A shorter value shows nothing under `partial`.
const PARTIAL_CHARS_MIN: usize = 8;
/// The most characters that `partial` shows.
const PARTIAL_SHOWN_MAX: usize = 4;
/// A shorter local part of an email address shows nothing under `partial`.
const PARTIAL_LOCAL_BYTES_MIN: usize = 3;
/// How many bytes of the HMAC `hash` shows; 64 bits keep a million values apart.
const HASH_BYTES: usize = 8;

/// How many bytes of the HMAC `token` shows; 96 bits keep a billion values apart.
const TOKEN_BYTES: usize = 12;
/// What a token begins with.
const TOKEN_START: &[u8] = b"tok_";

/// How a value is masked. Ordered by how little is shown: where masks meet, the greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// The end of a long value: at most its last four characters and a third of it. Of an email
    /// address the first character and the domain.
    Partial,
    /// Another value of the same format, equal for equal values: FF1 with a key of the policy.
    Preserve(KeyNumber),
    /// A token, equal for equal values wherever the key is the same.
    Token(KeyNumber),
    /// 16 hexadecimal digits, equal for equal values while the process lives.
    Hash,
    /// A label, the same for every value.
    Placeholder(LabelNumber),
    /// [`MASK_TEXT`].
    Full,
    /// SQL's null, or what the protocol has for it.
    Null,
}

impl Method {
    /// Every method with its name in policy files.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("full", Self::Full),
        ("partial", Self::Partial),
        ("null", Self::Null),
        ("hash", Self::Hash),
        ("token", Self::Token(KeyNumber::FIRST)),
        ("preserve", Self::Preserve(KeyNumber::FIRST)),
        ("placeholder", Self::Placeholder(LabelNumber::FIRST)),
    ];

    /// Its name in policy files.
    pub(crate) fn name(self) -> &'static str {
        let same = |known: &Self| core::mem::discriminant(known) == core::mem::discriminant(&self);
        let mut names = Self::NAMES.iter();
        names
            .find(|(_, known)| same(known))
            .map_or("", |(name, _)| name)
    }

    /// The caller sends a null instead of a text.
    pub fn is_null(self) -> bool {
        self == Self::Null
    }

    pub(super) fn apply(self, key: &HashKey, value: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Full | Self::Null => out.extend_from_slice(MASK_TEXT.as_bytes()),
            Self::Partial => partial(value, out),
            Self::Hash => hash(key, value, out),
            Self::Token(number) => match Self::digest(key, number, value) {
                Some(digest) => {
                    out.extend_from_slice(TOKEN_START);
                    let shown = digest.get(..TOKEN_BYTES).unwrap_or_default();
                    out.extend_from_slice(hex::encode(shown).as_bytes());
                }
                None => out.extend_from_slice(MASK_TEXT.as_bytes()),
            },
            Self::Preserve(_) => match self.preserved(key, value, Form::Text) {
                Some(preserved) => out.extend_from_slice(&preserved),
                None => out.extend_from_slice(MASK_TEXT.as_bytes()),
            },
            Self::Placeholder(number) => {
                let label = key.label(number).unwrap_or(MASK_TEXT);
                out.extend_from_slice(label.as_bytes());
            }
        }
    }

    /// What tokens of any type are made of. A key that is not there gives nothing.
    fn digest(key: &HashKey, number: KeyNumber, value: &[u8]) -> Option<[u8; 32]> {
        key.key(number).map(|key| derived(&key.token, value))
    }

    /// 32 bytes that stand for a value, where the method is `token`.
    pub(super) fn token(self, key: &HashKey, value: &[u8]) -> Option<[u8; 32]> {
        match self {
            Self::Token(number) => Self::digest(key, number, value),
            _ => None,
        }
    }

    /// The value in another shape of the same form, where the method is `preserve` and the value's
    /// domain large enough.
    pub(super) fn preserved(self, key: &HashKey, value: &[u8], form: Form) -> Option<Vec<u8>> {
        match self {
            Self::Preserve(number) => key.key(number)?.ciphers.encrypt(value, form),
            _ => None,
        }
    }
}

fn partial(value: &[u8], out: &mut Vec<u8>) {
    if let Some((local, domain)) = email::split_whole(value) {
        let first = local
            .chars()
            .next()
            .filter(|_| local.len() >= PARTIAL_LOCAL_BYTES_MIN);
        if let Some(first) = first {
            out.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.extend_from_slice(MASK_TEXT.as_bytes());
        out.push(b'@');
        out.extend_from_slice(domain.as_bytes());
        return;
    }
    out.extend_from_slice(MASK_TEXT.as_bytes());
    // What is not UTF-8 has no characters to count: it shows nothing.
    let Ok(text) = str::from_utf8(value) else {
        return;
    };
    let chars = text.chars().count();
    if chars < PARTIAL_CHARS_MIN {
        return;
    }
    let shown = PARTIAL_SHOWN_MAX.min(chars / 3);
    if let Some((start, _)) = text.char_indices().nth(chars - shown) {
        out.extend_from_slice(text.get(start..).unwrap_or_default().as_bytes());
    }
}

fn hash(key: &HashKey, value: &[u8], out: &mut Vec<u8>) {
    let digest = derived(key.random(), value);
    let shown = digest.get(..HASH_BYTES).unwrap_or_default();
    out.extend_from_slice(hex::encode(shown).as_bytes());
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn shown(method: Method, value: &[u8]) -> String {
        let mut out = Vec::new();
        method.apply(&HashKey::new([7; 32]), value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn full_hides_the_length() {
        assert_eq!(shown(Method::Full, b""), "****");
        assert_eq!(shown(Method::Full, &[b'x'; 4000]), "****");
        assert_eq!(shown(Method::Null, b"secret"), "****");
    }

    #[test]
    fn partial_shows_at_most_four_characters_and_a_third() {
        for (value, expected) in [
            ("", "****"),
            ("1234567", "****"),
            ("12345678", "****78"),
            ("078-05-1120", "****120"),
            ("4111111111111111", "****1111"),
            ("Grüße aus Köln", "****Köln"),
        ] {
            assert_eq!(
                shown(Method::Partial, value.as_bytes()),
                expected,
                "{value}"
            );
        }
        assert_eq!(shown(Method::Partial, b"not \xff utf-8 at all"), "****");
    }

    #[test]
    fn partial_shows_the_domain_of_an_email_address() {
        assert_eq!(
            shown(Method::Partial, b"jane@example.com"),
            "j****@example.com"
        );
        assert_eq!(
            shown(Method::Partial, b"jo@example.com"),
            "****@example.com"
        );
        assert_eq!(
            shown(Method::Partial, "øyvind@example.no".as_bytes()),
            "ø****@example.no"
        );
        // More than an address is a text like any other.
        assert_eq!(
            shown(Method::Partial, b"jane@example.com, joe@example.com"),
            "****.com"
        );
    }

    #[test]
    fn hash_is_keyed_and_the_same_for_the_same_value() {
        let one = shown(Method::Hash, b"jane@example.com");
        assert_eq!(one.len(), 16);
        assert_eq!(one, shown(Method::Hash, b"jane@example.com"));
        assert_ne!(one, shown(Method::Hash, b"joe@example.com"));
        let mut other = Vec::new();
        Method::Hash.apply(&HashKey::new([8; 32]), b"jane@example.com", &mut other);
        assert_ne!(one.as_bytes(), other);
    }
}
