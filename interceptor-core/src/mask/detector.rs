//! Patterns that a policy brings along.
//!
//! It owns how their findings are checked. It must not know what is shown instead.
//!
//! The engine is linear in the text. What a check refuses is looked at again from its second byte on, so
//! that a number does not hide in a longer run; the work for that is bounded, and beyond the bound
//! findings count unchecked.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use regex::bytes::Regex;

use super::patterns::{check, context, iban};

/// Refused findings are looked at again up to this many bytes, and as many as the text has four times.
const RETRY_BYTES_MIN: usize = 64 * 1024;

/// What a finding has to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing.
    None,
    /// Its last digit is right by Luhn's formula, as in payment cards.
    Luhn,
    /// Its letters and digits are right modulo 97 by ISO 7064, as in an IBAN.
    Mod97,
    /// It is an IBAN: a known country's, of its length, and right modulo 97.
    Iban,
    /// Its last digit is right by Verhoeff's formula, as in an Aadhaar number.
    Verhoeff,
    /// A routing number of a US bank.
    UsAba,
    /// A number of a US provider of health care.
    UsNpi,
    /// Its last bytes are right by base58check, as in Bitcoin's addresses and keys.
    Base58,
}

impl Check {
    /// Every check with its name in policy files.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("none", Self::None),
        ("luhn", Self::Luhn),
        ("mod97", Self::Mod97),
        ("iban", Self::Iban),
        ("verhoeff", Self::Verhoeff),
        ("us_aba", Self::UsAba),
        ("us_npi", Self::UsNpi),
        ("base58check", Self::Base58),
    ];

    fn passes(self, value: &[u8]) -> bool {
        let digits = |passes: fn(&[u8]) -> bool| {
            check::digits(value).is_some_and(|digits| digits.len() >= 2 && passes(&digits))
        };
        let characters = |passes: fn(&[u8]) -> bool| {
            check::letters_and_digits(value).is_some_and(|characters| passes(&characters))
        };
        match self {
            Self::None => true,
            Self::Luhn => digits(check::luhn),
            Self::Mod97 => characters(check::mod97),
            Self::Iban => characters(iban::is_valid),
            Self::Verhoeff => digits(check::verhoeff),
            Self::UsAba => digits(check::aba),
            Self::UsNpi => digits(check::npi),
            Self::Base58 => check::base58check(value).is_some(),
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
    /// Words in lower case, one of which has to stand near; none if nothing has to.
    pub(crate) context: Vec<Box<str>>,
}

impl Detector {
    /// Finds what matches and passes, in order, without overlap.
    pub(super) fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        let mut retries = RETRY_BYTES_MIN.saturating_add(text.len().saturating_mul(4));
        // Finding a match costs less than finding its groups, and allocates nothing.
        let Some(first) = self.regex.find(text) else {
            return;
        };
        let mut locations = self.regex.capture_locations();
        let mut from = first.start();
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
            let range = inner_start..inner_end;
            let checked = retries > 0;
            if !range.is_empty() && (!checked || self.passes(text, &range)) {
                // The group may end before the match does; what comes after it may begin another.
                from = inner_end.max(start + 1);
                found(range);
            } else {
                retries = retries.saturating_sub(end - from + 1);
                from = start + 1;
            }
        }
    }

    fn passes(&self, text: &[u8], range: &Range<usize>) -> bool {
        let value = text.get(range.clone()).unwrap_or_default();
        self.check.passes(value)
            && (self.context.is_empty() || context::is_near(text, range, &self.context))
    }
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
            (
                Check::Iban,
                "DE89 3704 0044 0532 0130 00",
                "XX44 3704 0044 0532 0130 00",
            ),
            (Check::Verhoeff, "2363", "2364"),
            (Check::UsAba, "021000021", "021000022"),
            (Check::UsNpi, "1234567893", "1234567894"),
            (
                Check::Base58,
                "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
                "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
            ),
            (Check::None, "anything", ""),
        ] {
            assert!(check.passes(right.as_bytes()), "{check:?} {right}");
            let refused = !check.passes(wrong.as_bytes());
            assert_eq!(refused, check != Check::None, "{check:?} {wrong}");
        }
    }

    fn found(pattern: &str, check: Check, group: usize, text: &[u8]) -> Vec<String> {
        found_near(pattern, check, group, &[], text)
    }

    fn found_near(
        pattern: &str,
        check: Check,
        group: usize,
        context: &[&str],
        text: &[u8],
    ) -> Vec<String> {
        let detector = Detector {
            name: "d".into(),
            regex: Regex::new(pattern).unwrap(),
            group,
            check,
            context: context.iter().map(|word| (*word).into()).collect(),
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

    #[test]
    fn a_word_has_to_stand_near() {
        let near =
            |text: &str| found_near("[0-9]{4}", Check::None, 0, &["pin"], text.as_bytes()).len();
        assert_eq!(near("the PIN is 1234"), 1);
        assert_eq!(near("pinned 1234, year 2024"), 0);
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
