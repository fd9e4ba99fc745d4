//! Payment cards and US social security numbers in bytes.
//!
//! It owns how digits in groups are told apart from other numbers. Both are looked for in
//! *sequences*: groups of digits with one space or dash between them, as in
//! `ref 42 4111 1111 1111 1111`, where the card is four of the five groups.

use alloc::vec::Vec;
use core::ops::Range;

use super::{MASK_TEXT, Pattern, email};

/// The fewest digits in which either pattern can be.
pub(super) const DIGITS_MIN: usize = 9;
const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;

/// A run of digits.
type Group = Range<usize>;

/// Finds every card and number that is asked for. No two overlap: a card has no group of two.
pub(super) fn find(
    text: &[u8],
    cards: bool,
    ssns: bool,
    mut found: impl FnMut(Pattern, Range<usize>),
) {
    let mut groups: Vec<Group> = Vec::new();
    let mut position = 0;
    while let Some(start) = next_digit(text, position) {
        position = read_sequence(text, start, &mut groups);
        if cards {
            find_cards(text, &groups, &mut found);
        }
        if ssns {
            find_ssns(text, &groups, &mut found);
        }
    }
}

fn find_cards(text: &[u8], groups: &[Group], found: &mut impl FnMut(Pattern, Range<usize>)) {
    let mut first = other_number(text, groups);
    while let Some(rest) = groups.get(first..).filter(|rest| !rest.is_empty()) {
        match card_at(text, rest) {
            Some(count) => {
                found(Pattern::PaymentCard, span(rest.get(..count)));
                first += count;
            }
            None => first += 1,
        }
    }
}

/// How many groups at the start of a sequence belong to a number of another kind, by what stands
/// before it.
fn other_number(text: &[u8], groups: &[Group]) -> usize {
    let Some((head, rest)) = groups.split_first() else {
        return 0;
    };
    let lead = before(text, head.start);
    // `+49 1511 2345678`: a country's code is no start of a card. Nor are the digits after a
    // decimal point: every hundredth float would pass for one.
    if lead.ends_with(b"+") || lead.strip_suffix(b".").is_some_and(ends_in_number) {
        return 1;
    }
    // `DE89 3704 0044 0532 0130 00`: an IBAN in print, up to the group that is not of four.
    if head.len() == 2 && ends_in_country(lead) {
        let fours = rest.iter().take_while(|group| group.len() == 4).count();
        return 1 + fours + 1;
    }
    0
}

/// Two capitals that are no end of a word or of a domain.
fn ends_in_country(text: &[u8]) -> bool {
    let [lead @ .., b'A'..=b'Z', b'A'..=b'Z'] = text else {
        return false;
    };
    !lead
        .last()
        .is_some_and(|byte| email::is_word(*byte) || matches!(byte, b'.' | b'-' | b'@'))
}

fn next_digit(text: &[u8], from: usize) -> Option<usize> {
    Some(from + text.get(from..)?.iter().position(u8::is_ascii_digit)?)
}

/// Reads the groups of the sequence that starts at `start` and gives the position after it.
fn read_sequence(text: &[u8], start: usize, groups: &mut Vec<Group>) -> usize {
    groups.clear();
    let mut begin = start;
    loop {
        let digits = text.get(begin..).unwrap_or_default();
        let end = begin
            + digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
        groups.push(begin..end);
        match text.get(end..end + 2) {
            Some([b' ' | b'-', next]) if next.is_ascii_digit() => begin = end + 1,
            _ => return end,
        }
    }
}

fn span(groups: Option<&[Group]>) -> Range<usize> {
    match groups {
        Some([only]) => only.clone(),
        Some([first, .., last]) => first.start..last.end,
        _ => 0..0,
    }
}

/// A number, or what a mask left of one: what is next to a finding is judged the same before and
/// after the finding is replaced.
fn ends_in_number(text: &[u8]) -> bool {
    text.last().is_some_and(u8::is_ascii_digit) || text.ends_with(MASK_TEXT.as_bytes())
}

fn starts_with_number(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit) || text.starts_with(MASK_TEXT.as_bytes())
}

fn before(text: &[u8], position: usize) -> &[u8] {
    text.get(..position).unwrap_or_default()
}

/// How many of the groups, from the first, are a card; the most if there is a choice.
///
/// Cards are written in one group, in groups of four, or as 4-6-5 and 4-6-4. Other groups are
/// dates, phones, UUIDs and lists of numbers.
fn card_at(text: &[u8], groups: &[Group]) -> Option<usize> {
    let first = groups.first()?;
    if first.len() >= CARD_DIGITS_MIN {
        return is_card(text, core::slice::from_ref(first)).then_some(1);
    }
    let mut longest = None;
    let mut digits = 0;
    for (index, group) in groups.iter().enumerate() {
        let shortest = if index == 0 { 4 } else { 3 };
        digits += group.len();
        if !(shortest..=6).contains(&group.len()) || digits > CARD_DIGITS_MAX {
            break;
        }
        if digits >= CARD_DIGITS_MIN && is_card(text, groups.get(..=index)?) {
            longest = Some(index + 1);
        }
    }
    longest
}

fn is_card(text: &[u8], groups: &[Group]) -> bool {
    let bytes = groups
        .iter()
        .flat_map(|group| text.get(group.clone()).unwrap_or_default());
    let digits: Vec<u8> = bytes
        .map(|byte| byte - b'0')
        .take(CARD_DIGITS_MAX + 1)
        .collect();
    is_issued(&digits) && passes_luhn(&digits)
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

pub(super) fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let doubled = u32::from(*digit) * 2;
            if index % 2 == 0 {
                u32::from(*digit)
            } else {
                doubled / 10 + doubled % 10
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn find_ssns(text: &[u8], groups: &[Group], found: &mut impl FnMut(Pattern, Range<usize>)) {
    let mut first = 0;
    while let Some(window @ [area, group, serial]) = groups.get(first..first + 3) {
        if is_ssn(text, area, group, serial) {
            found(Pattern::UsSsn, span(Some(window)));
            first += 3;
        } else {
            first += 1;
        }
    }
}

/// AAA-GG-SSSS, one separator throughout. A neighbour behind the same separator makes it a longer
/// number of another kind.
fn is_ssn(text: &[u8], area: &Group, group: &Group, serial: &Group) -> bool {
    let digits = |range: &Group| text.get(range.clone()).unwrap_or_default();
    let Some(separator) = text.get(area.end) else {
        return false;
    };
    let follows_number = before(text, area.start)
        .split_last()
        .is_some_and(|(last, lead)| last == separator && ends_in_number(lead));
    let precedes_number = text
        .get(serial.end..)
        .and_then(<[u8]>::split_first)
        .is_some_and(|(next, rest)| next == separator && starts_with_number(rest));
    (area.len(), group.len(), serial.len()) == (3, 2, 4)
        && text.get(group.end) == Some(separator)
        && !follows_number
        && !precedes_number
        && !matches!(digits(area), b"000" | b"666" | [b'9', ..])
        && digits(group) != b"00"
        && digits(serial) != b"0000"
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn found(text: &str) -> Vec<(Pattern, String)> {
        let mut all = Vec::new();
        find(text.as_bytes(), true, true, |pattern, range| {
            all.push((pattern, text[range].into()))
        });
        all
    }

    #[test]
    fn cards_are_found_in_every_layout() {
        for card in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "2223003122003222",
            "378282246310005",
            "3782 822463 10005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "3056 930902 5904",
            "6200000000000005",
            "4222222222222",
            "4000056655665556007",
        ] {
            assert_eq!(found(card), [(Pattern::PaymentCard, card.into())], "{card}");
        }
        for (text, card) in [
            ("ref 42 4111 1111 1111 1111", "4111 1111 1111 1111"),
            ("{\"pan\":\"4111111111111111\"}", "4111111111111111"),
            ("paid\\n4111111111111111\\n", "4111111111111111"),
            ("VISA4111111111111111", "4111111111111111"),
            ("0.5 4111111111111111", "4111111111111111"),
            ("+49 4111111111111111", "4111111111111111"),
            (
                "DE89 3704 0044 0532 0130 00 4111 1111 1111 1111",
                "4111 1111 1111 1111",
            ),
            ("2024-01-15 4111111111111111 12.50", "4111111111111111"),
        ] {
            assert_eq!(found(text), [(Pattern::PaymentCard, card.into())], "{text}");
        }
    }

    #[test]
    fn numbers_of_other_kinds_stay() {
        for text in [
            "4111111111111112",     // the check digit is wrong
            "1111111111111117",     // no issuer
            "41111111111111111111", // twenty digits
            "0.4929716091480213",   // a float
            "+49 1511 2345678",     // a phone
            "+1 555 010 9999",
            "(555) 010-9999",
            "2024-01-15 10:30:00.123456+00",
            "1700000000000",                        // milliseconds
            "1700000000000000000",                  // nanoseconds
            "550e8400-e29b-41d4-a716-446655440000", // a UUID
            "00000000-0000-4000-8000-000000000000",
            "DE89 3704 0044 0532 0130 00",
            "DE89370400440532013000",
            "GB29 NWBK 6016 1331 9268 19",
            "FR14 2004 1010 0505 0001 3M02 606",
            "978-3-16-148410-0", // an ISBN
            "ORD-2024-000123456",
            "192.168.100.200",
            "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn social_security_numbers_need_their_separators_and_valid_parts() {
        for text in [
            "078-05-1120",
            "078 05 1120",
            "SSN:078-05-1120.",
            "7 078-05-1120",
        ] {
            assert_eq!(found(text).len(), 1, "{text}");
        }
        for text in [
            "078051120",
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "078-00-1120",
            "078-05-0000",
            "078-05 1120",
            "1-078-05-1120",
            "078-05-1120-33",
            "0078-05-1120",
            "078-05-11201",
            "078--05-1120",
            "078-5-1120",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
