//! Telephone numbers.
//!
//! It owns their forms. With `+` and a country's code they tell by themselves; national forms are those
//! that hardly anything else is written in, and beside a word for telephone any plausible number counts.

use core::ops::Range;

use super::bytes::{self, begins_word, ends_word, is_digit};
use super::context;
use super::groups::Groups;

const DIGITS_MAX: usize = 15;
/// National numbers beside a word.
const CONTEXT_DIGITS: core::ops::RangeInclusive<usize> = 7..=15;
const EXTENSION_DIGITS_MAX: usize = 6;

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "phone", "phones", "telephone", "tel", "mobile", "cell", "cellphone", "fax", "call", "calls", "callback", "dial",
    "whatsapp", "sms", "hotline", "pager", "ph", "mob", "contact", "telefon", "telefonnummer", "handy", "mobil",
    "mobilnummer", "rufnummer", "téléphone", "telephone", "portable", "teléfono", "telefono", "móvil", "movil",
    "celular", "cellulare", "telefone", "telefoon", "ring",
];

/// Calling codes with how many digits follow; others of three digits have 6 to 12.
#[rustfmt::skip]
const COUNTRIES: &[(u32, usize, usize)] = &[
    (1, 10, 10), (7, 10, 10), (20, 8, 10), (27, 9, 9), (30, 10, 10), (31, 9, 11), (32, 8, 9), (33, 9, 9),
    (34, 9, 9), (36, 8, 9), (39, 6, 11), (40, 9, 9), (41, 9, 9), (43, 5, 13), (44, 9, 10), (45, 8, 8),
    (46, 7, 10), (47, 5, 8), (48, 9, 9), (49, 6, 12), (51, 8, 9), (52, 10, 10), (53, 6, 8), (54, 10, 11),
    (55, 10, 11), (56, 8, 9), (57, 8, 10), (58, 10, 10), (60, 7, 10), (61, 9, 9), (62, 7, 12), (63, 8, 10),
    (64, 7, 10), (65, 8, 8), (66, 8, 9), (81, 9, 10), (82, 7, 11), (84, 7, 10), (86, 7, 11), (90, 10, 10),
    (91, 10, 10), (92, 8, 10), (93, 9, 9), (94, 9, 9), (95, 7, 10), (98, 8, 10),
];

/// A number that begins at the digit, or at the `+` or bracket before it.
pub(super) fn at(text: &[u8], digit: usize) -> Option<Range<usize>> {
    let lead = bytes::before(text, digit);
    match lead {
        [.., b'0'..=b'9', b'.' | b',' | b'-' | b'/'] => return None,
        [.., b'+', b'('] => return international(text, digit - 2, digit),
        [.., b'+'] => return international(text, digit - 1, digit),
        _ => {}
    }
    let run = bytes::digits_end(text, digit);
    let bracket = lead.ends_with(b"(") && text.get(run) == Some(&b')');
    let start = if bracket { digit - 1 } else { digit };
    if !begins_word(text, start) || lead.ends_with(b"_") || run - digit > DIGITS_MAX {
        return None;
    }
    // Groups with blanks behind a number are more of that number: an account, a card.
    if matches!(lead, [.., b'0'..=b'9', b' ']) && text.get(run) == Some(&b' ') {
        return None;
    }
    if text.get(digit..digit + 2) == Some(b"00")
        && let Some(range) = after_two_zeros(text, start, digit)
    {
        return Some(range);
    }
    let groups = read(text, digit);
    let national = north_american(text, bracket, &groups)
        .or_else(|| pairs(text, &groups))
        .or_else(|| trunk(text, bracket, &groups));
    if let Some(end) = national {
        return Some(start..extension(text, end));
    }
    in_context(text, start, &groups)
}

/// Reads groups of digits as telephone numbers are written: one or two separators between them.
fn read(text: &[u8], start: usize) -> Groups {
    let mut groups = Groups::default();
    let mut begin = start;
    let mut digits = 0;
    // A bracket closes only behind the group that it was opened before.
    let mut opened = bytes::before(text, start).ends_with(b"(");
    loop {
        let end = bytes::digits_end(text, begin);
        digits += end - begin;
        if digits > DIGITS_MAX || !groups.push(begin..end) {
            return groups;
        }
        let (gap, opens) = match bytes::from(text, end) {
            [b')', b' ' | b'-' | b'/', b'0'..=b'9', ..] if opened => (2, false),
            [b')', b'0'..=b'9', ..] if opened => (1, false),
            [b' ' | b'-', b'(', b'0'..=b'9', ..] => (2, true),
            [b'(', b'0'..=b'9', ..] => (1, true),
            [b' ', b'-' | b'/', b' ', b'0'..=b'9', ..] => (3, false),
            [b' ' | b'-' | b'.' | b'/', b'0'..=b'9', ..] => (1, false),
            _ => return groups,
        };
        opened = opens;
        begin = end + gap;
    }
}

fn digit_count(groups: &[Range<usize>]) -> usize {
    groups.iter().map(Range::len).sum()
}

/// The first digits as a number.
fn leading(text: &[u8], groups: &[Range<usize>], count: usize) -> Option<u32> {
    let digits = groups
        .iter()
        .flat_map(|group| text.get(group.clone()).unwrap_or_default());
    let mut taken = 0;
    let number = digits.take(count).fold(0, |number, digit| {
        taken += 1;
        number * 10 + u32::from(digit - b'0')
    });
    (taken == count).then_some(number)
}

/// The calling code's digits, and how many may follow.
fn country(text: &[u8], groups: &[Range<usize>]) -> Option<(usize, usize, usize)> {
    for count in 1..=2 {
        let code = leading(text, groups, count)?;
        if let Some((_, least, most)) = COUNTRIES.iter().find(|(known, ..)| *known == code) {
            return Some((count, *least, *most));
        }
    }
    let code = leading(text, groups, 3)?;
    let known = matches!(code,
        210..=269 | 290..=299 | 350..=359 | 370..=389 | 420..=423 | 500..=509 | 590..=599
        | 670..=692 | 800 | 808 | 850..=856 | 870 | 880..=888 | 960..=979 | 992..=998);
    known.then_some((3, 6, 12))
}

/// `+49 (0)30 901820`; the most groups that fit.
fn international(text: &[u8], start: usize, digit: usize) -> Option<Range<usize>> {
    if !begins_word(text, start) {
        return None;
    }
    let groups = read(text, digit);
    let end = plausible(text, &groups, 0)?;
    let end = close_bracket(text, start, end);
    Some(start..extension(text, end))
}

/// `0049 30 901820`: without a word, only in groups.
fn after_two_zeros(text: &[u8], start: usize, digit: usize) -> Option<Range<usize>> {
    let mut groups = Groups::default();
    let all = read(text, digit);
    for (index, group) in all.iter().enumerate() {
        let skipped = if index == 0 { 2 } else { 0 };
        if group.len() > skipped {
            groups.push(group.start + skipped..group.end);
        }
    }
    let end = plausible(text, &groups, 0)?;
    let grouped = all.first().is_some_and(|first| first.end < end);
    let range = start..extension(text, end);
    (grouped || context::is_near(text, &range, WORDS)).then_some(range)
}

/// Where the longest run of groups ends that a number with this calling code can have.
fn plausible(text: &[u8], groups: &Groups, skipped: usize) -> Option<usize> {
    let groups = groups.get(skipped..)?;
    let (code, least, most) = country(text, groups)?;
    let mut end = None;
    let mut digits = 0;
    for (index, group) in groups.iter().enumerate() {
        // `(0)` is dialled only at home.
        let is_trunk = index > 0 && text.get(group.start - 1..group.end + 1) == Some(b"(0)");
        if !is_trunk {
            digits += group.len();
        }
        // A date behind the number.
        let is_date = index > 0
            && group.len() == 4
            && text.get(group.end) == Some(&b'-')
            && text.get(group.end + 3) == Some(&b'-');
        if is_date {
            break;
        }
        let national = digits.saturating_sub(code);
        if (least..=most).contains(&national) && ends_word_or_extension(text, group.end) {
            end = Some(group.end);
        }
        if code == 1 && national == most {
            break;
        }
    }
    let first = groups.first()?;
    let national = leading(text, groups, code + 1)? % 10;
    // No area begins so in North America.
    let possible = !(code == 1 && leading(text, groups, 1) == Some(1) && national < 2);
    end.filter(|end| possible && *end > first.start)
}

fn ends_word_or_extension(text: &[u8], end: usize) -> bool {
    ends_word(text, end) || extension(text, end) > end
}

fn close_bracket(text: &[u8], start: usize, end: usize) -> usize {
    let opened = bytes::from(text, start).starts_with(b"+(");
    let closed = text
        .get(start..end)
        .is_some_and(|number| number.contains(&b')'));
    end + usize::from(opened && !closed && text.get(end) == Some(&b')'))
}

/// The separator behind a group, if it is one byte.
fn separator(text: &[u8], groups: &[Range<usize>], index: usize) -> Option<u8> {
    let (one, next) = (groups.get(index)?, groups.get(index + 1)?);
    (next.start == one.end + 1).then(|| text.get(one.end).copied())?
}

/// Nothing numeric goes on behind the last group.
fn is_last(text: &[u8], groups: &[Range<usize>], index: usize) -> bool {
    let Some(group) = groups.get(index) else {
        return false;
    };
    let goes_on = matches!(
        bytes::from(text, group.end),
        [b'-' | b'.' | b'/' | b':', b'0'..=b'9', ..]
    );
    !goes_on && ends_word_or_extension(text, group.end)
}

/// `(212) 555-0123`, `212-555-0123`, `1.212.555.0123`
fn north_american(text: &[u8], bracket: bool, groups: &[Range<usize>]) -> Option<usize> {
    let first = groups.first()?;
    let skipped = usize::from(first.len() == 1 && text.get(first.start) == Some(&b'1'));
    let [area, exchange, line, ..] = groups.get(skipped..)? else {
        return None;
    };
    let shaped = (area.len(), exchange.len(), line.len()) == (3, 3, 4);
    let area_bracket = bytes::before(text, area.start).ends_with(b"(");
    let from_two = |group: &Range<usize>| matches!(text.get(group.start), Some(b'2'..=b'9'));
    if !shaped || !is_last(text, groups, skipped + 2) || !from_two(area) {
        return None;
    }
    if (bracket && skipped == 0) || area_bracket {
        return Some(line.end);
    }
    let one = separator(text, groups, skipped)?;
    let two = separator(text, groups, skipped + 1)?;
    let separated = matches!(one, b'-' | b'.' | b' ' | b'/') && (one == two || two == b'-');
    // Groups with spaces may be any numbers; a fourth one makes them a list.
    let listed = one == b' ' && groups.len() > skipped + 3;
    (separated && from_two(exchange) && !listed).then_some(line.end)
}

/// `01 23 45 67 89`, as in France.
fn pairs(text: &[u8], groups: &[Range<usize>]) -> Option<usize> {
    let five = groups.get(..5)?;
    let first = separator(text, groups, 0)?;
    let shaped = five.iter().all(|group| group.len() == 2)
        && (1..4).all(|index| separator(text, groups, index) == Some(first))
        && matches!(text.get(five.first()?.clone())?, [b'0', b'1'..=b'9'])
        && matches!(first, b' ' | b'.' | b'-')
        && is_last(text, groups, 4)
        && groups.get(5).is_none_or(|more| more.len() != 2);
    shaped.then(|| five.last().map(|group| group.end))?
}

/// `020 7946 0958`, `(030) 901820`, `030/901820`: a zero, an area, the rest.
fn trunk(text: &[u8], bracket: bool, groups: &[Range<usize>]) -> Option<usize> {
    let first = groups.first()?;
    let zero = matches!(text.get(first.start..first.start + 2)?, [b'0', b'1'..=b'9']);
    let second = separator(text, groups, 0);
    let marked = bracket || second == Some(b'/');
    let area = if marked { 3..=6 } else { 3..=5 };
    if !zero || !area.contains(&first.len()) || !(2..=5).contains(&groups.len()) {
        return None;
    }
    let rest = groups.get(1..)?;
    // A group of one is a list or a coordinate, and one with a dot a date or an amount.
    let shortest = if second == Some(b'-') { 3 } else { 2 };
    let even = rest.iter().all(|group| group.len() >= shortest)
        && (0..rest.len()).all(|index| separator(text, groups, index) != Some(b'.'));
    let digits = digit_count(groups);
    let plausible = if marked {
        (8..=12).contains(&digits)
    } else {
        (10..=11).contains(&digits)
    };
    // `02134-1234 …`: a postal code, a date.
    let dated =
        rest.iter().any(|group| group.len() == 4) && rest.len() == 3 && second == Some(b'-');
    (even && plausible && !dated && is_last(text, groups, groups.len() - 1))
        .then(|| groups.last().map(|group| group.end))?
}

/// Any plausible number beside a word.
fn in_context(text: &[u8], start: usize, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let mut end = None;
    let mut digits = 0;
    for (index, group) in groups.iter().enumerate() {
        digits += group.len();
        if CONTEXT_DIGITS.contains(&digits) && is_last(text, groups, index) {
            end = Some(group.end);
        }
    }
    let range = start..end?;
    if is_date(text, groups) || is_decimal(text, &range) {
        return None;
    }
    let range = start..extension(text, range.end);
    context::is_right_before(text, start, WORDS).then_some(range)
}

/// `2024-01-15`, `15.01.2024`, `01/15/2024`, and `20240115` by its century.
fn is_date(text: &[u8], groups: &[Range<usize>]) -> bool {
    let lengths = |index: usize| groups.get(index).map_or(0, Range::len);
    let shape = (lengths(0), lengths(1), lengths(2));
    let century = groups
        .first()
        .and_then(|first| text.get(first.start..first.start + 2))
        .is_some_and(|digits| matches!(digits, b"19" | b"20"));
    (matches!(shape, (4, 2, 2)) && century)
        || matches!(shape, (2 | 1, 2 | 1, 4))
        || (lengths(0) == 8 && century)
}

fn is_decimal(text: &[u8], range: &Range<usize>) -> bool {
    matches!(
        text.get(range.end..range.end + 2),
        Some([b',' | b'.' | b':', b'0'..=b'9'])
    )
}

/// Where `x123` or `ext. 123` behind a number ends.
fn extension(text: &[u8], end: usize) -> usize {
    let rest = bytes::from(text, end);
    let space = rest.len() - rest.trim_ascii_start().len();
    if space > 1 {
        return end;
    }
    let Some(word) = [&b"extension"[..], b"ext.", b"ext", b"x"]
        .into_iter()
        .find(|word| {
            let head = rest.get(space..space + word.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(word))
        })
    else {
        return end;
    };
    let mut digit = end + space + word.len();
    digit += usize::from(text.get(digit) == Some(&b' '));
    let last = bytes::run_end_within(text, digit, EXTENSION_DIGITS_MAX + 1, |byte| {
        byte.is_ascii_digit()
    });
    let whole = last > digit && last - digit <= EXTENSION_DIGITS_MAX && ends_word(text, last);
    if whole && is_digit(text, digit) {
        last
    } else {
        end
    }
}
