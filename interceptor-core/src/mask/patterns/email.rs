//! Email addresses in bytes.
//!
//! It owns what counts as an address: a local part, `@`, and a domain of at least two labels
//! whose last is no number. It leans towards finding: bytes above 0x7f count as letters, and no
//! part is too long.

use core::ops::Range;

use super::bytes;

/// A longer user in a URL is none.
const USER_BYTES_MAX: usize = 128;

/// The address around an `@`, of which nothing begins before `from`.
pub(super) fn around(text: &[u8], from: usize, at: usize) -> Option<Range<usize>> {
    let start = local_start(text, from, at);
    if start == at {
        return None;
    }
    let end = domain_end(text, at + 1)?;
    // `scheme://user:password@host`: what looks like a local part is the password, and the host is a host.
    let end = if is_password(text, start) { at } else { end };
    Some(start..end)
}

/// Whether a user of a URL and a colon stand before.
fn is_password(text: &[u8], start: usize) -> bool {
    let Some(lead) = bytes::before(text, start).strip_suffix(b":") else {
        return false;
    };
    let user = bytes::run_start(lead, lead.len(), USER_BYTES_MAX, |byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'@' | b'"' | b'<' | b'>')
    });
    bytes::before(lead, user).ends_with(b"://")
}

/// Local part and domain, if the value is one address and nothing else.
pub(in crate::mask) fn split_whole(value: &[u8]) -> Option<(&str, &str)> {
    let at = memchr::memchr(b'@', value)?;
    if around(value, 0, at)? != (0..value.len()) {
        return None;
    }
    str::from_utf8(value).ok()?.split_once('@')
}

fn local_start(text: &[u8], from: usize, at: usize) -> usize {
    let local = text.get(from..at).unwrap_or_default();
    let run = local
        .iter()
        .rev()
        .take_while(|byte| is_local(**byte))
        .count();
    let run = local.get(local.len() - run..).unwrap_or_default();
    // A quote or a dash before the address is the text's, not the address's.
    let lead = run.iter().take_while(|byte| !is_word(**byte)).count();
    at - run.len() + lead
}

/// Where the longest domain that begins at `start` ends.
fn domain_end(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    let run = rest
        .iter()
        .take_while(|byte| is_word(**byte) || matches!(byte, b'.' | b'-'))
        .count();
    let mut end = None;
    let mut position = start;
    for (index, label) in rest.get(..run)?.split(|byte| *byte == b'.').enumerate() {
        // A dash after the last letter is the text's.
        let dashes = label.iter().rev().take_while(|byte| **byte == b'-').count();
        let name = label.get(..label.len() - dashes).unwrap_or_default();
        if name.is_empty() {
            break;
        }
        if index > 0 && name.len() >= 2 && !name.iter().all(u8::is_ascii_digit) {
            end = Some(position + name.len());
        }
        if dashes > 0 {
            break;
        }
        position += label.len() + 1;
    }
    end
}

fn is_local(byte: u8) -> bool {
    is_word(byte)
        || matches!(
            byte,
            b'.' | b'%' | b'+' | b'-' | b'\'' | b'!' | b'#' | b'$' | b'~'
        )
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::super::{Pattern, Patterns, find};

    fn found(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        let wanted = Patterns::NONE.with(Pattern::Email);
        find(text.as_bytes(), wanted, &mut |_, range| {
            all.push(text[range].into());
        });
        all
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        for (text, expected) in [
            ("jane@example.com", "jane@example.com"),
            ("mail 'jane@example.com'.", "jane@example.com"),
            (
                "<mailto:jane.doe+list@mail.example.co.uk>",
                "jane.doe+list@mail.example.co.uk",
            ),
            ("?email=jane@example.com&x=1", "jane@example.com"),
            ("o'brien@example.ie", "o'brien@example.ie"),
            ("øyvind@blåbær.no", "øyvind@blåbær.no"),
            ("x@xn--bcher-kva.example", "x@xn--bcher-kva.example"),
            ("jane@example.com-", "jane@example.com"),
            // The password; the host is no secret.
            ("https://app:secret@db.example.com/", "secret"),
            ("https://app@db.example.com/", "app@db.example.com"),
            ("jane@example.com.5", "jane@example.com"),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
        assert_eq!(found("a@b.com,c@d.org"), ["a@b.com", "c@d.org"]);
    }

    #[test]
    fn what_only_looks_like_an_address_stays() {
        for text in [
            "@jane",
            "jane@",
            "a @ b.com",
            "root@localhost",
            "user@10.0.0.1",
            "x@.com",
            "x@a..b",
            "@@@@",
            "12 @ 3.50",
            "price@9.99",
            "{\"@type\": \"a.b\"}",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
