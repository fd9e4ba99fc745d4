//! Payment cards.
//!
//! It owns layouts, issuers and lengths. Cards are written in one group, in groups of four, or as 4-6-5
//! and 4-6-4; other groups are dates, phones, UUIDs and lists of numbers.

use core::ops::Range;

use super::bytes::{self, before, ends_in_number};
use super::check;
use super::groups::{self, Groups};

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;

/// What stands at a group of digits.
pub(super) enum Card {
    Found(Range<usize>),
    /// A number of another kind, of which no group up to the position begins a card.
    Other(usize),
    Nothing,
}

/// A card whose first group begins at `start`; the most groups if there is a choice.
pub(super) fn at(text: &[u8], start: usize) -> Card {
    let groups = groups::read(text, start, |byte| matches!(byte, b' ' | b'-'));
    if let Some(end) = other_number(text, start, &groups) {
        return Card::Other(end);
    }
    let Some(first) = groups.first() else {
        return Card::Nothing;
    };
    if first.len() >= DIGITS_MIN {
        return match is_card(text, core::slice::from_ref(first)) {
            true => Card::Found(first.clone()),
            false => Card::Nothing,
        };
    }
    let mut longest = Card::Nothing;
    let mut digits = 0;
    for (index, group) in groups.iter().enumerate() {
        let shortest = if index == 0 { 4 } else { 3 };
        digits += group.len();
        if !(shortest..=6).contains(&group.len()) || digits > DIGITS_MAX {
            break;
        }
        let all = groups.get(..=index).unwrap_or_default();
        if digits >= DIGITS_MIN && is_card(text, all) {
            longest = Card::Found(start..group.end);
        }
    }
    longest
}

/// Where a number of another kind ends, by what stands before it.
fn other_number(text: &[u8], start: usize, groups: &Groups) -> Option<usize> {
    let (head, rest) = groups.split_first()?;
    let lead = before(text, start);
    // `+49 1511 2345678`: a country's code is no start of a card. Nor are the digits after a
    // decimal point: every hundredth float would pass for one.
    if lead.ends_with(b"+") || lead.strip_suffix(b".").is_some_and(ends_in_number) {
        return Some(head.end);
    }
    // `DE89 3704 0044 0532 0130 00`: an IBAN in print, up to the group that is not of four.
    if head.len() == 2 && ends_in_country(lead) {
        let fours = rest.iter().take_while(|group| group.len() == 4).count();
        let last = rest.get(fours).or(rest.last()).unwrap_or(head);
        return Some(last.end);
    }
    None
}

/// Two capitals that are no end of a word or of a domain.
fn ends_in_country(text: &[u8]) -> bool {
    let [lead @ .., b'A'..=b'Z', b'A'..=b'Z'] = text else {
        return false;
    };
    !lead
        .last()
        .is_some_and(|byte| super::email::is_word(*byte) || matches!(byte, b'.' | b'-' | b'@'))
}

fn is_card(text: &[u8], groups: &[Range<usize>]) -> bool {
    let mut digits = [0; DIGITS_MAX];
    let mut count = 0;
    for group in groups {
        for byte in text.get(group.clone()).unwrap_or_default() {
            let Some(digit) = digits.get_mut(count) else {
                return false;
            };
            *digit = byte - b'0';
            count += 1;
        }
    }
    let digits = digits.get(..count).unwrap_or_default();
    is_issued(digits) && check::luhn(digits)
}

/// The prefix belongs to a card scheme, and the length is one that the scheme issues.
fn is_issued(digits: &[u8]) -> bool {
    let prefix = |count: usize| {
        digits
            .iter()
            .take(count)
            .fold(0_u32, |number, digit| number * 10 + u32::from(*digit))
    };
    let length = digits.len();
    let visa = prefix(1) == 4 && matches!(length, 13 | 16 | 19);
    let mastercard =
        (matches!(prefix(2), 51..=55) || matches!(prefix(4), 2221..=2720)) && length == 16;
    let american_express = matches!(prefix(2), 34 | 37) && length == 15;
    let diners = (matches!(prefix(3), 300..=305 | 309) || matches!(prefix(2), 36 | 38 | 39))
        && (14..=19).contains(&length);
    let discover = (prefix(4) == 6011 || matches!(prefix(3), 644..=649) || prefix(2) == 65)
        && (16..=19).contains(&length);
    let jcb = matches!(prefix(4), 3528..=3589) && (16..=19).contains(&length);
    let unionpay = matches!(prefix(2), 62 | 81) && (16..=19).contains(&length);
    let maestro = matches!(prefix(2), 50 | 56..=58 | 63 | 67) && (13..=19).contains(&length);
    visa || mastercard || american_express || diners || discover || jcb || unionpay || maestro
}

/// Whether a run of digits is too short to be a card by itself and has no group behind it.
pub(super) fn is_out_of_question(text: &[u8], digits: &Range<usize>) -> bool {
    let more =
        matches!(text.get(digits.end), Some(b' ' | b'-')) && bytes::is_digit(text, digits.end + 1);
    digits.len() < DIGITS_MIN && !(more && (2..=6).contains(&digits.len()))
}
