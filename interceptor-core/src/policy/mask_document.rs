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
use super::mask_problem::MaskProblem;
use super::match_document::column;
use super::problem::Problem;
use super::read::{Reader, did_you_mean, report};
use super::reference::{Reference, Referent};
use super::target_document::absolute_path;
use super::yaml::Node;
use crate::mask::{
    ColumnMask, Detector, Finder, KEY_BYTES_MAX, KEY_BYTES_MIN, KeyError, KeyRing, Layer, Method,
    Pattern,
};

pub(super) const MASK_KEYS: [&str; 7] = [
    "targets",
    "columns",
    "patterns",
    "with",
    "key",
    "placeholder",
    "when",
];
pub(super) const KEY_KEYS: [&str; 1] = ["file"];
/// Bytes of a placeholder: as many as the type `name` holds.
pub(super) const PLACEHOLDER_BYTES_MAX: usize = 63;
/// What stands for a value where neither a column nor a pattern has a name to show.
const PLACEHOLDER: &str = "<masked>";

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
    /// The file that `token` and `preserve` take their key from.
    key: Option<(String, Span)>,
    /// What `placeholder` shows, where not the name of the column or pattern.
    placeholder: Option<String>,
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
        ring: &mut KeyRing,
        source: Source<'_>,
        errors: &mut Vec<PolicyError>,
    ) -> Layer {
        let mut patterns = Vec::new();
        let keyed = self.keyed(ring, source, errors);
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
            patterns.push((finder, self.labelled(keyed, Some(name), ring)));
        }
        let mut columns = self.columns.clone();
        for column in &mut columns {
            column.method = self.labelled(keyed, column.column.plain(), ring);
        }
        Layer::new(columns, patterns)
    }

    /// The method with its key.
    fn keyed(
        &self,
        ring: &mut KeyRing,
        source: Source<'_>,
        errors: &mut Vec<PolicyError>,
    ) -> Method {
        let Some((path, place)) = &self.key else {
            return self.method;
        };
        let message = match (ring.key(path), self.method) {
            (Ok(number), Method::Token(_)) => return Method::Token(number),
            (Ok(number), Method::Preserve(_)) => return Method::Preserve(number),
            (Ok(_), other) => return other,
            (Err(KeyError::Unreadable(message)), _) => message,
            (Err(KeyError::Length(bytes)), _) => alloc::format!(
                "it has {bytes} bytes, and {KEY_BYTES_MIN} to {KEY_BYTES_MAX} are needed: \
                 `head -c 32 /dev/urandom > FILE` makes one"
            ),
            (Err(KeyError::TooMany), _) => "there are too many keys".to_owned(),
        };
        let path = path.clone();
        report(
            errors,
            source,
            *place,
            Problem::Mask(MaskProblem::KeyFile { path, message }),
            None,
        );
        Method::Null
    }

    /// The method with its label, where it shows one: what is masked has a name, or the document
    /// gives one.
    fn labelled(&self, method: Method, name: Option<&str>, ring: &mut KeyRing) -> Method {
        let Method::Placeholder(_) = method else {
            return method;
        };
        let own =
            name.filter(|name| is_placeholder(name) && name.len() < PLACEHOLDER_BYTES_MAX - 1);
        let label = match (&self.placeholder, own) {
            (Some(text), _) => text.clone(),
            (None, Some(name)) => alloc::format!("<{name}>"),
            (None, None) => PLACEHOLDER.to_owned(),
        };
        Method::Placeholder(ring.label(&label))
    }
}

/// It can stand in a text, a JSON string and an array as it is.
fn is_placeholder(text: &str) -> bool {
    text.len() <= PLACEHOLDER_BYTES_MAX && !text.contains(['"', '\\', '{', '}', '(', ')', ','])
}

fn read_key(reader: &mut Reader<'_>, node: &Node) -> Option<(String, Span)> {
    let within = "`key`";
    let fields = reader.fields(node, within, KEY_KEYS)?;
    let file = reader.required(&fields, "file", within, node.span)?;
    absolute_path(reader, file).map(|path| (path, file.span))
}

fn read_placeholder(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    if !is_placeholder(text) {
        reader.report(node.span, Problem::Mask(MaskProblem::BadPlaceholder));
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn read(reader: &mut Reader<'_>, spec: &Node, place: Span) -> Option<MaskDocument> {
    let fields = reader.fields(spec, "a Mask's spec", MASK_KEYS)?;
    let method = match fields.optional("with") {
        Some(node) => reader.one_of(node, "method", Method::NAMES),
        None => Some(Method::Full),
    };
    let key = fields
        .optional("key")
        .and_then(|node| read_key(reader, node));
    let placeholder = fields
        .optional("placeholder")
        .and_then(|node| read_placeholder(reader, node));
    let keyed = matches!(method, Some(Method::Token(_) | Method::Preserve(_)));
    match fields.optional("key") {
        None if keyed => reader.report(
            place,
            Problem::MissingKey {
                key: "key",
                within: "a Mask with `token` or `preserve`",
            },
        ),
        Some(node) if !keyed && method.is_some() => reader.report(
            node.span,
            Problem::Mask(MaskProblem::KeyWithout {
                key: "key",
                with: "`with: token` or `with: preserve`",
            }),
        ),
        _ => {}
    }
    if let (Some(node), Some(method)) = (fields.optional("placeholder"), method)
        && !matches!(method, Method::Placeholder(_))
    {
        reader.report(
            node.span,
            Problem::Mask(MaskProblem::KeyWithout {
                key: "placeholder",
                with: "`with: placeholder`",
            }),
        );
    }
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
        key,
        placeholder,
        is_always: is_always.unwrap_or(true),
        columns_place: fields.optional("columns").map_or(place, |node| node.span),
    })
}
