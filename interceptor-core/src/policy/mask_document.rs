//! Documents of kind Mask.
//!
//! It owns their keys. What a mask shows is [`crate::mask`]'s.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use saphyr_parser::Span;

use super::error::Problem;
use super::read::Reader;
use super::rule_document::target_name;
use super::yaml::Node;
use super::{NamePattern, RelationPattern};
use crate::mask::{ColumnMask, Method, Pattern};

/// A mask as its document says, before others are looked at.
pub(super) struct MaskDocument {
    /// The targets as written, with their places; `None` for all.
    pub(super) targets: Option<Vec<(String, Span)>>,
    pub(super) columns: Vec<ColumnMask>,
    pub(super) patterns: Vec<(Pattern, Method)>,
    /// Where `columns` stands.
    pub(super) columns_place: Span,
}

impl MaskDocument {
    pub(super) fn is_on(&self, target: &str) -> bool {
        self.targets.as_ref().is_none_or(|names| {
            names
                .iter()
                .any(|(name, _)| NamePattern::new(name).matches(target))
        })
    }
}

pub(super) fn read(reader: &mut Reader<'_>, spec: &Node, place: Span) -> Option<MaskDocument> {
    let fields = reader.fields(
        spec,
        "a Mask's spec",
        ["targets", "columns", "patterns", "with"],
    )?;
    let method = match fields.optional("with") {
        Some(node) => reader.one_of(node, "method", Method::NAMES),
        None => Some(Method::Full),
    };
    let targets = reader.list(fields.optional("targets"), target_name);
    let columns = reader.list(fields.optional("columns"), column);
    let patterns = reader.list(fields.optional("patterns"), |reader, node| {
        reader.one_of(node, "pattern", Pattern::NAMES)
    });
    if fields.optional("columns").is_none() && fields.optional("patterns").is_none() {
        reader.report(place, Problem::EmptyMask);
    }
    let method = method?;
    let columns = columns.unwrap_or_default().into_iter();
    Some(MaskDocument {
        targets,
        columns: columns
            .map(|(relation, column)| ColumnMask {
                relation,
                column,
                method,
            })
            .collect(),
        patterns: patterns
            .unwrap_or_default()
            .into_iter()
            .map(|p| (p, method))
            .collect(),
        columns_place: fields.optional("columns").map_or(place, |node| node.span),
    })
}

/// `table.column` or `schema.table.column`.
fn column(reader: &mut Reader<'_>, node: &Node) -> Option<(RelationPattern, NamePattern)> {
    let text = reader.text(node)?;
    let parsed = text.rsplit_once('.').and_then(|(relation, column)| {
        let relation = RelationPattern::parse(relation)?;
        (!column.is_empty() && !text.contains(' ')).then(|| (relation, NamePattern::new(column)))
    });
    if parsed.is_none() {
        reader.report(
            node.span,
            Problem::BadColumn {
                value: text.to_owned(),
            },
        );
    }
    parsed
}
