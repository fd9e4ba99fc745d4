//! Words around a number that say what it is.
//!
//! It owns how far they may stand away. It must not know what they are words for.

use core::ops::Range;

use super::bytes;

/// Words before a number are looked for in this many bytes, and at most this many words.
const BEFORE: (usize, usize) = (64, 6);
/// The same where a word is to be closer.
const RIGHT_BEFORE: (usize, usize) = (40, 4);
/// The same after a number.
const AFTER: (usize, usize) = (32, 3);
/// A longer word of a list also stands for what begins with it: `passport` for `passports`.
const STEM_BYTES_MIN: usize = 5;
/// `version: 1.2.3.4`
const LAST_WORD_GAP_MAX: usize = 4;

/// Whether one of the words stands near. They are in lower case; case and what is between words do not matter, and
/// `routingNumber` is two.
pub(in crate::mask) fn is_near<W: AsRef<str>>(
    text: &[u8],
    number: &Range<usize>,
    list: &[W],
) -> bool {
    let (bytes_max, words_max) = BEFORE;
    let lead = bytes::before(text, number.start);
    let lead = bytes::from(lead, lead.len().saturating_sub(bytes_max));
    if is_in_last_words(lead, words_max, list) {
        return true;
    }
    let (bytes_max, words_max) = AFTER;
    let tail = bytes::from(text, number.end);
    let tail = tail.get(..bytes_max).unwrap_or(tail);
    let mut start = 0;
    for _ in 0..words_max {
        let Some(word) = word_after(tail, start) else {
            break;
        };
        if is_listed(tail.get(word.clone()).unwrap_or_default(), list) {
            return true;
        }
        start = word.end;
    }
    false
}

/// Whether one of the words stands before a number, with few others between.
pub(super) fn is_right_before(text: &[u8], number: usize, list: &[&str]) -> bool {
    let lead = bytes::before(text, number);
    let lead = bytes::from(lead, lead.len().saturating_sub(RIGHT_BEFORE.0));
    is_in_last_words(lead, RIGHT_BEFORE.1, list)
}

fn is_in_last_words<W: AsRef<str>>(lead: &[u8], words_max: usize, list: &[W]) -> bool {
    let mut end = lead.len();
    for _ in 0..words_max {
        let Some(word) = word_before(lead, end) else {
            return false;
        };
        if is_listed(lead.get(word.clone()).unwrap_or_default(), list) {
            return true;
        }
        end = word.start;
    }
    false
}

/// The word that ends the text, with at most a few bytes of punctuation behind it.
pub(super) fn last_word(text: &[u8]) -> Option<&[u8]> {
    let word = word_before(text, text.len())?;
    let gap = text.len() - word.end;
    text.get(word).filter(|_| gap <= LAST_WORD_GAP_MAX)
}

fn is_listed<W: AsRef<str>>(word: &[u8], list: &[W]) -> bool {
    list.iter()
        .map(|word| word.as_ref().as_bytes())
        .any(|listed| {
            let stem = word.get(..listed.len());
            stem.is_some_and(|stem| stem.eq_ignore_ascii_case(listed))
                && (word.len() == listed.len() || listed.len() >= STEM_BYTES_MIN)
        })
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80
}

fn word_before(text: &[u8], end: usize) -> Option<Range<usize>> {
    let end = bytes::run_start(text, end, usize::MAX, |byte| !is_letter(byte));
    let mut start = end;
    let mut upper_follows = true;
    for byte in bytes::before(text, end).iter().rev() {
        let is_lower = byte.is_ascii_lowercase();
        // `routingNumber`: the hump begins the word.
        if !is_letter(*byte) || (is_lower && upper_follows && start < end) {
            break;
        }
        upper_follows = byte.is_ascii_uppercase();
        start -= 1;
    }
    (start < end).then_some(start..end)
}

fn word_after(text: &[u8], start: usize) -> Option<Range<usize>> {
    let start = bytes::run_end(text, start, |byte| !is_letter(byte));
    let mut end = start;
    let mut lower_precedes = false;
    for byte in bytes::from(text, start) {
        if !is_letter(*byte) || (byte.is_ascii_uppercase() && lower_precedes) {
            break;
        }
        lower_precedes = byte.is_ascii_lowercase();
        end += 1;
    }
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_on_either_side() {
        let near = |text: &str| {
            let start = text.find("123").unwrap();
            is_near(text.as_bytes(), &(start..start + 3), &["routing", "aba"])
        };
        for text in [
            "Routing: 123",
            "ABA no. 123",
            "{\"aba_number\":\"123\"}",
            "{\"routingNumber\": \"123\"}",
            "bankRouting=123",
            "123 is the routing number",
            "routings 123",
        ] {
            assert!(near(text), "{text}");
        }
        for text in [
            "123",
            "database 123",
            "alabama 123",
            "route 123",
            "abacus 123",
            "routing one two three four five six 123",
            "123 one two three routing",
        ] {
            assert!(!near(text), "{text}");
        }
    }
}
