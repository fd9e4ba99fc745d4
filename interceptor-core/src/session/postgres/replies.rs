//! Errors and notices on their way to the client: what they quote may not be seen.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use crate::mask::{MASK_TEXT, Masks, TextMask};
use crate::wire::DecodeError;
use crate::wire::postgres::{backend, encode};

/// The SQLSTATE of an ErrorResponse; empty if there is none.
pub(super) fn code(body: &[u8]) -> String {
    let fields = backend::error_fields(body).unwrap_or_default();
    let code = fields
        .iter()
        .find(|(code, _)| *code == b'C')
        .map_or(&b""[..], |(_, text)| text);
    String::from_utf8_lossy(code).into_owned()
}

/// Writes an ErrorResponse or NoticeResponse without what masks hide: DETAIL, CONTEXT and quoted
/// values where columns are masked, findings where patterns are.
pub(super) fn rewrite(
    kind: u8,
    body: &[u8],
    masks: &Masks,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    let fields = backend::error_fields(body)?;
    let code = fields
        .iter()
        .find(|(code, _)| *code == b'C')
        .map_or(&b""[..], |(_, text)| text);
    // Data exceptions quote the value; so may whatever a function raises.
    let quotes = masks.has_columns()
        && (code.starts_with(b"22") || code.starts_with(b"P0") || code == b"00000");
    encode::message(out, kind, |out| {
        for (field, text) in &fields {
            let hidden = masks.has_columns() && matches!(field, b'D' | b'W');
            if hidden {
                continue;
            }
            out.put_u8(*field);
            let text = if quotes && *field == b'M' {
                unquoted(text)
            } else {
                text.to_vec()
            };
            let mut masked = Vec::new();
            match masks.mask_text(&text, &mut masked) {
                TextMask::Clean => encode::cstr(out, &text),
                TextMask::Rewritten { .. } | TextMask::Null { .. } => encode::cstr(out, &masked),
            }
        }
        out.put_u8(0);
    });
    Ok(())
}

/// The text with everything from the first quote to the last replaced: values may hold quotes.
fn unquoted(text: &[u8]) -> Vec<u8> {
    match (memchr::memchr(b'"', text), memchr::memrchr(b'"', text)) {
        (Some(first), Some(last)) if first < last => {
            let mut result = text.get(..=first).unwrap_or_default().to_vec();
            result.extend_from_slice(MASK_TEXT.as_bytes());
            result.extend_from_slice(text.get(last..).unwrap_or_default());
            result
        }
        _ => text.to_vec(),
    }
}
