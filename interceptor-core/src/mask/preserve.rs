//! Encryption within a format: FF1 of NIST SP 800-38G, with AES-256.
//!
//! It owns what of a value is encrypted and what stays. It must not know columns nor types.
//!
//! Letters and digits of a value are one numeral, in the smallest of a few alphabets that has them all;
//! everything else stays where it is. Equal values stay equal and different ones different, so that
//! joins still agree. A domain below a million could be tried out by whoever sees a few pairs (SP
//! 800-38G r1 forbids it): such a value is not encrypted at all, and its mask shows nothing.

use alloc::vec::Vec;

use aes::Aes256;
use fpe::ff1::{FF1, FlexibleNumeralString};

/// The smallest domain.
const DOMAIN_MIN: u128 = 1_000_000;
/// Numerals that are encrypted; a longer value shows nothing.
pub(super) const NUMERALS_MAX: usize = 128;
/// How often a numeral that does not fit is encrypted again until it does. Nine in ten fit at once, so
/// that this never is too few.
const WALKS_MAX: usize = 1_000;

const DIGITS: &[u8] = b"0123456789";
const HEXADECIMAL: &[u8] = b"0123456789abcdef";
const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER_AND_DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const UPPER_AND_DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ALL: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The alphabets, the smallest first.
const ALPHABETS: [&[u8]; 8] = [
    DIGITS,
    HEXADECIMAL,
    LOWER,
    UPPER,
    LOWER_AND_DIGITS,
    UPPER_AND_DIGITS,
    LETTERS,
    ALL,
];

/// What the result has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// A whole number that fits a signed integer of so many bits; its sign stays.
    Integer {
        /// 32 or 64.
        bits: u32,
    },
    /// A decimal number without an exponent.
    Decimal,
    /// Hexadecimal digits.
    Hexadecimal,
}

/// FF1 under one key, for each alphabet.
pub(super) struct Ciphers(Vec<FF1<Aes256>>);

impl Ciphers {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let radix = |alphabet: &&[u8]| u32::try_from(alphabet.len()).unwrap_or(2);
        let ciphers = ALPHABETS.iter().map(radix);
        // A radix of 10 to 62 and a key of 32 bytes are right; were they not, nothing is shown.
        Self(
            ciphers
                .filter_map(|radix| FF1::new(key, radix).ok())
                .collect(),
        )
    }

    /// The value encrypted; `None` if it cannot be.
    pub(super) fn encrypt(&self, value: &[u8], form: Form) -> Option<Vec<u8>> {
        let number = alphabet_of(value, form)?;
        let alphabet = *ALPHABETS.get(number)?;
        let cipher = self
            .0
            .get(number)
            .filter(|_| self.0.len() == ALPHABETS.len())?;
        let numeral = |byte: u8| {
            let at = alphabet.iter().position(|known| *known == byte)?;
            u16::try_from(at).ok()
        };
        let mut numerals: Vec<u16> = value.iter().filter_map(|byte| numeral(*byte)).collect();
        let radix = u128::try_from(alphabet.len()).ok()?;
        let mut domain = 1_u128;
        for _ in &numerals {
            domain = domain.saturating_mul(radix);
        }
        if domain < DOMAIN_MIN || numerals.len() > NUMERALS_MAX {
            return None;
        }
        for _ in 0..WALKS_MAX {
            let encrypted = cipher.encrypt(&[], &FlexibleNumeralString::from(numerals));
            numerals = encrypted.ok()?.into();
            let result = filled(value, alphabet, &numerals)?;
            if fits(value, &result, form) {
                return Some(result);
            }
        }
        None
    }
}

fn alphabet_of(value: &[u8], form: Form) -> Option<usize> {
    match form {
        Form::Hexadecimal => ALPHABETS.iter().position(|known| *known == HEXADECIMAL),
        Form::Integer { .. } | Form::Decimal => Some(0),
        // Letters beyond ASCII belong to no alphabet, and cannot be left to be read.
        Form::Text if !value.is_ascii() => None,
        // What is hexadecimal by chance is text like any other.
        Form::Text => ALPHABETS.iter().position(|alphabet| {
            *alphabet != HEXADECIMAL
                && value
                    .iter()
                    .all(|byte| !byte.is_ascii_alphanumeric() || alphabet.contains(byte))
        }),
    }
}

/// The value with its letters and digits replaced, one by one.
fn filled(value: &[u8], alphabet: &[u8], numerals: &[u16]) -> Option<Vec<u8>> {
    let mut numerals = numerals.iter();
    let mut result = Vec::with_capacity(value.len());
    for byte in value {
        result.push(if alphabet.contains(byte) {
            *alphabet.get(usize::from(*numerals.next()?))?
        } else {
            *byte
        });
    }
    Some(result)
}

/// Only a result of the same form counts: the walk goes on until it is one, which keeps different
/// values different.
fn fits(value: &[u8], result: &[u8], form: Form) -> bool {
    let unsigned = |text: &[u8]| text.strip_prefix(b"-").unwrap_or(text).to_vec();
    let leads = |text: &[u8]| {
        let text = unsigned(text);
        text.first() == Some(&b'0') && text.get(1).is_some_and(u8::is_ascii_digit)
    };
    let text = || core::str::from_utf8(result);
    match form {
        Form::Text | Form::Hexadecimal => true,
        Form::Decimal => !leads(result) || leads(value),
        Form::Integer { bits } => {
            let number = text().ok().and_then(|text| text.parse::<i64>().ok());
            number.is_some_and(|number| bits == 64 || i32::try_from(number).is_ok())
                && !leads(result)
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use hashbrown::HashSet;

    use super::*;

    fn shown(value: &str, form: Form) -> Option<String> {
        let result = Ciphers::new(&[7; 32]).encrypt(value.as_bytes(), form)?;
        Some(String::from_utf8(result).unwrap())
    }

    /// The samples of NIST's FF1 with a key of 256 bits (its own radix 10, empty tweak).
    #[test]
    fn it_is_ff1() {
        let key = [
            0x2B, 0x7E, 0x15, 0x16, 0x28, 0xAE, 0xD2, 0xA6, 0xAB, 0xF7, 0x15, 0x88, 0x09, 0xCF,
            0x4F, 0x3C, 0xEF, 0x43, 0x59, 0xD8, 0xD5, 0x80, 0xAA, 0x4F, 0x7F, 0x03, 0x6D, 0x6F,
            0x04, 0xFC, 0x6A, 0x94,
        ];
        let result = Ciphers::new(&key).encrypt(b"0123456789", Form::Text);
        assert_eq!(result.as_deref(), Some(&b"6657667009"[..]));
    }

    #[test]
    fn the_format_stays() {
        for value in [
            "219-09-9999",
            "+1 (555) 010-4477",
            "jane.doe@example.com",
            "ABC-1234-xyz",
            "DE89 3704 0044 0532 0130 00",
        ] {
            let result = shown(value, Form::Text).unwrap();
            assert_ne!(result, value);
            assert_eq!(result.len(), value.len());
            for (a, b) in value.chars().zip(result.chars()) {
                assert_eq!(a.is_ascii_alphanumeric(), b.is_ascii_alphanumeric());
                assert!(a.is_ascii_alphanumeric() || a == b, "{value} {result}");
            }
            assert_eq!(shown(value, Form::Text).unwrap(), result);
        }
        let digits = shown("4111 1111 1111 1111", Form::Text).unwrap();
        assert!(
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b' ')
        );
    }

    #[test]
    fn a_small_domain_is_refused() {
        for (value, form) in [
            ("12345", Form::Text),
            ("", Form::Text),
            ("abcd", Form::Text),
            ("AbC", Form::Text),
            ("99999", Form::Integer { bits: 32 }),
            ("Grüße aus Köln", Form::Text),
            ("--------", Form::Text),
        ] {
            assert_eq!(shown(value, form), None, "{value}");
        }
        assert_eq!(shown(&"1".repeat(NUMERALS_MAX + 1), Form::Text), None);
        assert!(shown("123456", Form::Text).is_some());
    }

    #[test]
    fn numbers_fit_their_types_and_stay_different() {
        let mut seen = HashSet::new();
        for number in (1_000_000_i64..2_147_000_000).step_by(12_345_678) {
            let result = shown(&alloc::format!("-{number}"), Form::Integer { bits: 32 }).unwrap();
            let parsed: i32 = result.parse().unwrap();
            assert!(parsed < 0 && result.len() == alloc::format!("-{number}").len());
            assert!(seen.insert(result));
        }
        let decimal = shown("1234.567", Form::Decimal).unwrap();
        assert_eq!(decimal.find('.'), Some(4));
        assert!(!decimal.starts_with('0'));
        assert!(shown("9223372036854775807", Form::Integer { bits: 64 }).is_some());
    }
}
