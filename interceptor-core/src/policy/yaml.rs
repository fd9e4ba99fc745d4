//! YAML text to a tree that remembers where everything stood.
//!
//! It owns what of YAML the language takes: mappings, sequences and scalars, no anchors, aliases
//! or tags. It must not know what a document means.
//!
//! The tree is built from the parser's events, not by its loader: that one recurses without a
//! bound, and reads `1234` as a number where a database may be called so. Here a scalar stays
//! the text that was written.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::DEPTH_MAX;
use super::problem::Problem;

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing or `~`. The word `null` is a text: it names a mask's method.
    Null,
    /// Any other scalar, as written.
    Scalar {
        text: String,
        /// Without quotes: only then may it be a number or a truth value.
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In order of the file; duplicate keys are the reader's to refuse.
    Mapping(Vec<(Node, Node)>),
}

impl Value {
    /// What it is, for an error.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a text",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

/// A collection that is not closed yet; of a mapping, the key that waits for its value.
struct Open {
    node: Node,
    key: Option<Node>,
}

/// Reads every document. What comes before an error in the text is kept.
pub(super) fn read(text: &str, mut report: impl FnMut(Span, Problem)) -> Vec<Node> {
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let problem = match error.info() {
                    // A pattern such as `*.*.password` without its quotes.
                    info if info.ends_with("unknown anchor") => Problem::Anchor,
                    info => Problem::Syntax {
                        message: info.to_string(),
                    },
                };
                report(Span::empty(*error.marker()), problem);
                return documents;
            }
        };
        let node = match step(event, span, &mut open) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            Err(problem) => {
                report(span, problem);
                return documents;
            }
        };
        if let Some(root) = close_into(&mut open, node) {
            documents.push(root);
        }
    }
    documents
}

/// Takes one event in; gives a node when one is whole.
fn step(event: Event<'_>, span: Span, open: &mut Vec<Open>) -> Result<Option<Node>, Problem> {
    let (anchor, tag) = match &event {
        Event::Alias(_) => return Err(Problem::Anchor),
        Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
        Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
            (*anchor, tag.is_some())
        }
        _ => (0, false),
    };
    if anchor != 0 {
        return Err(Problem::Anchor);
    }
    if tag {
        return Err(Problem::Tag);
    }
    let collection = match event {
        Event::Scalar(text, style, ..) => return Ok(Some(scalar(text, style, span))),
        Event::SequenceEnd | Event::MappingEnd => return Ok(open.pop().map(|open| open.node)),
        Event::SequenceStart(..) => Value::Sequence(Vec::new()),
        Event::MappingStart(..) => Value::Mapping(Vec::new()),
        _ => return Ok(None),
    };
    if open.len() >= DEPTH_MAX {
        return Err(Problem::TooDeep);
    }
    open.push(Open {
        node: Node {
            span,
            value: collection,
        },
        key: None,
    });
    Ok(None)
}

/// Puts a whole node where it belongs; gives it back if it is a document's root.
fn close_into(open: &mut [Open], node: Node) -> Option<Node> {
    let Some(parent) = open.last_mut() else {
        return Some(node);
    };
    match &mut parent.node.value {
        Value::Sequence(entries) => entries.push(node),
        Value::Mapping(entries) => match parent.key.take() {
            Some(key) => entries.push((key, node)),
            None => parent.key = Some(node),
        },
        Value::Null | Value::Scalar { .. } => {}
    }
    None
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, span: Span) -> Node {
    let plain = style == ScalarStyle::Plain;
    let null = plain && matches!(&*text, "" | "~");
    let value = if null {
        Value::Null
    } else {
        Value::Scalar {
            text: text.into_owned(),
            plain,
        }
    };
    Node { span, value }
}
