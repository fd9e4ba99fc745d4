//! User and password in a URL: `scheme://user:password@host`.
//!
//! It owns where the two begin and end.

use core::ops::Range;

use super::bytes;

/// User and password behind the colon of a scheme.
pub(super) fn credentials(text: &[u8], colon: usize) -> Option<Range<usize>> {
    let after = bytes::from(text, colon + 1).strip_prefix(b"//")?;
    if !bytes::last(text, colon).is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let start = colon + 3;
    let authority = after
        .iter()
        .take_while(|byte| {
            !byte.is_ascii_whitespace()
                && !matches!(byte, b'/' | b'?' | b'#' | b'"' | b'<' | b'>' | b'`' | b'\\')
        })
        .count();
    // A password that was not encoded may hold an `@`; the last one is before the host.
    let authority = after.get(..authority)?;
    let at = memchr::memrchr(b'@', authority)?;
    let (user, password) = {
        let user_information = authority.get(..at)?;
        let colon = memchr::memchr(b':', user_information)?;
        user_information.split_at_checked(colon)?
    };
    // A colon alone is no password, and a host follows.
    let whole = password.len() > 1 && authority.len() > at + 1;
    whole.then_some(start..start + user.len() + password.len())
}
