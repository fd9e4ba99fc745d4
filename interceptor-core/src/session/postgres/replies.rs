//! Errors and notices on their way to the client: what they quote may not be seen.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, BytesMut};

use crate::command::Facts;
use crate::mask::{MASK_TEXT, Masks, TextMask};
use crate::wire::postgres::{backend, encode};
use crate::wire::{DecodeError, Reader};

/// The SQLSTATE of an ErrorResponse; empty if there is none.
pub(super) fn code(body: &[u8]) -> String {
    let fields = backend::error_fields(body).unwrap_or_default();
    let code = fields
        .iter()
        .find(|(code, _)| *code == b'C')
        .map_or(&b""[..], |(_, text)| text);
    String::from_utf8_lossy(code).into_owned()
}

/// The message of code that runs in the target, which may say anything.
const HIDDEN: &str = "a message of code inside the target is hidden, as columns are masked";

/// Kinds of statement that compute with values, so that an error may quote one. The others quote
/// names that they were given.
const EVALUATING: &[&str] = &[
    "CALL",
    "COPY FILE",
    "COPY FROM",
    "COPY PROGRAM",
    "COPY TO",
    "CREATE INDEX",
    "CREATE TABLE AS",
    "CREATE VIEW",
    "DECLARE CURSOR",
    "DELETE",
    "DO",
    "EXECUTE",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "FETCH",
    "FUNCTION CALL",
    "INSERT",
    "MERGE",
    "MOVE",
    "OTHER",
    "REFRESH MATERIALIZED VIEW",
    "REINDEX",
    "SELECT",
    "UPDATE",
];

/// The command computes with values.
pub(super) fn evaluates(facts: &Facts) -> bool {
    facts.incomplete.is_some()
        || !facts.functions.is_empty()
        || facts.kinds.iter().any(|kind| EVALUATING.contains(kind))
}

/// Writes an ErrorResponse or NoticeResponse without what masks hide. `evaluates`: the command
/// behind it computes with values.
///
/// Where columns are masked, DETAIL, CONTEXT and inner queries go, as values stand in them; so
/// does the whole message of code inside the target. Other messages lose what they quote, unless a
/// position says that it is the statement that they quote.
pub(super) fn rewrite(
    kind: u8,
    body: &[u8],
    masks: &Masks,
    evaluates: bool,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    let fields = backend::error_fields(body)?;
    let hiding = masks.has_columns().then(|| Hiding::of(&fields, evaluates));
    encode::message(out, kind, |out| {
        for (field, text) in &fields {
            let Some(text) = hiding
                .as_ref()
                .map_or_else(|| Some(text.to_vec()), |hiding| hiding.field(*field, text))
            else {
                continue;
            };
            out.put_u8(*field);
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

/// What of a message is hidden where columns are masked.
struct Hiding {
    /// Code inside the target speaks.
    code_speaks: bool,
    /// The server says where in the statement.
    located: bool,
    /// What stands in quotes may be a value.
    quotes: bool,
    /// Numbers may be values.
    numbers: bool,
}

impl Hiding {
    fn of(fields: &[backend::ErrorField<'_>], evaluates: bool) -> Self {
        let field = |wanted: u8| fields.iter().find(|(code, _)| *code == wanted);
        let code = field(b'C').map_or(&b""[..], |(_, text)| text);
        // COPY and the JSON parser tell where they are; everything else that does is a function.
        let code_speaks = field(b'W')
            .is_some_and(|(_, text)| !text.starts_with(b"COPY ") && !text.starts_with(b"JSON "));
        let located = field(b'P').is_some();
        let data = code.starts_with(b"22") || code.starts_with(b"P0") || code == b"00000";
        // Of a broken constraint the message names the constraint, and DETAIL the values.
        let constraint = code.starts_with(b"23");
        Self {
            code_speaks,
            located,
            quotes: data || (evaluates && !located && !constraint),
            numbers: evaluates && !located && !constraint,
        }
    }

    /// The field as it may be seen; `None` if not at all.
    fn field(&self, field: u8, text: &[u8]) -> Option<Vec<u8>> {
        match field {
            b'D' | b'W' | b'q' => None,
            b'H' if self.code_speaks => None,
            b'M' if self.code_speaks => Some(HIDDEN.as_bytes().to_vec()),
            b'M' | b'H' => {
                let text = if self.quotes || (field == b'H' && !self.located) {
                    without_tail(unquoted(text))
                } else {
                    text.to_vec()
                };
                Some(if self.numbers {
                    unnumbered(&text)
                } else {
                    text
                })
            }
            _ => Some(text.to_vec()),
        }
    }
}

/// NotificationResponse: its payload is whatever some session put there, a row of a masked table
/// perhaps.
pub(super) fn notification(
    body: &[u8],
    masks: &Masks,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    let process_id = reader.u32()?;
    let (channel, payload) = (reader.cstr()?, reader.cstr()?);
    reader.finish()?;
    let mut masked = Vec::new();
    let payload = match masks.mask_text(payload, &mut masked) {
        _ if masks.has_columns() && !payload.is_empty() => MASK_TEXT.as_bytes(),
        TextMask::Clean => payload,
        TextMask::Rewritten { .. } | TextMask::Null { .. } => &masked,
    };
    encode::message(out, backend::kind::NOTIFICATION_RESPONSE, |out| {
        out.put_u32(process_id);
        encode::cstr(out, channel);
        encode::cstr(out, payload);
    });
    Ok(())
}

/// FunctionCallResponse: nothing is known of what the function returns, so that it is NULL where
/// anything in it could be masked. True if it was replaced.
pub(super) fn function_result(
    body: &[u8],
    masks: &Masks,
    out: &mut BytesMut,
) -> Result<bool, DecodeError> {
    let mut reader = Reader::new(body);
    let value = reader.value()?;
    reader.finish()?;
    let shown = value.filter(|value| {
        !masks.has_columns() && matches!(masks.mask_text(value, &mut Vec::new()), TextMask::Clean)
    });
    encode::message(
        out,
        backend::kind::FUNCTION_CALL_RESPONSE,
        |out| match shown {
            Some(value) => {
                out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                out.put_slice(value);
            }
            None => out.put_i32(-1),
        },
    );
    Ok(value.is_some() && shown.is_none())
}

/// The text with each run of digits replaced.
fn unnumbered(text: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'0'..=b'9' if result.last() == Some(&b'#') => {}
            b'0'..=b'9' => result.push(b'#'),
            other => result.push(other),
        }
    }
    result
}

/// The text with everything from the first quote to the last replaced: values may hold quotes.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let (Some(first), Some(last)) = (quote_from(text), quote_before(text)) else {
        return text.to_vec();
    };
    match (text.get(..first), text.get(last..)) {
        (Some(before), Some(behind)) if first <= last => {
            [before, MASK_TEXT.as_bytes(), behind].concat()
        }
        _ => text.to_vec(),
    }
}

/// Quotes as servers write them that speak other languages.
const QUOTES: [&str; 9] = ["\"", "«", "»", "„", "“", "”", "‘", "’", "‚"];

/// Behind the first quote.
fn quote_from(text: &[u8]) -> Option<usize> {
    let found = QUOTES.iter().filter_map(|quote| {
        memchr::memmem::find(text, quote.as_bytes()).map(|at| at + quote.len())
    });
    found.min()
}

/// The last quote.
fn quote_before(text: &[u8]) -> Option<usize> {
    let found = QUOTES
        .iter()
        .filter_map(|quote| memchr::memmem::rfind(text, quote.as_bytes()));
    found.max()
}

/// Some messages name what they are about behind a colon and without quotes.
fn without_tail(text: Vec<u8>) -> Vec<u8> {
    let Some(at) = memchr::memmem::find(&text, b": ").map(|at| at + 2) else {
        return text;
    };
    let (start, tail) = text.split_at_checked(at).unwrap_or((&text, &[]));
    let hidden = QUOTES.iter().any(|quote| {
        tail.starts_with([quote.as_bytes(), MASK_TEXT.as_bytes()].concat().as_slice())
    });
    match hidden || tail.is_empty() {
        true => text,
        false => [start, MASK_TEXT.as_bytes()].concat(),
    }
}
