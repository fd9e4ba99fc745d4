//! Addresses of crypto-currencies, all of which carry a checksum.
//!
//! It owns their forms: base58check (Bitcoin, Litecoin, Dogecoin, Tron), bech32 and bech32m (Bitcoin,
//! Litecoin), and Ethereum's hexadecimal digits.

use core::ops::Range;

use sha3::{Digest as _, Keccak256};

use super::bytes::{self, ends_word};
use super::check;

/// The first bytes of what base58check holds: Bitcoin's two forms, Litecoin's two, Dogecoin's two, Tron.
const VERSIONS: &[u8] = &[0x00, 0x05, 0x30, 0x32, 0x1e, 0x16, 0x41];
/// A version and a hash of 20 bytes.
const PAYLOAD_BYTES: usize = 21;
const BASE58_CHARS: core::ops::RangeInclusive<usize> = 26..=35;
const BECH32_CHARS: core::ops::RangeInclusive<usize> = 40..=90;
const ETHEREUM_DIGITS: usize = 40;

/// An address that is the word beginning at `start`.
pub(super) fn at(text: &[u8], start: usize) -> Option<Range<usize>> {
    let head = bytes::from(text, start);
    let end = bytes::run_end(text, start, |byte| byte.is_ascii_alphanumeric());
    let word = text.get(start..end)?;
    if !ends_word(text, end) {
        return None;
    }
    let valid = match head {
        [b'0', b'x' | b'X', ..] => is_ethereum(word),
        [b'b' | b'B', b'c' | b'C', b'1', ..] | [b't' | b'T', b'b' | b'B', b'1', ..] => {
            is_bech32(word)
        }
        [b'l' | b'L', b't' | b'T', b'c' | b'C', b'1', ..] => is_bech32(word),
        [b'1' | b'3' | b'L' | b'M' | b'D' | b'T' | b'A' | b'9', ..] => is_base58(word),
        _ => false,
    };
    valid.then_some(start..end)
}

/// Whether an address may begin with this byte.
pub(super) const fn may_begin(byte: u8) -> bool {
    matches!(
        byte,
        b'0' | b'1' | b'3' | b'9' | b'A' | b'B' | b'D' | b'L' | b'M' | b'T' | b'b' | b'l' | b't'
    )
}

fn is_base58(word: &[u8]) -> bool {
    BASE58_CHARS.contains(&word.len())
        && check::base58check(word).is_some_and(|payload| {
            payload.len() == PAYLOAD_BYTES
                && payload
                    .first()
                    .is_some_and(|version| VERSIONS.contains(version))
        })
}

fn is_bech32(word: &[u8]) -> bool {
    BECH32_CHARS.contains(&word.len())
        && str::from_utf8(word).is_ok_and(|word| bech32::segwit::decode(word).is_ok())
}

/// 40 digits; if their letters are of both cases, as EIP-55 wants them by the address's hash.
fn is_ethereum(word: &[u8]) -> bool {
    let digits = word.get(2..).unwrap_or_default();
    if digits.len() != ETHEREUM_DIGITS
        || !digits.iter().all(u8::is_ascii_hexdigit)
        || !bytes::is_varied(digits, 3)
    {
        return false;
    }
    let has = |of: fn(&u8) -> bool| digits.iter().any(of);
    if !(has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)) {
        return true;
    }
    let lower: alloc::vec::Vec<u8> = digits.iter().map(u8::to_ascii_lowercase).collect();
    let hash = Keccak256::digest(&lower);
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.iter().zip(nibbles).all(|(digit, nibble)| {
        !digit.is_ascii_alphabetic() || digit.is_ascii_uppercase() == (nibble >= 8)
    })
}
