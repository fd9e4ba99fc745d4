//! Patterns in what has texts inside: JSON, and arrays and rows in binary format.
//!
//! It owns how each is taken apart and put together again with other lengths. What cannot be taken
//! apart is not shown if anything is found in it.

use alloc::string::String;
use alloc::vec::Vec;

use super::cells::{Cell, Replaced, scan};
use super::types::{Family, family};
use crate::mask::{MASK_TEXT, Masks, TextMask};
use crate::wire::Reader;

/// Arrays of rows of arrays…: what is deeper is null.
pub(super) const DEPTH_MAX: usize = 16;
/// The server's limit on an array's dimensions (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;
/// The server's limit on a row's columns (`MaxTupleAttributeNumber`).
const COLUMNS_MAX: usize = 1_664;

/// JSON, token by token, so that it stays JSON: strings without their escapes, and numbers.
pub(super) fn json(text: &[u8], masks: &Masks, out: &mut Vec<u8>) -> Replaced {
    let start = out.len();
    let whole = masks.mask_text(text, out);
    out.truncate(start);
    if whole == TextMask::Clean && memchr::memchr(b'\\', text).is_none() {
        return Replaced::No;
    }
    let mut rewritten = false;
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let (token, tail) = match first {
            b'"' => string(rest),
            b'-' | b'0'..=b'9' => number(rest),
            _ => {
                out.push(first);
                rest = behind;
                continue;
            }
        };
        rest = tail;
        let mut shown = Vec::new();
        let plain = match first {
            b'"' => unescaped(token),
            _ => token.to_vec(),
        };
        match masks.mask_text(&plain, &mut shown) {
            TextMask::Clean => out.extend_from_slice(token),
            TextMask::Rewritten { .. } => {
                rewritten = true;
                quoted(&shown, out);
            }
            TextMask::Null { .. } => {
                out.truncate(start);
                return Replaced::Null;
            }
        }
    }
    // What stretches over several tokens cannot be taken out of them.
    let left = masks.mask_text(out.get(start..).unwrap_or_default(), &mut Vec::new());
    match left {
        TextMask::Clean if rewritten => Replaced::By,
        TextMask::Clean => {
            out.truncate(start);
            Replaced::No
        }
        _ => {
            out.truncate(start);
            quoted(MASK_TEXT.as_bytes(), out);
            Replaced::By
        }
    }
}

/// A string with its quotes, and what is behind it.
fn string(text: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                break;
            }
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.split_at_checked(at).unwrap_or((text, &[]))
}

fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let belongs = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let end = text.iter().position(|byte| !belongs(byte));
    text.split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or((text, &[]))
}

/// What a string says, without its quotes.
fn unescaped(token: &[u8]) -> Vec<u8> {
    let inner = token.strip_prefix(b"\"").unwrap_or(token);
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    if memchr::memchr(b'\\', inner).is_none() {
        return inner.to_vec();
    }
    let mut units: Vec<u16> = Vec::new();
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        let unit = match byte {
            b'\\' => match bytes.next() {
                Some(b'u') => {
                    let digits: Vec<u8> = bytes.by_ref().take(4).collect();
                    let text = str::from_utf8(&digits).ok();
                    text.and_then(|text| u16::from_str_radix(text, 16).ok())
                }
                other => {
                    flush(&mut units, &mut plain);
                    plain.push(match other {
                        Some(b'b') => 8,
                        Some(b'f') => 12,
                        Some(b'n') => b'\n',
                        Some(b'r') => b'\r',
                        Some(b't') => b'\t',
                        Some(other) => other,
                        None => b'\\',
                    });
                    None
                }
            },
            other => {
                flush(&mut units, &mut plain);
                plain.push(other);
                None
            }
        };
        units.extend(unit);
    }
    flush(&mut units, &mut plain);
    plain
}

/// Characters beyond sixteen bits are written as two units.
fn flush(units: &mut Vec<u16>, plain: &mut Vec<u8>) {
    if !units.is_empty() {
        plain.extend_from_slice(String::from_utf16_lossy(units).as_bytes());
        units.clear();
    }
}

/// A JSON string.
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.extend_from_slice(alloc::format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// An array in binary format.
pub(super) fn array(
    value: &[u8],
    masks: &Masks,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<Replaced> {
    let mut reader = Reader::new(value);
    let dimensions = usize::try_from(reader.u32().ok()?).ok()?;
    let flags = reader.u32().ok()?;
    let element = reader.u32().ok()?;
    if dimensions > DIMENSIONS_MAX || flags > 1 {
        return None;
    }
    let mut count = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        count = count.checked_mul(usize::try_from(reader.u32().ok()?).ok()?)?;
        reader.u32().ok()?;
    }
    let head = 12 + 8 * dimensions;
    let cell = inner(element);
    let start = out.len();
    out.extend_from_slice(value.get(..head)?);
    let mut rewritten = false;
    for _ in 0..count {
        let found = element_into(&mut reader, cell, masks, depth, out)?;
        if found == Replaced::Null {
            // An element is null from now on.
            out.get_mut(start + 4..start + 8)?
                .copy_from_slice(&1_u32.to_be_bytes());
        }
        rewritten |= found != Replaced::No;
    }
    reader.finish().ok()?;
    Some(if rewritten {
        Replaced::By
    } else {
        Replaced::No
    })
}

/// A row in binary format, whose columns have their types with them.
pub(super) fn record(
    value: &[u8],
    masks: &Masks,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<Replaced> {
    let mut reader = Reader::new(value);
    let columns = reader.u32().ok()?;
    if usize::try_from(columns).ok()? > COLUMNS_MAX {
        return None;
    }
    out.extend_from_slice(&columns.to_be_bytes());
    let mut rewritten = false;
    for _ in 0..columns {
        let type_oid = reader.u32().ok().filter(|type_oid| *type_oid != 0)?;
        out.extend_from_slice(&type_oid.to_be_bytes());
        let found = element_into(&mut reader, inner(type_oid), masks, depth, out)?;
        rewritten |= found != Replaced::No;
    }
    reader.finish().ok()?;
    Some(if rewritten {
        Replaced::By
    } else {
        Replaced::No
    })
}

fn inner(type_oid: u32) -> Cell {
    Cell {
        mask: None,
        type_oid,
        family: family(type_oid),
        binary: true,
    }
}

/// One element with its length; how it was replaced.
fn element_into(
    reader: &mut Reader<'_>,
    cell: Cell,
    masks: &Masks,
    depth: usize,
    out: &mut Vec<u8>,
) -> Option<Replaced> {
    let Some(value) = reader.value().ok()? else {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return Some(Replaced::No);
    };
    let mut shown = Vec::new();
    let found = match cell.family {
        Family::Safe => Replaced::No,
        _ => scan(cell, value, masks, depth + 1, &mut shown),
    };
    let shown = match found {
        Replaced::No => value,
        Replaced::By => &shown,
        Replaced::Null => {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Some(found);
        }
    };
    out.extend_from_slice(&i32::try_from(shown.len()).ok()?.to_be_bytes());
    out.extend_from_slice(shown);
    Some(found)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::mask::HashKey;
    use crate::policy::{self, Source};

    const TEXT: u32 = 25;
    const INT8: u32 = 20;
    const RECORD: u32 = 2249;
    const JSONB: u32 = 3802;

    fn masks(method: &str) -> Arc<Masks> {
        let text = format!(
            "kind: Target\nname: t\nspec: {{protocol: postgres, endpoints: [\"10.0.0.1:5432\"]}}\n---\n\
             kind: Mask\nname: m\nspec: {{patterns: [email, payment_card], with: {method}}}\n"
        );
        let source = Source {
            file: "p.yaml",
            text: &text,
        };
        let snapshot = policy::load(&[source], &HashKey::new([0; 32])).unwrap();
        Arc::clone(&snapshot.target("t").unwrap().masks)
    }

    fn put(out: &mut Vec<u8>, value: Option<&[u8]>) {
        match value {
            Some(value) => {
                out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                out.extend_from_slice(value);
            }
            None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }

    fn array_of(element: u32, values: &[Option<&[u8]>]) -> Vec<u8> {
        let has_null = u32::from(values.contains(&None));
        let mut out = Vec::new();
        for word in [
            1,
            has_null,
            element,
            u32::try_from(values.len()).unwrap(),
            1,
        ] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        values.iter().for_each(|value| put(&mut out, *value));
        out
    }

    fn record_of(columns: &[(u32, Option<&[u8]>)]) -> Vec<u8> {
        let mut out = u32::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (of, value) in columns {
            out.extend_from_slice(&of.to_be_bytes());
            put(&mut out, *value);
        }
        out
    }

    fn shown(value: &[u8], masks: &Masks) -> (Replaced, Vec<u8>) {
        let mut out = Vec::new();
        let cell = Cell {
            type_oid: 16_500,
            family: Family::Other,
            ..inner(16_500)
        };
        let replaced = scan(cell, value, masks, 0, &mut out);
        (replaced, out)
    }

    const CARD: i64 = 4_111_111_111_111_111;

    #[test]
    fn elements_and_columns_are_rewritten_with_their_lengths() {
        let masks = masks("full");
        let card = CARD.to_be_bytes();
        let words = array_of(TEXT, &[Some(b"Berlin"), Some(b"to ada@example.com"), None]);
        let (replaced, out) = shown(&words, &masks);
        assert_eq!(replaced, Replaced::By);
        assert_eq!(
            out,
            array_of(TEXT, &[Some(b"Berlin"), Some(b"to ****"), None])
        );
        // A number has no room for the mask.
        let (_, out) = shown(&array_of(INT8, &[Some(&card), Some(&[0; 8])]), &masks);
        assert_eq!(out, array_of(INT8, &[None, Some(&[0; 8])]));
        let inside = record_of(&[(TEXT, Some(b"ada@example.com")), (INT8, Some(&card))]);
        let row = record_of(&[
            (RECORD, Some(&inside)),
            (JSONB, Some(b"\x01{\"n\": 4111111111111111}")),
        ]);
        let (_, out) = shown(&row, &masks);
        let inside = record_of(&[(TEXT, Some(b"****")), (INT8, None)]);
        let expected = record_of(&[
            (RECORD, Some(&inside)),
            (JSONB, Some(b"\x01{\"n\": \"****\"}")),
        ]);
        assert_eq!(out, expected);
        assert_eq!(
            shown(&array_of(TEXT, &[Some(b"Berlin")]), &masks).0,
            Replaced::No
        );
    }

    #[test]
    fn json_stays_json() {
        let masks = masks("full");
        for (text, expected) in [
            (r#"{"a": "x", "b": [1, true]}"#, None),
            (
                r#"{"a": "ada@example.com", "b": 4111111111111111}"#,
                Some(r#"{"a": "****", "b": "****"}"#),
            ),
            (r#"["ada\u0040example.com"]"#, Some(r#"["****"]"#)),
            (
                r#"["say \"hi\" to ada@example.com\n"]"#,
                Some(r#"["say \"hi\" to ****\u000a"]"#),
            ),
            (
                r#"{"ada@example.com": -1.5e3}"#,
                Some(r#"{"****": -1.5e3}"#),
            ),
            (r#"["\ud83d\ude00 \\"]"#, None),
        ] {
            let mut out = Vec::new();
            let replaced = json(text.as_bytes(), &masks, &mut out);
            match expected {
                Some(expected) => assert_eq!(
                    (replaced, out.as_slice()),
                    (Replaced::By, expected.as_bytes())
                ),
                None => assert_eq!((replaced, out.len()), (Replaced::No, 0), "{text}"),
            }
        }
        let null = self::masks("null");
        assert_eq!(
            json(b"[\"ada@example.com\"]", &null, &mut Vec::new()),
            Replaced::Null
        );
    }

    #[test]
    fn what_is_too_deep_is_null() {
        let masks = masks("full");
        let mut value = record_of(&[(TEXT, Some(b"ada@example.com"))]);
        for _ in 0..DEPTH_MAX * 2 {
            value = record_of(&[(RECORD, Some(&value))]);
        }
        let (replaced, out) = shown(&value, &masks);
        assert_eq!(replaced, Replaced::By);
        assert!(memchr::memmem::find(&out, b"ada@").is_none());
    }

    #[test]
    fn what_cannot_be_taken_apart_is_null_if_anything_is_in_it() {
        let masks = masks("full");
        let whole = array_of(TEXT, &[Some(b"mail ada@example.com now")]);
        for end in 44..whole.len() {
            assert_eq!(shown(&whole[..end], &masks).0, Replaced::Null, "{end}");
        }
        assert_eq!(shown(b"\0\x01 no such thing", &masks).0, Replaced::No);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_nothing_is_found_in_what_is_shown(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            words in proptest::collection::vec(proptest::sample::select(alloc::vec!["ada@example.com", "x", ""]), 0..6),
        ) {
            let masks = masks("full");
            let _ = shown(&bytes, &masks);
            let values: Vec<Option<&[u8]>> = words.iter().map(|word| Some(word.as_bytes())).collect();
            let value = array_of(TEXT, &values);
            let (replaced, out) = shown(&value, &masks);
            let seen = if replaced == Replaced::No { value } else { out };
            prop_assert!(memchr::memmem::find(&seen, b"ada@example.com").is_none());
        }
    }
}
