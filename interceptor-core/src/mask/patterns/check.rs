//! Check digits.
//!
//! It owns the formulas. It must not know where a number stands.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

/// The most characters of a number with a check: an IBAN has 34.
const CHARS_MAX: usize = 64;
/// The bytes that base58check ends with.
const CHECKSUM_BYTES: usize = 4;

/// Luhn's formula over digits from 0 to 9.
pub(in crate::mask) fn luhn(digits: &[u8]) -> bool {
    luhn_sum(digits).is_multiple_of(10)
}

fn luhn_sum(digits: &[u8]) -> u32 {
    let weigh = |(index, digit): (usize, &u8)| {
        let doubled = u32::from(*digit) * 2;
        if index.is_multiple_of(2) {
            u32::from(*digit)
        } else {
            doubled / 10 + doubled % 10
        }
    };
    digits.iter().rev().enumerate().map(weigh).sum()
}

/// ISO 7064 as in an IBAN: the first four characters go behind the others, letters count from 10, and
/// the number that this gives leaves 1 modulo 97. `value` is letters and digits.
pub(in crate::mask) fn mod97(value: &[u8]) -> bool {
    if !(5..=CHARS_MAX).contains(&value.len()) {
        return false;
    }
    let (head, rest) = value.split_at(4);
    let remainder =
        rest.iter()
            .chain(head)
            .fold(0_u32, |remainder, byte| match byte.to_ascii_uppercase() {
                digit @ b'0'..=b'9' => (remainder * 10 + u32::from(digit - b'0')) % 97,
                letter => (remainder * 100 + u32::from(letter.wrapping_sub(b'A')) + 10) % 97,
            });
    remainder == 1
}

/// A routing number of the American Bankers Association: nine digits, weighed 3, 7, 1, whose first two
/// are of a Federal Reserve district, a thrift institution, electronic transfers, the government or
/// traveller's cheques.
pub(in crate::mask) fn aba(digits: &[u8]) -> bool {
    let [a, b, ..] = digits else {
        return false;
    };
    let weights = [3, 7, 1].iter().cycle();
    let sum: u32 = digits
        .iter()
        .zip(weights)
        .map(|(digit, weight)| u32::from(*digit) * weight)
        .sum();
    digits.len() == 9
        && matches!(a * 10 + b, 0..=12 | 21..=32 | 61..=72 | 80)
        && digits.iter().any(|digit| *digit != 0)
        && sum.is_multiple_of(10)
}

/// A National Provider Identifier: ten digits from 1 or 2, right by Luhn's formula behind 80840.
pub(in crate::mask) fn npi(digits: &[u8]) -> bool {
    // What 80840 adds to the sum.
    const PREFIX_SUM: u32 = 24;
    digits.len() == 10
        && matches!(digits, [1 | 2, ..])
        && (luhn_sum(digits) + PREFIX_SUM).is_multiple_of(10)
}

/// Verhoeff's formula, which knows every wrong digit and every swap of two neighbours.
pub(in crate::mask) fn verhoeff(digits: &[u8]) -> bool {
    // The digits 0 to 4 turn, 5 to 9 mirror: the dihedral group of ten.
    let multiply = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b - 5) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let permuted = |digit: u8| match digit {
        0 => 1,
        1 => 5,
        2 => 7,
        3 => 6,
        4 => 2,
        5 => 8,
        6 => 3,
        7 => 0,
        8 => 9,
        _ => 4,
    };
    let sum = digits
        .iter()
        .rev()
        .enumerate()
        .fold(0, |sum, (index, digit)| {
            multiply(sum, (0..index % 8).fold(*digit, |digit, _| permuted(digit)))
        });
    digits.len() >= 2 && sum == 0
}

/// What base58check holds, if its checksum is right.
pub(in crate::mask) fn base58check(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() > CHARS_MAX {
        return None;
    }
    let mut bytes = bs58::decode(value).into_vec().ok()?;
    let payload = bytes.len().checked_sub(CHECKSUM_BYTES)?;
    let digest = Sha256::digest(Sha256::digest(bytes.get(..payload)?));
    if payload == 0 || digest.get(..CHECKSUM_BYTES) != bytes.get(payload..) {
        return None;
    }
    bytes.truncate(payload);
    Some(bytes)
}

/// The digits of a value, without single spaces and dashes; `None` if anything else is in it, or more
/// than a number with a check has.
pub(in crate::mask) fn digits(value: &[u8]) -> Option<Vec<u8>> {
    let mut digits = Vec::new();
    for byte in value {
        match byte {
            b'0'..=b'9' => digits.push(byte - b'0'),
            b' ' | b'-' => {}
            _ => return None,
        }
    }
    Some(digits)
}

/// The same with letters.
pub(in crate::mask) fn letters_and_digits(value: &[u8]) -> Option<Vec<u8>> {
    let mut characters = Vec::new();
    for byte in value {
        match byte {
            b' ' | b'-' => {}
            _ if byte.is_ascii_alphanumeric() => characters.push(byte.to_ascii_uppercase()),
            _ => return None,
        }
    }
    Some(characters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_tell_right_from_wrong() {
        let digits = |text: &str| digits(text.as_bytes()).unwrap();
        assert!(luhn(&digits("79927398713")) && !luhn(&digits("79927398710")));
        assert!(mod97(b"GB82WEST12345698765432") && !mod97(b"GB82WEST12345698765433"));
        assert!(aba(&digits("021000021")) && !aba(&digits("021000022")));
        assert!(!aba(&digits("000000000")) && !aba(&digits("510000003")));
        assert!(npi(&digits("1234567893")) && !npi(&digits("1234567890")));
        assert!(verhoeff(&digits("2363")) && !verhoeff(&digits("2336")));
        assert!(verhoeff(&digits("123451")) && !verhoeff(&digits("123450")));
        assert!(base58check(b"1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2").is_some());
        assert!(base58check(b"1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3").is_none());
        assert!(base58check(b"").is_none() && base58check(&[b'1'; 4000]).is_none());
    }
}
