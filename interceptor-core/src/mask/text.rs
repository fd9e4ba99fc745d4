//! Patterns in a text: find, and replace in place.
//!
//! It owns how findings that meet become one. It must not know columns.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::patterns::{self, Pattern, Patterns};
use super::{Detector, HashKey, Method};

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

impl Finder {
    /// Its name in policy files.
    fn name(&self) -> &str {
        match self {
            Self::BuiltIn(pattern) => pattern.name(),
            Self::Custom(detector) => &detector.name,
        }
    }

    /// Where finders find the same bytes, the least names them.
    fn rank(&self) -> u32 {
        match self {
            Self::Custom(_) => 0,
            Self::BuiltIn(pattern) => 1 + *pattern as u32,
        }
    }
}

/// What is looked for in texts, and how it is masked.
#[derive(Debug, Clone, Default)]
pub(super) struct TextPatterns {
    /// The built-in ones of the list.
    wanted: Patterns,
    /// Each finder once.
    list: Vec<(Finder, Method)>,
}

impl TextPatterns {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds one. If it is known, the method that shows less stays.
    pub(super) fn add(&mut self, finder: &Finder, method: Method) {
        if let Finder::BuiltIn(pattern) = finder {
            self.wanted = self.wanted.with(*pattern);
        }
        match self.list.iter_mut().find(|(known, _)| known == finder) {
            Some((_, known)) => *known = method.max(*known),
            None => self.list.push((finder.clone(), method)),
        }
    }

    /// Every finding in order, without overlap, with the name of its pattern.
    pub(super) fn name_findings(&self, text: &[u8], mut found: impl FnMut(&str, Range<usize>)) {
        for finding in self.find(text) {
            found(finding.finder.name(), finding.range);
        }
    }

    /// Appends the text with every finding replaced, if there is any.
    pub(super) fn mask(&self, key: &HashKey, text: &[u8], out: &mut Vec<u8>) -> TextMask {
        let findings = self.find(text);
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

    /// Every finding, in order, without overlap. Nothing is allocated where there is none.
    fn find(&self, text: &[u8]) -> Vec<Finding<'_>> {
        let mut findings = Vec::new();
        patterns::find(text, self.wanted, &mut |pattern, range| {
            let asked = Finder::BuiltIn(pattern);
            let entry = self.list.iter().find(|(finder, _)| *finder == asked);
            findings.extend(entry.map(|(finder, method)| Finding {
                range,
                finder,
                method: *method,
            }));
        });
        for (finder, method) in &self.list {
            if let Finder::Custom(detector) = finder {
                detector.find(text, |range| {
                    findings.push(Finding {
                        range,
                        finder,
                        method: *method,
                    });
                });
            }
        }
        if findings.len() > 1 {
            findings.sort_by_key(|finding| (finding.range.start, finding.finder.rank()));
            findings.dedup_by(|next, last| merge(last, next));
        }
        findings
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

struct Finding<'a> {
    range: Range<usize>,
    /// What found it; where several did, the one that names it.
    finder: &'a Finder,
    method: Method,
}

/// Joins what overlaps, such as a card in the local part of an address; no method's remainder of
/// the one may show what the other hides. Of the same bytes no more is shown than either would.
fn merge<'a>(last: &mut Finding<'a>, next: &Finding<'a>) -> bool {
    if next.range.start >= last.range.end {
        return false;
    }
    last.method = last.method.max(next.method);
    if next.range != last.range {
        last.method = last.method.max(Method::Full);
    }
    if next.range.len() > last.range.len() {
        last.finder = next.finder;
    }
    last.range.end = last.range.end.max(next.range.end);
    true
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
            ("EMP-[0-9]{4}", 0, Check::None, &[][..]),
            (
                "[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]){11,30}",
                0,
                Check::Mod97,
                &[],
            ),
            ("[0-9]{10}", 0, Check::Luhn, &[]),
            ("token=([a-z0-9]+)", 1, Check::None, &[]),
            ("(?i)@[a-z]+|ü", 0, Check::None, &[]),
            ("[0-9]{4}", 0, Check::None, &["pin"]),
        ];
        let detectors = detectors
            .into_iter()
            .map(|(pattern, group, check, context)| {
                Finder::Custom(Arc::new(Detector {
                    name: pattern.into(),
                    regex: Regex::new(pattern).unwrap(),
                    group,
                    check,
                    context: context.iter().map(|word: &&str| (*word).into()).collect(),
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
            "+49 30 901820",
            "(212) 555-0123",
            "10.0.0.1",
            "2001:db8::1",
            "00:1a:2b:3c:4d:5e",
            "https://u:secret@",
            "ssn 078051120",
            "routing 021000021",
            "passport C01X00T47",
            "AKIAIOSFODNN7EXAMPLE",
            "ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
            "pin 1234",
            " ",
            "-",
            ":",
            "/",
            "(",
            "+",
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
        fn no_finding_survives(text in text(), methods in proptest::collection::vec(method(), 28)) {
            let mut all = TextPatterns::default();
            for (finder, method) in FINDERS.iter().zip(methods) {
                all.add(finder, method);
            }
            prop_assert_eq!(all.list.len(), 28);
            let together = all.find(text.as_bytes());
            for (before, after) in together.iter().zip(together.iter().skip(1)) {
                prop_assert!(before.range.end <= after.range.start, "{text:?}");
            }
            for (finder, method) in &all.list {
                let mut one = TextPatterns::default();
                one.add(finder, *method);
                for alone in one.find(text.as_bytes()) {
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
