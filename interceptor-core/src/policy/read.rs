//! Typed reading of a document's tree.
//!
//! It owns the checks that every key shares: types, limits, unknown and repeated keys, the
//! nearest right word. It must not know what a key means.
//!
//! A reading function reports what is wrong and gives `None`; reading goes on, so that one load
//! shows every error.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use ipnet::IpNet;
use saphyr_parser::Span;

use super::error::PolicyError;
use super::problem::Problem;
use super::reference::{Reference, Referent};
use super::yaml::{Node, Value};
use super::{
    ERRORS_MAX, LIST_ENTRIES_MAX, NamePattern, REGEXES_MAX, RelationPattern, Source,
    TEXT_CHARS_MAX, endpoint, place,
};

/// How like a word must be to one that it is taken for (Jaro-Winkler, 1 is equal).
const LIKENESS_MIN: f64 = 0.8;
/// The most words that an error lists.
const LISTED_WORDS_MAX: usize = 12;
/// The most characters of a line that an error shows.
const SHOWN_CHARS_MAX: usize = 120;

/// One file's text, and the errors found in it.
pub(super) struct Reader<'a> {
    pub(super) source: Source<'a>,
    pub(super) errors: &'a mut Vec<PolicyError>,
    /// Regular expressions compiled so far, in all files.
    pub(super) regex_count: usize,
}

/// A mapping's values by the keys that its reader named.
pub(super) struct Fields<'n, const N: usize> {
    keys: [&'static str; N],
    values: [Option<&'n Node>; N],
}

impl<'n, const N: usize> Fields<'n, N> {
    /// The value of a key, if the file gives it.
    pub(super) fn optional(&self, key: &'static str) -> Option<&'n Node> {
        let index = self.keys.iter().position(|known| *known == key)?;
        self.values.get(index).copied().flatten()
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: Source<'a>, errors: &'a mut Vec<PolicyError>) -> Self {
        Self {
            source,
            errors,
            regex_count: 0,
        }
    }

    pub(super) fn report(&mut self, span: Span, problem: Problem) {
        report(self.errors, self.source, span, problem, None);
    }

    /// Reports an unknown word, with the nearest of those that are known or, if none is near and
    /// they are few, with all of them.
    pub(super) fn report_unknown<'c>(
        &mut self,
        span: Span,
        word: &str,
        known: impl IntoIterator<Item = &'c str>,
        problem: Problem,
    ) {
        let help = did_you_mean(word, known);
        report(self.errors, self.source, span, problem, help);
    }

    fn wrong_type(&mut self, node: &Node, expected: &'static str) {
        let found = node.value.describe();
        self.report(node.span, Problem::WrongType { expected, found });
    }

    /// A mapping with these keys and no other. `within` names it in errors.
    pub(super) fn fields<'n, const N: usize>(
        &mut self,
        node: &'n Node,
        within: &'static str,
        keys: [&'static str; N],
    ) -> Option<Fields<'n, N>> {
        let Value::Mapping(entries) = &node.value else {
            self.wrong_type(node, "a mapping");
            return None;
        };
        let mut values = [None; N];
        for (key, value) in entries {
            let Value::Scalar { text, .. } = &key.value else {
                self.wrong_type(key, "a key");
                continue;
            };
            let slot = keys
                .iter()
                .zip(&mut values)
                .find(|(known, _)| *known == text);
            match slot {
                Some((_, slot @ None)) => *slot = Some(value),
                Some(_) => self.report(key.span, Problem::DuplicateKey { key: excerpt(text) }),
                None => {
                    let problem = Problem::UnknownKey {
                        key: excerpt(text),
                        within,
                    };
                    self.report_unknown(key.span, &excerpt(text), keys, problem);
                }
            }
        }
        Some(Fields { keys, values })
    }

    /// The value of a key that must be given.
    pub(super) fn required<'n, const N: usize>(
        &mut self,
        fields: &Fields<'n, N>,
        key: &'static str,
        within: &'static str,
        place: Span,
    ) -> Option<&'n Node> {
        let value = fields.optional(key);
        if value.is_none() {
            self.report(place, Problem::MissingKey { key, within });
        }
        value
    }

    /// A text of one line; any scalar will do, as it is written.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let Value::Scalar { text, .. } = &node.value else {
            self.wrong_type(node, "a text");
            return None;
        };
        let problem = if text.is_empty() {
            Problem::EmptyText
        } else if text.chars().count() > TEXT_CHARS_MAX {
            Problem::TextTooLong
        } else if text.chars().any(char::is_control) {
            Problem::ControlCharacter
        } else {
            return Some(text);
        };
        self.report(node.span, problem);
        None
    }

    /// A text of any number of lines, up to so many bytes.
    pub(super) fn lines<'n>(&mut self, node: &'n Node, bytes_max: usize) -> Option<&'n str> {
        let Value::Scalar { text, .. } = &node.value else {
            self.wrong_type(node, "a text");
            return None;
        };
        let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        let problem = if text.trim().is_empty() {
            Problem::EmptyText
        } else if text.len() > bytes_max {
            Problem::ExpressionTooLong
        } else if text.chars().any(is_control) {
            Problem::ControlCharacter
        } else {
            return Some(text);
        };
        self.report(node.span, problem);
        None
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(node)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<u64> = digits.then(|| text.parse().ok()).flatten();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (value, (min, max)) = (text.to_owned(), range.into_inner());
            self.report(node.span, Problem::NumberOutOfRange { value, min, max });
        }
        number
    }

    /// A number and `s`, `m` or `h`.
    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node)?;
        let duration = parse_duration(text);
        if duration.is_none() {
            let value = text.to_owned();
            self.report(node.span, Problem::BadDuration { value });
        }
        duration
    }

    /// A list of names of other documents.
    pub(super) fn references(
        &mut self,
        node: Option<&Node>,
        referent: Referent,
    ) -> Option<Vec<Reference>> {
        self.list(node, |reader, node| Reference::read(reader, node, referent))
    }

    /// Says why a regular expression is none, in one line.
    pub(super) fn regex<T>(&mut self, node: &Node, regex: Result<T, regex::Error>) -> Option<T> {
        let error = match regex {
            Ok(regex) => return Some(regex),
            Err(error) => error,
        };
        let problem = match error {
            regex::Error::CompiledTooBig(_) => Problem::RegexTooLarge,
            error => {
                // The engine draws the place over several lines; the last one has the reason.
                let drawn = error.to_string();
                let last = drawn.lines().next_back().unwrap_or_default();
                let message = last.strip_prefix("error: ").unwrap_or(last).to_owned();
                Problem::BadRegex { message }
            }
        };
        self.report(node.span, problem);
        None
    }

    /// Counts a regular expression: each may take as much memory as its limit allows. `None` if there
    /// are too many already.
    pub(super) fn count_regex(&mut self, node: &Node) -> Option<()> {
        self.regex_count += 1;
        if self.regex_count == REGEXES_MAX + 1 {
            self.report(node.span, Problem::TooManyRegexes);
        }
        (self.regex_count <= REGEXES_MAX).then_some(())
    }

    /// The place of a byte of a scalar's text in the file, if the scalar stands on one line; else
    /// all of the scalar.
    pub(super) fn place_in(&self, node: &Node, offset: usize) -> Span {
        place::of_byte(self.source, node, offset).unwrap_or(node.span)
    }

    pub(super) fn truth(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.wrong_type(node, "`true` or `false`");
                None
            }
        }
    }

    /// One of the named values.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        node: &Node,
        what: &'static str,
        known: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(node)?;
        let found = known
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let problem = Problem::UnknownValue {
                what,
                value: text.to_owned(),
            };
            self.report_unknown(
                node.span,
                text,
                known.iter().map(|(name, _)| *name),
                problem,
            );
        }
        found
    }

    /// A list of at least one entry, each read by `entry`. `None` if the key is not given, or if
    /// anything in it is wrong.
    pub(super) fn list<T>(
        &mut self,
        node: Option<&Node>,
        mut entry: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let node = node?;
        let Value::Sequence(entries) = &node.value else {
            self.wrong_type(node, "a list");
            return None;
        };
        if entries.is_empty() {
            self.report(node.span, Problem::EmptyList);
            return None;
        }
        if entries.len() > LIST_ENTRIES_MAX {
            self.report(node.span, Problem::ListTooLong);
            return None;
        }
        // No early end: every entry's error is to be shown.
        let read: Vec<Option<T>> = entries.iter().map(|node| entry(self, node)).collect();
        read.into_iter().collect()
    }

    /// A list of names with `*`.
    pub(super) fn names(&mut self, node: Option<&Node>) -> Option<Vec<NamePattern>> {
        self.list(node, |reader, node| reader.text(node).map(NamePattern::new))
    }

    /// A list of tables with `*`.
    pub(super) fn tables(&mut self, node: Option<&Node>) -> Option<Vec<RelationPattern>> {
        self.relations(node, |value| Problem::BadTable { value })
    }

    /// A list of functions with `*`.
    pub(super) fn functions(&mut self, node: Option<&Node>) -> Option<Vec<RelationPattern>> {
        self.relations(node, |value| Problem::BadFunction { value })
    }

    fn relations(
        &mut self,
        node: Option<&Node>,
        problem: fn(String) -> Problem,
    ) -> Option<Vec<RelationPattern>> {
        self.list(node, |reader, node| {
            let text = reader.text(node)?;
            let relation = RelationPattern::parse(text).filter(|_| !text.contains(['(', ' ']));
            if relation.is_none() {
                reader.report(node.span, problem(text.to_owned()));
            }
            relation
        })
    }

    /// An address or a network in CIDR form.
    pub(super) fn network(&mut self, node: &Node) -> Option<IpNet> {
        let text = self.text(node)?;
        match endpoint::parse_network(text) {
            Some(network) => self.without_host_bits(node, text, network),
            None => {
                self.report(
                    node.span,
                    Problem::BadNetwork {
                        value: text.to_owned(),
                    },
                );
                None
            }
        }
    }

    /// `10.1.2.3/16` may mean an address or a network: the writer has to say.
    pub(super) fn without_host_bits(
        &mut self,
        node: &Node,
        text: &str,
        network: IpNet,
    ) -> Option<IpNet> {
        if network == network.trunc() {
            return Some(network);
        }
        let problem = Problem::HostBits {
            value: text.to_owned(),
        };
        let help = format!("did you mean `{}`?", network.trunc());
        report(self.errors, self.source, node.span, problem, Some(help));
        None
    }
}

/// Keeps an error at a place of a file, as long as there are not too many.
pub(super) fn report(
    errors: &mut Vec<PolicyError>,
    source: Source<'_>,
    span: Span,
    problem: Problem,
    help: Option<String>,
) {
    if errors.len() < ERRORS_MAX {
        errors.push(error_at(source, span, problem, help));
    } else if errors.len() == ERRORS_MAX {
        errors.push(PolicyError::of_all(Problem::MoreErrors));
    }
}

fn error_at(source: Source<'_>, span: Span, problem: Problem, help: Option<String>) -> PolicyError {
    let line = span.start.line().max(1);
    let text = source
        .text
        .lines()
        .nth(line - 1)
        .unwrap_or_default()
        .trim_end();
    let cut = span.start.col().saturating_sub(SHOWN_CHARS_MAX / 2);
    let text: String = text.chars().skip(cut).take(SHOWN_CHARS_MAX).collect();
    let lead = span.start.col() - cut;
    let rest = text.chars().count().saturating_sub(lead);
    // What goes on over several lines is underlined on its first.
    let width = if span.end.line() > line {
        rest
    } else {
        span.len().min(rest)
    };
    PolicyError {
        file: source.file.to_owned(),
        line,
        column: span.start.col() + 1,
        problem,
        help,
        text,
        lead,
        width: width.max(1),
    }
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit_seconds) = [('s', 1), ('m', 60), ('h', 3600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit_seconds)?))
}

/// The known word that was probably meant, or all of them if they are few.
pub(super) fn did_you_mean<'c>(
    word: &str,
    known: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let word = word.to_lowercase();
    let likeness = |known: &str| strsim::jaro_winkler(&word, &known.to_lowercase());
    let nearest = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    if likeness(nearest) >= LIKENESS_MIN {
        return Some(format!("did you mean `{nearest}`?"));
    }
    let all = known.join("`, `");
    (known.len() <= LISTED_WORDS_MAX).then(|| format!("there is `{all}`"))
}

/// A word of the file for a message, in bounds.
fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(SHOWN_CHARS_MAX / 2).collect();
    if chars.next().is_some() {
        start + "…"
    } else {
        start
    }
}
