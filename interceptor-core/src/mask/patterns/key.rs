//! Private keys in files: PEM, OpenSSH, OpenPGP and PuTTY.
//!
//! It owns where such a file begins and ends. A file whose end is not in the text goes on to the text's end.

use core::ops::Range;

use memchr::memmem;

use super::bytes;

/// A key with its lines around it is longer.
pub(super) const FILE_BYTES_MIN: usize = 60;
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// `-----BEGIN RSA PRIVATE KEY-----`
const LABEL_BYTES_MAX: usize = 40;
const PUTTY: &[u8] = b"PuTTY-User-Key-File-";
const PUTTY_END: &[u8] = b"Private-MAC:";

/// Every key, those of each kind in order.
pub(super) fn find(text: &[u8], mut found: impl FnMut(Range<usize>)) {
    for kind in [pem, putty] {
        let mut from = 0;
        while let Some(key) = kind(text, from) {
            from = key.end;
            found(key);
        }
    }
}

fn pem(text: &[u8], start: usize) -> Option<Range<usize>> {
    let mut from = start;
    loop {
        let begin = from + memmem::find(bytes::from(text, from), BEGIN)?;
        let label = bytes::from(text, begin + BEGIN.len());
        let label = label.get(..LABEL_BYTES_MAX).unwrap_or(label);
        let label = label.get(..memmem::find(label, DASHES).unwrap_or(0))?;
        if label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK") {
            let end = pem_end(text, begin).unwrap_or(text.len());
            return Some(begin..end);
        }
        from = begin + BEGIN.len();
    }
}

fn pem_end(text: &[u8], begin: usize) -> Option<usize> {
    let end = begin + memmem::find(bytes::from(text, begin), END)? + END.len();
    let close = memmem::find(bytes::from(text, end), DASHES)?;
    Some(end + close + DASHES.len())
}

fn putty(text: &[u8], start: usize) -> Option<Range<usize>> {
    let begin = start + memmem::find(bytes::from(text, start), PUTTY)?;
    let end = memmem::find(bytes::from(text, begin), PUTTY_END).map_or(text.len(), |mac| {
        let mac = begin + mac + PUTTY_END.len();
        let mac = bytes::run_end(text, mac, |byte| byte == b' ');
        bytes::run_end(text, mac, |byte| byte.is_ascii_hexdigit())
    });
    Some(begin..end)
}
