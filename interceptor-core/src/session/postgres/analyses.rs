//! What is known of texts that came before: their analysis, found by the exact text or by a shape that
//! cannot mean anything else, and the verdict on them, found by the exact text alone.
//!
//! It owns when two texts have one analysis. It must not know what a verdict rests on beside text and
//! analysis: who keeps one says when it is to be forgotten. Why: `docs/adr/0033-one-analysis-for-one-shape.md`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use hashbrown::HashMap;

use crate::policy::Decision;
use crate::sql::Analysis;

/// Texts whose analysis is kept, and bytes of such a text.
const ANALYSES_MAX: usize = 256;
pub(super) const ANALYSED_BYTES_MAX: usize = 4 << 10;
/// Digits of a constant that any grammar reads as an `int`.
const DIGITS_MAX: usize = 9;

/// Stands for a constant in a shape; no text that has a shape holds it.
const CONSTANT: char = '\u{1}';

/// What one session keeps. A key is an exact text, or a shape: the two cannot be the same.
#[derive(Default)]
pub(super) struct Analyses {
    kept: HashMap<Box<str>, Known>,
    /// Where shapes are made.
    shape: String,
}

struct Known {
    analysis: Arc<Analysis>,
    /// Of an exact text only.
    verdict: Option<Decision>,
}

impl Analyses {
    /// The analysis of a text, if it or one of its shape came before.
    pub(super) fn of(&mut self, text: &str) -> Option<Arc<Analysis>> {
        if text.len() > ANALYSED_BYTES_MAX {
            return None;
        }
        if shape(text, &mut self.shape)
            && let Some(known) = self.kept.get(self.shape.as_str())
        {
            return Some(Arc::clone(&known.analysis));
        }
        // No text may pass for a shape.
        if text.contains(CONSTANT) {
            return None;
        }
        let known = self.kept.get(text)?;
        Some(Arc::clone(&known.analysis))
    }

    /// Keeps the analysis of a text.
    pub(super) fn keep(&mut self, text: &str, analysis: &Arc<Analysis>) {
        if text.len() > ANALYSED_BYTES_MAX || text.contains(CONSTANT) {
            return;
        }
        if self.kept.len() >= ANALYSES_MAX {
            self.kept.clear();
        }
        let by_shape = is_plain(analysis) && shape(text, &mut self.shape);
        let key = if by_shape { &self.shape } else { text };
        let known = Known {
            analysis: Arc::clone(analysis),
            verdict: None,
        };
        self.kept.insert(key.into(), known);
    }

    /// The verdict on this very text, if it was kept with this analysis.
    pub(super) fn verdict(&self, text: &str, analysis: &Analysis) -> Option<&Decision> {
        let known = self.kept.get(text)?;
        let same = core::ptr::eq(&raw const *known.analysis, analysis);
        known.verdict.as_ref().filter(|_| same)
    }

    /// Keeps the verdict on a text whose analysis is kept by the text itself.
    pub(super) fn keep_verdict(&mut self, text: &str, analysis: &Analysis, verdict: &Decision) {
        if let Some(known) = self.kept.get_mut(text)
            && core::ptr::eq(&raw const *known.analysis, analysis)
        {
            known.verdict = Some(verdict.clone());
        }
    }

    /// What verdicts rest on has changed.
    pub(super) fn forget_verdicts(&mut self) {
        for known in self.kept.values_mut() {
            known.verdict = None;
        }
    }
}

/// One statement in which a constant that is compared or assigned is an operand, and nothing else.
fn is_plain(analysis: &Analysis) -> bool {
    const KINDS: &[&str] = &["DELETE", "INSERT", "SELECT", "UPDATE"];
    let facts = &analysis.facts;
    analysis.single
        && facts.incomplete.is_none()
        && matches!(facts.kinds.as_slice(), [kind] if KINDS.contains(kind))
}

/// Writes the text with each integer that stands behind a comparison or an assignment replaced. `false`
/// if there is none, or if anything in the text could make digits something else than a number.
fn shape(text: &str, shape: &mut String) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut copied, mut found) = (0, 0, false);
    shape.clear();
    while let Some(&byte) = bytes.get(at) {
        let pair = (byte, bytes.get(at + 1).copied());
        let is_code = match byte {
            b'\'' | b'"' | b'$' | b'\\' | 0x7f.. => false,
            b'-' | b'/' => !matches!(pair, (b'-', Some(b'-')) | (b'/', Some(b'*'))),
            0..0x20 => byte.is_ascii_whitespace(),
            _ => true,
        };
        if !is_code {
            return false;
        }
        if !byte.is_ascii_digit() {
            at += 1;
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ends = match rest.get(digits) {
            None => true,
            Some(next) => next.is_ascii_whitespace() || matches!(next, b')' | b';' | b','),
        };
        if ends && digits <= DIGITS_MAX && is_operand(bytes.get(..at).unwrap_or_default()) {
            shape.push_str(text.get(copied..at).unwrap_or_default());
            shape.push(CONSTANT);
            copied = at + digits;
            found = true;
        }
        at += digits;
    }
    shape.push_str(text.get(copied..).unwrap_or_default());
    found
}

/// What stands before a number ends in a comparison or an assignment: exactly one of these operators.
fn is_operand(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let is_sign = |byte: &&u8| b"+-*/<>=~!@#%^&|`?:".contains(byte);
    let signs = before.iter().rev().take_while(is_sign).count();
    let operator = before.get(before.len() - signs..).unwrap_or_default();
    [&b"="[..], b"<", b">", b"<=", b">=", b"<>", b"!="].contains(&operator)
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::sql;

    fn shape_of(text: &str) -> Option<String> {
        let mut made = String::new();
        shape(text, &mut made).then_some(made)
    }

    /// Statements with a place for a constant that a shape leaves open.
    const OPEN: &[&str] = &[
        "SELECT abalance FROM pgbench_accounts WHERE aid = {};",
        "select * from a, b where a.x<{} and b.y >={}",
        "SELECT id FROM (SELECT id, n FROM t WHERE n <> {}) AS s WHERE id != {}",
        "SELECT email FROM customers WHERE id={} ORDER BY 1, name LIMIT 10",
        "UPDATE accounts SET balance = {} WHERE id = {}",
        "UPDATE a SET (b, c) = (1, 2) WHERE d = {}",
        "DELETE FROM t WHERE n > {}",
        "INSERT INTO t SELECT id FROM s WHERE id = {} RETURNING id",
        "SELECT count(*) FILTER (WHERE a = {}) FROM t GROUP BY b HAVING sum(c) > {}",
        "SELECT a = {} AS x, b FROM t WHERE f(b = {}, c) IS NULL",
        "SELECT id FROM t WHERE id = {} UNION SELECT n FROM u WHERE n = {} FOR UPDATE",
        "WITH w AS (UPDATE t SET a = {} RETURNING *) SELECT a FROM w WHERE a < {}",
        "SELECT CASE WHEN a = {} THEN email ELSE name END FROM customers",
    ];

    proptest! {
        /// Two texts of one shape do the same, whatever the constants are.
        #[test]
        fn one_shape_has_one_analysis(open in prop::sample::select(OPEN), ones in any::<[u32; 2]>(), others in any::<[u32; 2]>()) {
            let filled = |numbers: [u32; 2]| {
                let numbers = numbers.map(|number| format!("{}", number % 1_000_000_000));
                let mut text = String::from(open);
                for number in numbers {
                    text = text.replacen("{}", &number, 1);
                }
                text
            };
            let (one, other) = (filled(ones), filled(others));
            prop_assert!(shape_of(&one).is_some(), "{one}");
            prop_assert_eq!(shape_of(&one), shape_of(&other));
            let analyses = [&one, &other].map(|text| sql::analyze(text).unwrap());
            prop_assert!(is_plain(&analyses[0]) || open.contains("WITH"));
            let shown: Vec<String> = analyses.iter().map(|it| format!("{it:?}")).collect();
            prop_assert_eq!(&shown[0], &shown[1]);
        }

        /// A shape says where it was open: with its constants it is the text again.
        #[test]
        fn a_shape_hides_numbers_and_nothing_else(text in "[a-c0-9=<>(),;.' :*/$-]{0,24}") {
            if let Some(shape) = shape_of(&text) {
                let mut rest = text.as_str();
                for (index, part) in shape.split(CONSTANT).enumerate() {
                    if index > 0 {
                        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                        prop_assert!((1..=DIGITS_MAX).contains(&digits));
                        rest = &rest[digits..];
                    }
                    rest = rest.strip_prefix(part).unwrap();
                }
                prop_assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn what_may_be_something_else_than_a_number_has_no_shape() {
        for text in [
            "SELECT 1",
            "SELECT a FROM t ORDER BY 1",
            "SELECT a FROM t LIMIT 5",
            "SELECT 'a = 5'",
            "SELECT a FROM t WHERE b = '5'",
            "SELECT a FROM t -- b = 5",
            "SELECT a FROM t /* b = 5 */",
            "SELECT a FROM \"t = 5 \"",
            "SELECT $$ a = 5 $$",
            "SELECT a FROM t WHERE b = $1",
            "SELECT a FROM t WHERE b = 5.0",
            "SELECT a FROM t WHERE b = 5e1",
            "SELECT a FROM t WHERE b = 5::text",
            "SELECT a FROM t WHERE b = 0x10",
            "SELECT a FROM t WHERE b = -5",
            "SELECT a FROM t WHERE b -> 5",
            "SELECT f(a => 5)",
            "SELECT f(a := 5)",
            "SELECT a FROM t WHERE b = 1234567890",
            "SELECT a FROM t WHERE b = é OR b = 5",
            "SELECT a FROM t WHERE b =\u{1} OR b = 5",
            "SELECT a FROM t1 WHERE a=b1",
        ] {
            assert_eq!(shape_of(text), None, "{text}");
        }
    }

    #[test]
    fn only_plain_statements_are_found_by_their_shape() {
        let mut analyses = Analyses::default();
        for (kept, asked, found) in [
            (
                "SELECT a FROM t WHERE b = 1",
                "SELECT a FROM t WHERE b = 22",
                true,
            ),
            (
                "SELECT a FROM t WHERE b = 1",
                "SELECT a FROM t WHERE c = 1",
                false,
            ),
            ("SET work_mem = 64", "SET work_mem = 65", false),
            ("SET work_mem = 64", "SET work_mem = 64", true),
            (
                "SELECT 1; SELECT a FROM t WHERE b = 1",
                "SELECT 1; SELECT a FROM t WHERE b = 2",
                false,
            ),
            (
                "SELECT a FROM u ORDER BY 1",
                "SELECT a FROM u ORDER BY 2",
                false,
            ),
            (
                "SELECT a FROM t WHERE b = 1",
                "SELECT a FROM t WHERE b = \u{1}",
                false,
            ),
        ] {
            let analysis = Arc::new(sql::analyze(kept).unwrap());
            analyses.keep(kept, &analysis);
            assert_eq!(analyses.of(asked).is_some(), found, "{kept} / {asked}");
        }
    }

    #[test]
    fn a_verdict_is_on_one_text_and_its_analysis() {
        let mut analyses = Analyses::default();
        let verdict = Decision::refusal("no");
        for (text, is_kept) in [("SELECT 1", true), ("SELECT a FROM t WHERE b = 1", false)] {
            let analysis = Arc::new(sql::analyze(text).unwrap());
            analyses.keep(text, &analysis);
            analyses.keep_verdict(text, &analysis, &verdict);
            // By its shape an analysis stands for other texts, too.
            assert_eq!(analyses.verdict(text, &analysis).is_some(), is_kept);
            let another = sql::analyze(text).unwrap();
            assert!(analyses.verdict(text, &another).is_none());
            analyses.forget_verdicts();
            assert!(analyses.verdict(text, &analysis).is_none());
        }
    }

    #[test]
    fn no_more_are_kept_than_the_limit() {
        let mut analyses = Analyses::default();
        let analysis = Arc::new(sql::analyze("SELECT 1").unwrap());
        for number in 0..3 * ANALYSES_MAX {
            analyses.keep(&format!("SELECT {number}"), &analysis);
            assert!(analyses.kept.len() <= ANALYSES_MAX);
        }
        let long = format!("SELECT '{}'", "x".repeat(ANALYSED_BYTES_MAX));
        analyses.keep(&long, &analysis);
        assert!(analyses.of(&long).is_none());
    }
}
