//! International bank account numbers.
//!
//! It owns the countries and their lengths, as ISO 13616's registry has them.

use alloc::vec::Vec;
use core::ops::Range;

use super::bytes::{self, begins_word, ends_word};
use super::check;

/// Countries by the length of their numbers.
const COUNTRIES: &[(usize, &[u8])] = &[
    (15, b"NO"),
    (16, b"BE"),
    (18, b"DKFIFKFONLSD"),
    (19, b"MKSI"),
    (20, b"ATBAEEKZLTLUMNXK"),
    (21, b"CHHRLILV"),
    (22, b"BGBHCRDEGBGEIEMERSVA"),
    (23, b"AEGIILIQOMSOTL"),
    (24, b"ADCZESMDMAPKROSASESKTNVG"),
    (25, b"LYPTST"),
    (26, b"ISTR"),
    (27, b"BIDJFRGRITMCMRSM"),
    (28, b"ALAZBYCYDOGTHUHNLBNIPLSV"),
    (29, b"BRBRPSQAUA"),
    (30, b"JOKWMUYE"),
    (31, b"MTSC"),
    (32, b"LC"),
    (33, b"RU"),
];
/// Printed in groups of this many.
const GROUP_CHARS: usize = 4;

/// How many characters the numbers of a country have.
fn length(country: [u8; 2]) -> Option<usize> {
    let has = |codes: &[u8]| codes.as_chunks::<2>().0.contains(&country);
    let found = COUNTRIES.iter().find(|(_, codes)| has(codes))?;
    Some(found.0)
}

/// A number whose check digits begin at `digit`.
pub(super) fn at(text: &[u8], digit: usize) -> Option<Range<usize>> {
    let start = digit.checked_sub(2)?;
    if !bytes::is_digit(text, digit + 1) || !begins_word(text, start) {
        return None;
    }
    let [first, second] = *text.get(start..digit)?.as_array()?;
    let country = [first.to_ascii_uppercase(), second.to_ascii_uppercase()];
    let length = length(country)?;
    // Either all in one or in groups, with one separator throughout.
    let separator = text
        .get(start + GROUP_CHARS)
        .filter(|byte| matches!(byte, b' ' | b'-'));
    let mut characters = Vec::with_capacity(length);
    let mut position = start;
    while characters.len() < length {
        let in_group = characters.len() % GROUP_CHARS;
        if let (Some(separator), 0, false) = (separator, in_group, characters.is_empty()) {
            if text.get(position) != Some(separator) {
                return None;
            }
            position += 1;
        }
        let byte = text.get(position)?;
        if !byte.is_ascii_alphanumeric() {
            return None;
        }
        characters.push(byte.to_ascii_uppercase());
        position += 1;
    }
    let whole = ends_word(text, position) && is_valid(&characters);
    whole.then_some(start..position)
}

/// A whole number of a known country: length and check digits are right.
pub(in crate::mask) fn is_valid(characters: &[u8]) -> bool {
    let country = characters.first_chunk::<2>().copied();
    let digits = characters.get(2..4).unwrap_or_default();
    country.and_then(length) == Some(characters.len())
        && bytes::digits_end(digits, 0) == 2
        && check::mod97(characters)
}
