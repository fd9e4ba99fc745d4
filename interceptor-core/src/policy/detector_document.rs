//! Documents of kind Detector: patterns for masks.
//!
//! It owns their keys. How findings come to be is [`crate::mask`]'s.

use alloc::boxed::Box;
use alloc::sync::Arc;

use regex::bytes::RegexBuilder;
use saphyr_parser::Span;

use super::problem::Problem;
use super::read::Reader;
use super::yaml::Node;
use super::{REGEX_BYTES_MAX, REGEX_DEPTH_MAX};
use crate::mask::{Check, Detector, Pattern};

pub(super) const DETECTOR_KEYS: [&str; 4] = ["pattern", "check", "group", "context"];

pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    spec: &Node,
    place: Span,
) -> Option<Arc<Detector>> {
    if Pattern::NAMES.iter().any(|(known, _)| *known == name) {
        reader.report(place, Problem::BuiltInDetector { name: name.into() });
    }
    let within = "a Detector's spec";
    let fields = reader.fields(spec, within, DETECTOR_KEYS)?;
    let check = match fields.optional("check") {
        Some(node) => reader.one_of(node, "check", Check::NAMES),
        None => Some(Check::None),
    };
    let group = match fields.optional("group") {
        Some(node) => reader.number(node, 0..=u64::from(u16::MAX)),
        None => Some(0),
    };
    let context = reader.list(fields.optional("context"), word);
    let pattern = reader.required(&fields, "pattern", within, place)?;
    let text = reader.text(pattern)?;
    reader.count_regex(pattern)?;
    let regex = RegexBuilder::new(text)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build();
    let regex = reader.regex(pattern, regex)?;
    if regex.is_match(b"") {
        reader.report(pattern.span, Problem::MatchesNothing);
    }
    let group = usize::try_from(group?).unwrap_or(usize::MAX);
    if group >= regex.captures_len() {
        let groups = regex.captures_len() - 1;
        let place = fields.optional("group").map_or(place, |node| node.span);
        reader.report(place, Problem::NoSuchGroup { groups });
    }
    Some(Arc::new(Detector {
        name: name.into(),
        regex,
        group,
        check: check?,
        context: context.unwrap_or_default(),
    }))
}

/// A word that stands near a value: letters, in any case.
fn word(reader: &mut Reader<'_>, node: &Node) -> Option<Box<str>> {
    let text = reader.text(node)?;
    if !text.chars().all(char::is_alphabetic) || text.is_empty() {
        let value = text.into();
        reader.report(node.span, Problem::BadContextWord { value });
        return None;
    }
    Some(text.to_lowercase().into_boxed_str())
}
