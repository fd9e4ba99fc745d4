//! Passports: numbers beside a word for passport, and the line that machines read.
//!
//! It owns the forms of several countries, which have little in common: seven to nine capitals and digits.

use core::ops::Range;

use super::bytes::{self, begins_word, ends_word};
use super::context;

const WORDS: &[&str] = &[
    "passport",
    "passeport",
    "reisepass",
    "passnummer",
    "pasaporte",
    "passaporto",
    "passaporte",
    "paspoort",
    "paszport",
];
const NUMBER_CHARS: core::ops::RangeInclusive<usize> = 7..=9;
const DIGITS_MIN: usize = 4;
/// The second line of an ICAO 9303 passport.
const LINE_CHARS: usize = 44;

/// A number of a passport whose first digit is here.
pub(super) fn around_digit(text: &[u8], digit: usize) -> Option<Range<usize>> {
    let most = *NUMBER_CHARS.end();
    let start = bytes::run_start(text, digit, most, |byte| byte.is_ascii_uppercase());
    let end = bytes::run_end_within(text, digit, most + 1, |byte| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit()
    });
    let range = start..end;
    let value = text.get(range.clone())?;
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let shaped = NUMBER_CHARS.contains(&value.len())
        && digits >= DIGITS_MIN
        && begins_word(text, start)
        && ends_word(text, end)
        && !is_in_longer(text, &range);
    (shaped && context::is_near(text, &range, WORDS)).then_some(range)
}

/// A date or a number with dashes goes on around it.
fn is_in_longer(text: &[u8], range: &Range<usize>) -> bool {
    let lead = bytes::before(text, range.start);
    matches!(lead, [.., b'0'..=b'9', b'-' | b'.' | b'/' | b','])
        || matches!(
            text.get(range.end..range.end + 2),
            Some([b'-' | b'.' | b'/' | b',', b'0'..=b'9'])
        )
}

/// The second line of the zone for machines, if it begins here: its check digits are right.
pub(super) fn machine_line(text: &[u8], start: usize) -> Option<Range<usize>> {
    let range = start..start + LINE_CHARS;
    let line = text.get(range.clone())?;
    let shaped = line
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'<')
        && ends_word(text, range.end);
    let right = |fields: &[Range<usize>], check: usize| {
        let weights = [7, 3, 1].into_iter().cycle();
        let bytes = fields
            .iter()
            .flat_map(|field| line.get(field.clone()).unwrap_or_default());
        let sum: u32 = bytes
            .zip(weights)
            .map(|(byte, weight)| value(*byte) * weight)
            .sum();
        line.get(check).is_some_and(|byte| value(*byte) == sum % 10)
    };
    let checked = shaped
        && line.get(10..13)?.iter().all(|byte| !byte.is_ascii_digit())
        && right(core::slice::from_ref(&(0..9)), 9)
        && right(core::slice::from_ref(&(13..19)), 19)
        && right(core::slice::from_ref(&(21..27)), 27)
        && right(&[0..10, 13..20, 21..43], 43);
    checked.then_some(range)
}

fn value(byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'Z' => u32::from(byte - b'A') + 10,
        _ => 0,
    }
}
