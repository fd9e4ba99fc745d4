//! Masks on patterns, as a target's policy compiles them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail by panicking"
)]

use std::sync::Arc;

use interceptor_core::mask::{HashKey, Masks, TextMask};
use interceptor_core::policy::{self, Source};
use proptest::prelude::*;

/// Detectors that tests of masks name.
const DETECTORS: &str = "---
{kind: Detector, name: employee, spec: {pattern: 'EMP-[0-9]{4}'}}
---
{kind: Detector, name: account, spec: {pattern: '[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]){11,30}', check: mod97}}
---
{kind: Detector, name: member, spec: {pattern: '[0-9]{10}', check: luhn}}
---
{kind: Detector, name: token, spec: {pattern: 'token=([a-z0-9]+)', group: 1}}
---
{kind: Detector, name: handle, spec: {pattern: '@[a-z]+'}}
";

/// The masks of a target under these Mask documents.
fn masks(specs: &[&str]) -> Arc<Masks> {
    masks_with("", specs)
}

/// The same beside other documents.
fn masks_with(documents: &str, specs: &[&str]) -> Arc<Masks> {
    let mut text = String::from(
        "{kind: Target, name: t, spec: {protocol: postgres, endpoints: ['10.0.0.5:5432']}}\n",
    );
    text += documents;
    for (number, spec) in specs.iter().enumerate() {
        text += &format!("---\n{{kind: Mask, name: m{number}, spec: {spec}}}\n");
    }
    let sources = [Source {
        file: "policy.yaml",
        text: &text,
    }];
    let snapshot = policy::load(&sources, &HashKey::new([7; 32]))
        .unwrap_or_else(|errors| panic!("\n{errors}"));
    Arc::clone(&snapshot.target("t").unwrap().masks)
}

fn all(method: &str) -> Arc<Masks> {
    masks(&[&format!(
        "{{patterns: [email, payment_card, us_ssn], with: {method}}}"
    )])
}

fn masked(masks: &Masks, text: &str) -> (TextMask, String) {
    let mut out = Vec::new();
    let what = masks.mask_text(text.as_bytes(), &mut out);
    (what, String::from_utf8(out).unwrap())
}

#[test]
fn findings_are_replaced_in_place() {
    let text = "Jane <jane@example.com>, card 4111 1111 1111 1111, SSN 078-05-1120.";
    let (what, shown) = masked(&all("full"), text);
    assert_eq!(shown, "Jane <****>, card ****, SSN ****.");
    assert_eq!(what, TextMask::Rewritten { findings: 3 });

    let (_, shown) = masked(&all("partial"), text);
    assert_eq!(
        shown,
        "Jane <j****@example.com>, card ****1111, SSN ****120."
    );

    let (what, shown) = masked(&all("null"), text);
    assert_eq!(shown, "Jane <****>, card ****, SSN ****.");
    assert_eq!(what, TextMask::Null { findings: 3 });

    let (_, shown) = masked(&all("hash"), "jane@example.com jane@example.com");
    let (one, two) = shown.split_once(' ').unwrap();
    assert_eq!((one.len(), one), (16, two));
}

#[test]
fn a_clean_text_writes_nothing() {
    for text in [
        "",
        "plain",
        "order 1234567890123",
        "2024-01-15 10:30:00",
        "a@b",
    ] {
        assert_eq!(
            masked(&all("full"), text),
            (TextMask::Clean, String::new()),
            "{text}"
        );
    }
    assert_eq!(masked(&masks(&[]), "jane@example.com").0, TextMask::Clean);
    assert!(!masks(&[]).has_patterns());
}

#[test]
fn only_the_patterns_in_force_are_looked_for() {
    let cards = masks(&["{patterns: [payment_card]}"]);
    let text = "jane@example.com 4111111111111111 078-05-1120";
    assert_eq!(masked(&cards, text).1, "jane@example.com **** 078-05-1120");
}

#[test]
fn of_two_masks_on_a_pattern_the_one_that_shows_less_wins() {
    for specs in [
        [
            "{patterns: [email], with: partial}",
            "{patterns: [email], with: full}",
        ],
        [
            "{patterns: [email], with: full}",
            "{patterns: [email], with: partial}",
        ],
    ] {
        assert_eq!(masked(&masks(&specs), "jane@example.com").1, "****");
    }
}

#[test]
fn overlapping_findings_become_one() {
    let (what, shown) = masked(&all("partial"), "to 4111111111111111@example.com now");
    assert_eq!(
        (what, shown.as_str()),
        (TextMask::Rewritten { findings: 1 }, "to **** now")
    );
}

#[test]
fn detectors_of_the_policy_find_beside_the_gateways_own() {
    let masks = masks_with(
        DETECTORS,
        &[
            "{patterns: [employee, account, email], with: full}",
            "{patterns: [member, token], with: hash}",
            "{patterns: [handle], with: partial}",
        ],
    );
    for (text, expected) in [
        ("EMP-1234 writes to jane@example.com", "**** writes to ****"),
        ("pay to DE89 3704 0044 0532 0130 00.", "pay to ****."),
        // The check digits are wrong.
        (
            "pay to DE88 3704 0044 0532 0130 00.",
            "pay to DE88 3704 0044 0532 0130 00.",
        ),
        ("member 1234567890", "member 1234567890"),
        // Two findings that overlap become one, and neither's rest shows.
        ("EMP-1234@example.com", "****"),
        // Side by side they are two.
        ("EMP-1234@x", "********"),
    ] {
        let (what, shown) = masked(&masks, text);
        let shown = if what == TextMask::Clean {
            text.to_owned()
        } else {
            shown
        };
        assert_eq!(shown, expected, "{text}");
    }
    let (_, shown) = masked(&masks, "token=abc123&x=1, member 1234567897");
    let hash = |part: &str| part.len() == 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let token = shown
        .strip_prefix("token=")
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    assert!(hash(token), "{shown}");
    assert!(hash(shown.rsplit(' ').next().unwrap()), "{shown}");
    // A method that makes a null makes one here, too.
    let null = masks_with(DETECTORS, &["{patterns: [employee], with: \"null\"}"]);
    assert_eq!(masked(&null, "EMP-1234").0, TextMask::Null { findings: 1 });
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", all("hash"));
    assert!(
        shown.contains("HashKey(…)") && !shown.contains("7, 7"),
        "{shown}"
    );
}

/// Bytes that patterns are made of, and some that they are not.
fn tempting() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 19] = [
        b"jane@example.com",
        b"4111111111111111",
        b"4111 1111 1111 1111",
        b"378282246310005",
        b"078-05-1120",
        b"078 05 1120",
        b"****",
        b"@",
        b".",
        b"-",
        b" ",
        b"+",
        b"'",
        b"1",
        b"42",
        b"DE89",
        b"x",
        b"\xff",
        b"_",
    ];
    let piece = proptest::sample::select(pieces.to_vec());
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// After the full mask there is nothing left to find, and nothing new either.
    #[test]
    fn the_full_mask_is_final(text in tempting()) {
        let masks = all("full");
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        match masks.mask_text(&text, &mut once) {
            TextMask::Clean => prop_assert!(once.is_empty()),
            _ => prop_assert_eq!(masks.mask_text(&once, &mut twice), TextMask::Clean, "{:?}", once),
        }
    }

    /// Any bytes do, whatever the method; what was not found stays as it was.
    #[test]
    fn any_bytes_do(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        for method in ["full", "partial", "hash", "null"] {
            let mut out = Vec::new();
            let what = all(method).mask_text(&text, &mut out);
            prop_assert_eq!(what == TextMask::Clean, out.is_empty());
        }
    }

    /// A card is found between any two neighbours that are no part of a number.
    #[test]
    fn a_card_does_not_hide(before in "[^0-9]{0,20}[^0-9. +-]", after in "[^0-9 -][^0-9]{0,20}") {
        let text = format!("{before}4111-1111-1111-1111{after}");
        let (what, shown) = masked(&all("full"), &text);
        prop_assert_ne!(what, TextMask::Clean);
        prop_assert!(!shown.contains("1111"));
    }
}
