//! Payment cards and US social security numbers in bytes.
//!
//! It owns how digits in groups are told apart from other numbers. Both are looked for in
//! *sequences*: groups of digits with one space or dash between them, as in
//! `ref 42 4111 1111 1111 1111`, where the card is four of the five groups.

use alloc::vec::Vec;
use core::ops::Range;

use super::Pattern;

/// The fewest digits in which either pattern can be.
pub(super) const DIGITS_MIN: usize = 9;
const CARD_DIGITS_MIN: usize = 13;
const CARD_DIGITS_MAX: usize = 19;

/// A run of digits.
type Group = Range<usize>;

/// Finds every card and number that is asked for, in order of sequences, without overlap.
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
        // The rest of a sequence in which no card begins, where a number may still be.
        let mut rest = 0;
        if cards && !is_fraction(text, start) && !is_iban(text, &groups) {
            let mut first = usize::from(is_international_phone(text, start));
            while first < groups.len() {
                let Some(count) = card_at(text, groups.get(first..).unwrap_or_default()) else {
                    first += 1;
                    continue;
                };
                if ssns {
                    find_ssns(
                        text,
                        groups.get(rest..first).unwrap_or_default(),
                        &mut found,
                    );
                }
                found(Pattern::PaymentCard, span(groups.get(first..first + count)));
                first += count;
                rest = first;
            }
        }
        if ssns {
            find_ssns(text, groups.get(rest..).unwrap_or_default(), &mut found);
        }
    }
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

/// The digits after a decimal point: every hundredth float would pass for a card.
fn is_fraction(text: &[u8], start: usize) -> bool {
    matches!(start.checked_sub(2).and_then(|from| text.get(from..start)),
        Some([digit, b'.']) if digit.is_ascii_digit())
}

/// `+49 1511 2345678`: the country's code is no start of a card.
fn is_international_phone(text: &[u8], start: usize) -> bool {
    start.checked_sub(1).and_then(|before| text.get(before)) == Some(&b'+')
}

/// `DE89 3704 0044 0532 0130 00`: an IBAN in print, by its head.
fn is_iban(text: &[u8], groups: &[Group]) -> bool {
    let Some([check, _, ..]) = Some(groups) else {
        return false;
    };
    check.len() == 2
        && matches!(check.start.checked_sub(2).and_then(|from| text.get(from..check.start)),
            Some([a, b]) if a.is_ascii_uppercase() && b.is_ascii_uppercase())
}

/// How many of the groups, from the first, are a card; the most if there is a choice.
///
/// Cards are printed in groups of four, or as 4-6-5 and 4-6-4. Shorter groups are dates, phones
/// and lists of numbers: a card has no group under three digits, and begins with four at least.
fn card_at(text: &[u8], groups: &[Group]) -> Option<usize> {
    if groups.first()?.len() < 4 {
        return None;
    }
    let mut digits: Vec<u8> = Vec::new();
    let mut longest = None;
    for (index, group) in groups.iter().enumerate() {
        if group.len() < 3 || digits.len() + group.len() > CARD_DIGITS_MAX {
            break;
        }
        digits.extend(text.get(group.clone())?.iter().map(|byte| byte - b'0'));
        if digits.len() >= CARD_DIGITS_MIN && is_issued(&digits) && passes_luhn(&digits) {
            longest = Some(index + 1);
        }
    }
    longest
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

fn passes_luhn(digits: &[u8]) -> bool {
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
    while let Some(window) = groups.get(first..first + 3) {
        let before = first.checked_sub(1).and_then(|index| groups.get(index));
        if is_ssn(text, window, before, groups.get(first + 3)) {
            found(Pattern::UsSsn, span(Some(window)));
            first += 3;
        } else {
            first += 1;
        }
    }
}

/// AAA-GG-SSSS, one separator throughout. A neighbour behind the same separator makes it a longer
/// number of another kind.
fn is_ssn(text: &[u8], window: &[Group], before: Option<&Group>, after: Option<&Group>) -> bool {
    let [area, group, serial] = window else {
        return false;
    };
    if (area.len(), group.len(), serial.len()) != (3, 2, 4) {
        return false;
    }
    let separator = text.get(area.end);
    let of = |range: &Group| text.get(range.clone()).unwrap_or_default();
    separator == text.get(group.end)
        && before.is_none_or(|_| area.start.checked_sub(1).and_then(|at| text.get(at)) != separator)
        && after.is_none_or(|_| text.get(serial.end) != separator)
        && !matches!(of(area), b"000" | b"666" | [b'9', ..])
        && of(group) != b"00"
        && of(serial) != b"0000"
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
