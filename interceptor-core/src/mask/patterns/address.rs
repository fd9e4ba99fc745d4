//! Addresses of networks: IPv4, IPv6 and MAC.
//!
//! It owns what counts as one. Versions, times and digests are written much like them.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use super::bytes::{self, begins_word, ends_word, is_digit};
use super::context;

const IPV4_CHARS_MAX: usize = 15;
/// The longest address in print: an IPv4 one within IPv6.
const IPV6_CHARS_MAX: usize = 45;
const MAC_CHARS: usize = 17;
const CISCO_MAC_CHARS: usize = 14;
/// An address without three colons needs a group of this many digits: `a::b` is C++.
const GROUP_CHARS_MIN: usize = 3;

/// How far back a word for a version is looked for.
const WORD_BYTES_MAX: usize = 16;
/// Words before four numbers that are a version.
const VERSION_WORDS: &[&str] = &["v", "ver", "version", "release", "build", "firmware"];

/// An IPv4 address that begins at the digit.
pub(super) fn ipv4(text: &[u8], start: usize) -> Option<Range<usize>> {
    let lead = bytes::before(text, start);
    if !begins_word(text, start)
        || lead.ends_with(b".")
        || lead.strip_suffix(b"-").is_some_and(bytes::ends_in_number)
    {
        return None;
    }
    let belongs = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let end = bytes::run_end_within(text, start, IPV4_CHARS_MAX + 2, belongs);
    // A full stop behind it is the sentence's.
    let run = text.get(start..end)?;
    let run = run.strip_suffix(b".").unwrap_or(run);
    let range = start..start + run.len();
    let free = ends_word(text, range.end)
        && !(text.get(range.end) == Some(&b'-') && is_digit(text, range.end + 1));
    if !free || run.len() > IPV4_CHARS_MAX {
        return None;
    }
    str::from_utf8(run).ok()?.parse::<Ipv4Addr>().ok()?;
    let nearby = bytes::from(lead, lead.len().saturating_sub(WORD_BYTES_MAX));
    (!is_version(nearby)).then_some(range)
}

/// The word right before, if any, says that a version follows.
fn is_version(lead: &[u8]) -> bool {
    context::last_word(lead).is_some_and(|word| {
        VERSION_WORDS
            .iter()
            .any(|version| word.eq_ignore_ascii_case(version.as_bytes()))
    })
}

/// What a colon may be part of.
pub(super) enum Colon {
    Ip(Range<usize>),
    Mac(Range<usize>),
    Neither,
}

/// What the colon belongs to, and where the run of hexadecimal digits and colons around it ends.
pub(super) fn around_colon(text: &[u8], colon: usize, from: usize) -> (Colon, usize) {
    let belongs = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let end = bytes::run_end(text, colon, belongs);
    let mut start = bytes::run_start(text, colon, colon - from, belongs);
    // `interface:fe80::1`: the end of a word is no group.
    if !begins_word(text, start) {
        start = colon;
    }
    let run = text.get(start..end).unwrap_or_default();
    let lead = match run {
        [b':', b':', ..] => 0,
        [b':' | b'.', ..] => 1,
        _ => 0,
    };
    let tail = match run {
        [.., b':', b':'] => 0,
        [.., b':' | b'.'] => 1,
        _ => 0,
    };
    let range = start + lead..(end - tail).max(start + lead);
    let found = match text.get(range.clone()) {
        Some(run) if !ends_word(text, range.end) || run.len() > IPV6_CHARS_MAX => Colon::Neither,
        Some(run) if is_mac(run, b':') => Colon::Mac(range),
        Some(run) if is_ipv6(run) => Colon::Ip(range),
        _ => Colon::Neither,
    };
    (found, end)
}

fn is_ipv6(run: &[u8]) -> bool {
    let colons = run.iter().filter(|byte| **byte == b':').count();
    let groups = || run.split(|byte| *byte == b':');
    let telling = colons >= 3
        || run == b"::1"
        || (colons == 2 && groups().any(|group| group.len() >= GROUP_CHARS_MIN));
    // Pairs throughout are a digest.
    let paired = groups().all(|group| group.len() == 2);
    telling
        && !paired
        && run.iter().any(u8::is_ascii_digit)
        && str::from_utf8(run).is_ok_and(|run| run.parse::<Ipv6Addr>().is_ok())
}

fn is_mac(run: &[u8], separator: u8) -> bool {
    run.len() == MAC_CHARS
        && run.iter().enumerate().all(|(index, byte)| {
            if index % 3 == 2 {
                *byte == separator
            } else {
                byte.is_ascii_hexdigit()
            }
        })
}

/// A MAC address with dashes that begins here.
pub(super) fn mac_with_dashes(text: &[u8], start: usize) -> Option<Range<usize>> {
    let range = start..start + MAC_CHARS;
    let lead = bytes::before(text, start);
    let alone = ends_word(text, range.end)
        && text.get(range.end) != Some(&b'-')
        && lead
            .strip_suffix(b"-")
            .is_none_or(|lead| begins_word(lead, lead.len()));
    let run = text.get(range.clone())?;
    (alone && is_mac(run, b'-')).then_some(range)
}

/// A MAC address in three groups of four, as `0123.4567.89ab`, around the digit.
pub(super) fn mac_with_dots(text: &[u8], digit: usize) -> Option<Range<usize>> {
    let dots = text.get(digit + 1..digit + 5).unwrap_or_default();
    if !dots.contains(&b'.') {
        return None;
    }
    let start = bytes::run_start(text, digit, 4, |byte| byte.is_ascii_hexdigit());
    let range = start..start + CISCO_MAC_CHARS;
    let run = text.get(range.clone())?;
    let shape = run.iter().enumerate().all(|(index, byte)| {
        if index % 5 == 4 {
            *byte == b'.'
        } else {
            byte.is_ascii_hexdigit()
        }
    });
    let ends = match text.get(range.end) {
        Some(b'.') => ends_word(text, range.end + 1),
        _ => ends_word(text, range.end),
    };
    let alone = ends && begins_word(text, start) && !bytes::before(text, start).ends_with(b".");
    // Digits alone are a number in thousands, or a version.
    (shape && alone && run.iter().any(u8::is_ascii_alphabetic)).then_some(range)
}
