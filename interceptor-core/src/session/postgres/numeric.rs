//! A `numeric` in binary format, and its decimal digits.
//!
//! It owns the layout: the number of groups, the weight of the first, the sign, the digits behind the
//! point to show, and groups of four decimal digits each (`numeric_send`).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// Groups that are looked at; a longer number is none that a mask knows.
const GROUPS_MAX: usize = 64;
const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;

/// The number in decimal, as the server writes it; `None` if it has no digits, or too many.
pub(super) fn to_text(value: &[u8]) -> Option<String> {
    let words: Vec<u16> = value
        .chunks_exact(2)
        .filter_map(|word| word.try_into().ok())
        .map(u16::from_be_bytes)
        .collect();
    let (&[count, weight, sign, scale], groups) = words.split_first_chunk::<4>()?;
    let (weight, scale) = (i32::from(weight.cast_signed()), usize::from(scale));
    if usize::from(count) != groups.len()
        || groups.len() > GROUPS_MAX
        || !matches!(sign, POSITIVE | NEGATIVE)
        || weight.unsigned_abs() as usize > GROUPS_MAX
        || scale > 4 * GROUPS_MAX
    {
        return None;
    }
    // The group at a place; the one before the point is at 0.
    let group = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index
            .and_then(|index| groups.get(index))
            .copied()
            .unwrap_or(0)
    };
    let mut text = String::new();
    if sign == NEGATIVE {
        text.push('-');
    }
    let mut places = (0..=weight.max(0)).rev();
    if let Some(first) = places.next() {
        write!(text, "{}", group(first)).ok()?;
    }
    for place in places {
        write!(text, "{:04}", group(place)).ok()?;
    }
    if scale > 0 {
        text.push('.');
        let mut fraction = String::new();
        let mut place = -1;
        while fraction.len() < scale {
            write!(fraction, "{:04}", group(place)).ok()?;
            place -= 1;
        }
        text.push_str(fraction.get(..scale)?);
    }
    Some(text)
}

/// The binary format of a decimal text without an exponent.
pub(super) fn to_binary(text: &str) -> Option<Vec<u8>> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (NEGATIVE, digits),
        None => (POSITIVE, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    // Both parts are filled up to whole groups.
    let mut padded = String::new();
    for _ in 0..(4 - whole.len() % 4) % 4 {
        padded.push('0');
    }
    padded.push_str(whole);
    let whole_groups = padded.len() / 4;
    padded.push_str(fraction);
    while !padded.len().is_multiple_of(4) {
        padded.push('0');
    }
    let groups: Option<Vec<u16>> = padded
        .as_bytes()
        .chunks_exact(4)
        .map(|group| str::from_utf8(group).ok()?.parse().ok())
        .collect();
    let groups = groups?;
    let first = groups.iter().position(|group| *group != 0);
    let last = groups.iter().rposition(|group| *group != 0);
    let (kept, weight) = match (first, last) {
        (Some(first), Some(last)) => (
            groups.get(first..=last)?,
            i16::try_from(whole_groups).ok()? - 1 - i16::try_from(first).ok()?,
        ),
        _ => (&[][..], 0),
    };
    let sign = if kept.is_empty() { POSITIVE } else { sign };
    let mut out = Vec::new();
    out.extend_from_slice(&u16::try_from(kept.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&u16::try_from(fraction.len()).ok()?.to_be_bytes());
    for group in kept {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_servers_layout() {
        // SELECT numeric_send(…) at a server of version 15.
        for (text, bytes) in [
            ("0", "0000000000000000"),
            ("1", "00010000000000000001"),
            ("-12345.678", "0003000140000003000109291a7c"),
            ("0.0001", "0001ffff000000040001"),
            ("10000", "00010001000000000001"),
            ("1.50", "000200000000000200011388"),
        ] {
            assert_eq!(hex::encode(to_binary(text).unwrap()), bytes, "{text}");
            assert_eq!(to_text(&hex::decode(bytes).unwrap()).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_number_has_no_text() {
        let not_a_number = [0, 0, 0, 0, 0xc0, 0, 0, 0];
        for bytes in [
            &not_a_number[..],
            &[],
            &[0; 7],
            &[0, 9, 0, 0, 0, 0, 0, 0],
            &[0xff; 64],
        ] {
            assert_eq!(to_text(bytes), None, "{bytes:?}");
        }
        for text in ["", "-", ".5", "1e5", "NaN", "1.2.3", "+1"] {
            assert_eq!(to_binary(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(text in "-?[1-9][0-9]{0,40}(\\.[0-9]{1,40})?") {
            let back = to_binary(&text).and_then(|bytes| to_text(&bytes));
            prop_assert_eq!(back, Some(text));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = to_text(&bytes);
        }
    }
}
