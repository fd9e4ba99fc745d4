//! Patterns in a text: find, and replace in place.
//!
//! It owns the one pass over a text. It must not know columns.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Detector, HashKey, Method, digits, email};

/// What a value can look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// An email address.
    Email,
    /// A payment card's number: issuer prefix, length and check digit fit.
    PaymentCard,
    /// A US social security number with its separators.
    UsSsn,
}

impl Pattern {
    /// Every pattern with its name in policy files.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("email", Self::Email),
        ("payment_card", Self::PaymentCard),
        ("us_ssn", Self::UsSsn),
    ];
}

/// What is looked for.
#[derive(Debug, Clone)]
pub(crate) enum Finder {
    /// A pattern that every gateway knows.
    BuiltIn(Pattern),
    /// A pattern of the policy.
    Custom(Arc<Detector>),
}

impl PartialEq for Finder {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BuiltIn(one), Self::BuiltIn(other)) => one == other,
            (Self::Custom(one), Self::Custom(other)) => one.name == other.name,
            _ => false,
        }
    }
}

/// What became of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum TextMask {
    /// Nothing was found and nothing written: the text may be seen.
    Clean,
    /// The text with the findings replaced was appended.
    Rewritten {
        /// How many there were.
        findings: u32,
    },
    /// A finding's method is [`Method::Null`]: a cell becomes null. For a caller that has no null
    /// to send, the text with the findings replaced was appended as well.
    Null {
        /// How many there were.
        findings: u32,
    },
}

struct Finding {
    range: Range<usize>,
    method: Method,
}

pub(super) fn mask_text(
    patterns: &[(Finder, Method)],
    key: &HashKey,
    text: &[u8],
    out: &mut Vec<u8>,
) -> TextMask {
    let findings = find(patterns, text);
    if findings.is_empty() {
        return TextMask::Clean;
    }
    let mut copied = 0;
    for finding in &findings {
        out.extend_from_slice(text.get(copied..finding.range.start).unwrap_or_default());
        let value = text.get(finding.range.clone()).unwrap_or_default();
        finding.method.apply(key, value, out);
        copied = finding.range.end;
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    let null = findings.iter().any(|finding| finding.method.is_null());
    let findings = u32::try_from(findings.len()).unwrap_or(u32::MAX);
    if null {
        TextMask::Null { findings }
    } else {
        TextMask::Rewritten { findings }
    }
}

/// Every finding, in order, without overlap.
fn find(patterns: &[(Finder, Method)], text: &[u8]) -> Vec<Finding> {
    let method = |asked| {
        patterns
            .iter()
            .find(|(known, _)| *known == Finder::BuiltIn(asked))
            .map(|found| found.1)
    };
    let mut findings = Vec::new();
    if let Some(method) = method(Pattern::Email) {
        email::find(text, |range| findings.push(Finding { range, method }));
    }
    let (card, ssn) = (method(Pattern::PaymentCard), method(Pattern::UsSsn));
    // Most texts hold few digits: counting them is one pass that the compiler vectorises.
    let digits = |text: &[u8]| text.iter().filter(|byte| byte.is_ascii_digit()).count();
    if (card.is_some() || ssn.is_some()) && digits(text) >= digits::DIGITS_MIN {
        digits::find(text, card.is_some(), ssn.is_some(), |pattern, range| {
            let method = if pattern == Pattern::UsSsn { ssn } else { card };
            findings.extend(method.map(|method| Finding { range, method }));
        });
    }
    for (finder, method) in patterns {
        if let Finder::Custom(detector) = finder {
            let method = *method;
            detector.find(text, |range| findings.push(Finding { range, method }));
        }
    }
    findings.sort_by_key(|finding| finding.range.start);
    findings.dedup_by(|next, last| merge(last, next));
    findings
}

/// Joins what overlaps, such as a card in the local part of an address; no method's remainder of
/// the one may show what the other hides.
fn merge(last: &mut Finding, next: &Finding) -> bool {
    let overlap = next.range.start < last.range.end;
    if overlap {
        last.range.end = last.range.end.max(next.range.end);
        last.method = last.method.max(next.method).max(Method::Full);
    }
    overlap
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::super::Check;
    use super::*;

    /// The gateway's own patterns, and some that policies could bring.
    static FINDERS: LazyLock<Vec<Finder>> = LazyLock::new(|| {
        let own = Pattern::NAMES
            .iter()
            .map(|(_, pattern)| Finder::BuiltIn(*pattern));
        let detectors = [
            ("EMP-[0-9]{4}", 0, Check::None),
            ("[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]){11,30}", 0, Check::Mod97),
            ("[0-9]{10}", 0, Check::Luhn),
            ("token=([a-z0-9]+)", 1, Check::None),
            ("(?i)@[a-z]+|ü", 0, Check::None),
        ];
        let detectors = detectors.into_iter().map(|(pattern, group, check)| {
            Finder::Custom(Arc::new(Detector {
                name: pattern.into(),
                regex: Regex::new(pattern).unwrap(),
                group,
                check,
            }))
        });
        own.chain(detectors).collect()
    });

    fn text() -> impl Strategy<Value = String> {
        let pieces = proptest::sample::select(alloc::vec![
            "EMP-1234",
            "EMP-",
            "DE89370400440532013000",
            "GB82 WEST 1234 5698 7654 32",
            "1234567897",
            "token=",
            "abc1",
            "@handle",
            "jane@example.com",
            "4111111111111111",
            "4111 1111 1111 1111",
            "078-05-1120",
            " ",
            "-",
            "9",
            "****",
            "ü",
            ".",
        ]);
        proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn method() -> impl Strategy<Value = Method> {
        let methods: Vec<Method> = Method::NAMES.iter().map(|(_, method)| *method).collect();
        proptest::sample::select(methods)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        /// No byte of a finding stays in the clear, whichever patterns meet on it: what one of them finds
        /// alone is within what all find together, and at least as well hidden.
        #[test]
        fn no_finding_survives(text in text(), methods in proptest::collection::vec(method(), 8)) {
            let all: Vec<(Finder, Method)> = FINDERS.iter().cloned().zip(methods).collect();
            let together = find(&all, text.as_bytes());
            for (before, after) in together.iter().zip(together.iter().skip(1)) {
                prop_assert!(before.range.end <= after.range.start, "{text:?}");
            }
            for finder in &all {
                for alone in find(core::slice::from_ref(finder), text.as_bytes()) {
                    let hidden = together.iter().any(|finding| {
                        finding.range.start <= alone.range.start
                            && alone.range.end <= finding.range.end
                            && finding.method >= alone.method
                    });
                    prop_assert!(hidden, "{:?} of {:?} in {text:?}", alone.range, finder);
                }
            }
        }
    }
}
