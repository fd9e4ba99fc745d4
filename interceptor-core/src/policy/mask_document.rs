//! Documents of kind Mask.
//!
//! It owns their keys. What a mask shows is [`crate::mask`]'s.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;
use saphyr_parser::Span;

use super::Source;
use super::error::PolicyError;
use super::match_document::column;
use super::problem::Problem;
use super::read::{Reader, did_you_mean, report};
use super::reference::{Reference, Referent};
use super::yaml::Node;
use crate::mask::{ColumnMask, Detector, Finder, Layer, Method, Pattern};

pub(super) const MASK_KEYS: [&str; 5] = ["targets", "columns", "patterns", "with", "when"];

/// When a mask is in force: always, or for what a rule names it.
pub(super) const WHEN: &[(&str, bool)] = &[("always", true), ("named", false)];

/// A mask as its document says, before others are looked at.
pub(super) struct MaskDocument {
    /// The targets; `None` for all.
    pub(super) targets: Option<Vec<Reference>>,
    pub(super) columns: Vec<ColumnMask>,
    /// Names of patterns, with their places.
    patterns: Vec<(String, Span)>,
    method: Method,
    /// Not only where a rule names it.
    pub(super) is_always: bool,
    /// Where `columns` stands.
    pub(super) columns_place: Span,
}

impl MaskDocument {
    pub(super) fn is_on(&self, target: &str) -> bool {
        self.targets
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name.pattern().matches(target)))
    }

    /// The patterns that it names, built in or not.
    pub(super) fn pattern_names(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|(name, _)| name.as_str())
    }

    /// Reports patterns that are neither known to every gateway nor a Detector's name. `names` are those
    /// of all detectors, of such with errors in them too; `None` where some could not be read.
    pub(super) fn compile(
        &self,
        detectors: &HashMap<&str, &Arc<Detector>>,
        names: Option<&[&str]>,
        source: Source<'_>,
        errors: &mut Vec<PolicyError>,
    ) -> Layer {
        let mut patterns = Vec::new();
        for (name, span) in &self.patterns {
            let built_in = Pattern::NAMES.iter().find(|(known, _)| known == name);
            let finder = match (built_in, detectors.get(name.as_str())) {
                (Some((_, pattern)), _) => Finder::BuiltIn(*pattern),
                (None, Some(detector)) => Finder::Custom(Arc::clone(detector)),
                (None, None) => {
                    let names = names.filter(|names| !names.contains(&name.as_str()));
                    if let Some(names) = names {
                        let built_in = Pattern::NAMES.iter().map(|(known, _)| *known);
                        let help = did_you_mean(name, built_in.chain(names.iter().copied()));
                        let problem = Problem::UnknownValue {
                            what: "pattern",
                            value: name.clone(),
                        };
                        report(errors, source, *span, problem, help);
                    }
                    continue;
                }
            };
            patterns.push((finder, self.method));
        }
        Layer::new(self.columns.clone(), patterns)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, spec: &Node, place: Span) -> Option<MaskDocument> {
    let fields = reader.fields(spec, "a Mask's spec", MASK_KEYS)?;
    let method = match fields.optional("with") {
        Some(node) => reader.one_of(node, "method", Method::NAMES),
        None => Some(Method::Full),
    };
    let is_always = match fields.optional("when") {
        Some(node) => reader.one_of(node, "word", WHEN),
        None => Some(true),
    };
    let targets = reader.references(fields.optional("targets"), Referent::Target);
    let columns = reader.list(fields.optional("columns"), column);
    let patterns = reader.list(fields.optional("patterns"), |reader, node| {
        Some((reader.text(node)?.to_owned(), node.span))
    });
    if fields.optional("columns").is_none() && fields.optional("patterns").is_none() {
        reader.report(place, Problem::EmptyMask);
    }
    // Where the method is not known, the names of patterns still are to be looked at.
    let method = method.unwrap_or(Method::Full);
    let columns = columns.unwrap_or_default().into_iter();
    Some(MaskDocument {
        targets,
        columns: columns
            .map(|column| ColumnMask {
                relation: column.relation,
                column: column.column,
                method,
            })
            .collect(),
        patterns: patterns.unwrap_or_default(),
        method,
        is_always: is_always.unwrap_or(true),
        columns_place: fields.optional("columns").map_or(place, |node| node.span),
    })
}
