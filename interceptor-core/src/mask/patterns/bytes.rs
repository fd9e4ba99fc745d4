//! Neighbours in a text: where words and runs begin and end.
//!
//! It owns what is next to a candidate. It must not know what the candidate is.

use super::super::MASK_TEXT;

/// What stands before a position.
pub(super) fn before(text: &[u8], position: usize) -> &[u8] {
    text.get(..position).unwrap_or_default()
}

/// What stands from a position on.
pub(super) fn from(text: &[u8], position: usize) -> &[u8] {
    text.get(position..).unwrap_or_default()
}

/// The byte before a position.
pub(super) fn last(text: &[u8], position: usize) -> Option<u8> {
    before(text, position).last().copied()
}

pub(super) fn is_digit(text: &[u8], position: usize) -> bool {
    text.get(position).is_some_and(u8::is_ascii_digit)
}

/// The end of the run of bytes that `belongs` accepts.
pub(super) fn run_end(text: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let rest = from(text, start);
    start + rest.iter().take_while(|byte| belongs(**byte)).count()
}

/// The same, looking at no more than `most` bytes.
pub(super) fn run_end_within(
    text: &[u8],
    start: usize,
    most: usize,
    belongs: impl Fn(u8) -> bool,
) -> usize {
    let rest = from(text, start).iter().take(most);
    start + rest.take_while(|byte| belongs(**byte)).count()
}

/// The start of the run of bytes that `belongs` accepts, at most `most` before `end`.
pub(super) fn run_start(
    text: &[u8],
    end: usize,
    most: usize,
    belongs: impl Fn(u8) -> bool,
) -> usize {
    let lead = before(text, end).iter().rev().take(most);
    end - lead.take_while(|byte| belongs(**byte)).count()
}

pub(super) fn digits_end(text: &[u8], start: usize) -> usize {
    run_end(text, start, |byte| byte.is_ascii_digit())
}

/// No letter or digit stands before; the letter of an escape (`\n` in JSON) is none.
pub(super) fn begins_word(text: &[u8], position: usize) -> bool {
    match before(text, position) {
        [.., b'\\', b'n' | b'r' | b't'] => true,
        [.., last] => !last.is_ascii_alphanumeric(),
        [] => true,
    }
}

/// No letter or digit follows.
pub(super) fn ends_word(text: &[u8], position: usize) -> bool {
    !text.get(position).is_some_and(u8::is_ascii_alphanumeric)
}

/// A number, or what a mask left of one: what is next to a finding is judged the same before and
/// after the finding is replaced.
pub(super) fn ends_in_number(text: &[u8]) -> bool {
    text.last().is_some_and(u8::is_ascii_digit) || text.ends_with(MASK_TEXT.as_bytes())
}

pub(super) fn starts_with_number(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit) || text.starts_with(MASK_TEXT.as_bytes())
}

/// At least `least` different bytes: a placeholder such as `xxxxxxxx` has fewer.
pub(super) fn is_varied(bytes: &[u8], least: u32) -> bool {
    let mut seen = [0_u64; 4];
    for byte in bytes {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    seen.iter().map(|word| word.count_ones()).sum::<u32>() >= least
}
