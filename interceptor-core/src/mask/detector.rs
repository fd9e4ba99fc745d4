//! Patterns that a policy brings along.
//!
//! It owns how their findings are checked. It must not know what is shown instead.
//!
//! The engine is linear in the text. What a check refuses is looked at again from its second byte on, so
//! that a number does not hide in a longer run; the work for that is bounded, and beyond the bound
//! findings count unchecked.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use regex::bytes::Regex;

use super::digits;

/// Refused findings are looked at again up to this many bytes, and as many as the text has four times.
const RETRY_BYTES_MIN: usize = 64 * 1024;
/// The most digits of a country's check number that are kept apart: an IBAN has 34 characters.
const MOD97_CHARS_MAX: usize = 64;

/// What a finding has to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing.
    None,
    /// Its last digit is right by Luhn's formula, as in payment cards.
    Luhn,
    /// Its letters and digits are right modulo 97 by ISO 7064, as in an IBAN.
    Mod97,
}

impl Check {
    /// Every check with its name in policy files.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("none", Self::None),
        ("luhn", Self::Luhn),
        ("mod97", Self::Mod97),
    ];

    fn passes(self, value: &[u8]) -> bool {
        match self {
            Self::None => true,
            Self::Luhn => passes_luhn(value),
            Self::Mod97 => passes_mod97(value),
        }
    }
}

/// A pattern of a policy.
#[derive(Debug)]
pub(crate) struct Detector {
    /// Its name; equal names are equal detectors.
    pub(crate) name: Arc<str>,
    pub(crate) regex: Regex,
    /// Which of the expression's groups is the finding; 0 is all of it.
    pub(crate) group: usize,
    pub(crate) check: Check,
}

impl Detector {
    /// Finds what matches and passes, in order, without overlap.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        let mut retries = RETRY_BYTES_MIN.saturating_add(text.len().saturating_mul(4));
        let mut locations = self.regex.capture_locations();
        let mut from = 0;
        while from <= text.len() {
            if self
                .regex
                .captures_read_at(&mut locations, text, from)
                .is_none()
            {
                return;
            }
            let Some((start, end)) = locations.get(0) else {
                return;
            };
            // A group that takes no part in the match leaves the whole of it.
            let (inner_start, inner_end) = locations.get(self.group).unwrap_or((start, end));
            let value = text.get(inner_start..inner_end).unwrap_or_default();
            let checked = retries > 0;
            if !value.is_empty() && (!checked || self.check.passes(value)) {
                found(inner_start..inner_end);
                // The group may end before the match does; what comes after it may begin another.
                from = inner_end.max(start + 1);
            } else {
                retries = retries.saturating_sub(end - from + 1);
                from = start + 1;
            }
        }
    }
}

/// Spaces and dashes group digits; anything else is no number.
fn passes_luhn(value: &[u8]) -> bool {
    let mut digits = Vec::new();
    for byte in value {
        match byte {
            b'0'..=b'9' => digits.push(byte - b'0'),
            b' ' | b'-' => {}
            _ => return false,
        }
    }
    digits.len() >= 2 && digits::passes_luhn(&digits)
}

/// The first four characters go behind the others, letters count from 10, and the number that this
/// gives leaves 1 modulo 97.
fn passes_mod97(value: &[u8]) -> bool {
    let mut characters = Vec::new();
    for byte in value {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => characters.push(byte.to_ascii_uppercase()),
            b' ' | b'-' => {}
            _ => return false,
        }
    }
    if !(5..=MOD97_CHARS_MAX).contains(&characters.len()) {
        return false;
    }
    characters.rotate_left(4);
    let remainder = characters.iter().fold(0_u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn checks_tell_right_from_wrong() {
        for (check, right, wrong) in [
            (Check::Luhn, "4111 1111 1111 1111", "4111 1111 1111 1112"),
            (Check::Luhn, "79927398713", "79927398710"),
            (Check::Luhn, "18", "8"),
            (Check::Luhn, "1-8", "1x8"),
            (
                Check::Mod97,
                "DE89 3704 0044 0532 0130 00",
                "DE88 3704 0044 0532 0130 00",
            ),
            (
                Check::Mod97,
                "gb82west12345698765432",
                "GB82WEST12345698765433",
            ),
            (Check::Mod97, "NO9386011117947", "NO93_86011117947"),
            (Check::None, "anything", ""),
        ] {
            assert!(check.passes(right.as_bytes()), "{check:?} {right}");
            let refused = !check.passes(wrong.as_bytes());
            assert_eq!(refused, check != Check::None, "{check:?} {wrong}");
        }
    }

    fn found(pattern: &str, check: Check, group: usize, text: &[u8]) -> Vec<String> {
        let detector = Detector {
            name: "d".into(),
            regex: Regex::new(pattern).unwrap(),
            group,
            check,
        };
        let mut all = Vec::new();
        detector.find(text, |range| {
            all.push(String::from_utf8_lossy(&text[range]).into_owned());
        });
        all
    }

    #[test]
    fn a_number_does_not_hide_behind_another_digit() {
        let text = b"94111111111111111 and 4111111111111112";
        assert_eq!(
            found(r"[0-9]{16}", Check::Luhn, 0, text),
            ["4111111111111111"]
        );
    }

    #[test]
    fn a_group_is_the_finding() {
        let text = b"key=abc;key=;key=def";
        assert_eq!(found("key=([a-z]*)", Check::None, 1, text), ["abc", "def"]);
    }

    /// Digits without end that no check passes: each byte would start a look at all the others.
    #[test]
    fn hostile_texts_take_bounded_time_and_stay_hidden() {
        let text = [b'1'; 1024 * 1024];
        let all = found("[0-9]+", Check::Mod97, 0, &text);
        let hidden: usize = all.iter().map(String::len).sum();
        assert!(hidden > text.len() - 64, "{hidden}");
    }
}
