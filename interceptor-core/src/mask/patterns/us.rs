//! Numbers of US authorities: social security, taxpayers, banks, providers of health care.
//!
//! It owns their parts. A number without a form of its own counts only beside words that name it.

use core::ops::Range;

use super::bytes::{self, before, begins_word, ends_in_number, ends_word, starts_with_number};
use super::{Pattern, check, context, groups};

const SSN_WORDS: &[&str] = &["ssn", "ssns", "social", "sozialversicherung"];
const ITIN_WORDS: &[&str] = &["itin", "itins", "taxpayer", "tin"];
const ABA_WORDS: &[&str] = &["aba", "routing", "rtn", "abartn", "transit", "fedwire"];
const NPI_WORDS: &[&str] = &["npi", "npis", "provider", "prescriber"];

/// A social security or taxpayer number in three groups that begins at `start`: AAA-GG-SSSS, one separator
/// throughout. A neighbour behind the same separator makes it a longer number of another kind.
pub(super) fn in_groups(text: &[u8], start: usize) -> Option<(Pattern, Range<usize>)> {
    let separator = *text.get(start + 3)?;
    if !matches!(separator, b' ' | b'-') {
        return None;
    }
    let groups = groups::read(text, start, |byte| byte == separator);
    let [area, group, serial, ..] = &*groups else {
        return None;
    };
    let end = serial.end;
    let follows_number = before(text, start)
        .split_last()
        .is_some_and(|(last, lead)| *last == separator && ends_in_number(lead));
    let precedes_number = bytes::from(text, end)
        .split_first()
        .is_some_and(|(next, rest)| *next == separator && starts_with_number(rest));
    let shaped = (area.len(), group.len(), serial.len()) == (3, 2, 4);
    if !shaped || follows_number || precedes_number {
        return None;
    }
    let digits = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    let pattern = nine_digits(digits(area), digits(group), digits(serial))?;
    Some((pattern, start..end))
}

/// What nine digits can be.
fn nine_digits(area: &[u8], group: &[u8], serial: &[u8]) -> Option<Pattern> {
    let number = |digits: &[u8]| {
        digits.iter().fold(0_u32, |number, digit| {
            number * 10 + u32::from(*digit - b'0')
        })
    };
    let group = number(group);
    match number(area) {
        0 | 666 => None,
        900.. => matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99).then_some(Pattern::UsItin),
        _ => (group != 0 && number(serial) != 0).then_some(Pattern::UsSsn),
    }
}

/// What a run of digits is by the words around it. `is_wanted` is asked before anything is looked at.
pub(super) fn in_context(
    text: &[u8],
    run: &Range<usize>,
    is_wanted: impl Fn(Pattern) -> bool,
    mut found: impl FnMut(Pattern),
) {
    if !matches!(run.len(), 9 | 10)
        || !begins_word(text, run.start)
        || !ends_word(text, run.end)
        || is_part_of_number(text, run)
    {
        return;
    }
    let value = text.get(run.clone()).unwrap_or_default();
    let mut digits = [0; 10];
    for (digit, byte) in digits.iter_mut().zip(value) {
        *digit = byte - b'0';
    }
    let digits = digits.get(..value.len()).unwrap_or_default();
    let parts = (value.get(..3), value.get(3..5), value.get(5..));
    let nine = match parts {
        (Some(area), Some(group), Some(serial)) if digits.len() == 9 => {
            nine_digits(area, group, serial)
        }
        _ => None,
    };
    for (pattern, fits, words) in [
        (Pattern::UsSsn, nine == Some(Pattern::UsSsn), SSN_WORDS),
        (Pattern::UsItin, nine == Some(Pattern::UsItin), ITIN_WORDS),
        (Pattern::UsAba, check::aba(digits), ABA_WORDS),
        (Pattern::UsNpi, check::npi(digits), NPI_WORDS),
    ] {
        if fits && is_wanted(pattern) && context::is_near(text, run, words) {
            found(pattern);
        }
    }
}

/// A decimal point, a dash or another digit group is next to it.
fn is_part_of_number(text: &[u8], run: &Range<usize>) -> bool {
    let lead = before(text, run.start);
    let follows =
        matches!(lead, [.., b'0'..=b'9', b'.' | b',' | b'-' | b'/']) || lead.ends_with(b"+");
    let precedes = matches!(
        text.get(run.end..run.end + 2),
        Some([b'.' | b',' | b'-' | b'/', b'0'..=b'9'])
    );
    follows || precedes
}
