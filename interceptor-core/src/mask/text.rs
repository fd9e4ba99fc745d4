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
