//! Documents of kind Rule.
//!
//! It owns their keys. How a rule meets a command is [`super::condition`]'s, and which of several
//! speaks [`super::decide`]'s.

use alloc::format;

use saphyr_parser::Span;

use super::action_document::{self, ActionDocument, RULE_VERBS, Reasons, Verb};
use super::match_document::{self, MatchDocument};
use super::obligation_document::{self, ObligationDocument};
use super::problem::Problem;
use super::read::Reader;
use super::yaml::{Node, Value};
use super::{DEFAULT_RULE, PRIORITY_MAX};

pub(super) const RULE_KEYS: [&str; 3] = ["priority", "match", "then"];
pub(super) const THEN_KEYS: [&str; 8] = [
    "allow",
    "hold",
    "deny",
    "terminate",
    "mask",
    "limit",
    "readOnly",
    "notify",
];

/// A rule as its document says, before others are looked at.
pub(super) struct RuleDocument {
    pub(super) priority: i16,
    pub(super) conditions: MatchDocument,
    pub(super) action: Option<ActionDocument>,
    pub(super) obligations: ObligationDocument,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    spec: &Node,
    place: Span,
) -> Option<RuleDocument> {
    if name == DEFAULT_RULE {
        reader.report(place, Problem::ReservedName);
    }
    let within = "a Rule's spec";
    let fields = reader.fields(spec, within, RULE_KEYS)?;
    let priority = match fields.optional("priority") {
        Some(node) => priority(reader, node),
        None => Some(0),
    };
    let node = reader.required(&fields, "then", within, place);
    let then = node.and_then(|node| then(reader, name, node));
    // With a broken `then`, the stricter reading of `match` still finds the errors in it.
    let action = then.as_ref().and_then(|(action, _)| action.as_ref());
    let permits = action.is_some_and(|action| action.verb == Verb::Allow);
    // A rule for everything is `match: {}`: leaving it out would be too easy a slip.
    let conditions = reader.required(&fields, "match", within, place);
    let conditions = conditions.and_then(|node| match_document::read(reader, node, permits));
    let (action, obligations) = then?;
    Some(RuleDocument {
        priority: priority?,
        conditions: conditions?,
        action,
        obligations,
    })
}

fn priority(reader: &mut Reader<'_>, node: &Node) -> Option<i16> {
    let text = reader.text(node)?;
    let priority = text.parse().ok();
    let priority = priority.filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority));
    if priority.is_none() {
        reader.report(node.span, Problem::BadPriority { value: text.into() });
    }
    priority
}

type Then = (Option<ActionDocument>, ObligationDocument);

/// A word, or a mapping of at most one of them and whatever else is asked for.
fn then(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Then> {
    let reasons = Reasons {
        allow: format!("allowed by the rule {name}"),
        hold: format!("the rule {name} asks for approval"),
        deny: format!("refused by the rule {name}"),
    };
    if !matches!(node.value, Value::Mapping(_)) {
        let verb = reader.one_of(node, "action", RULE_VERBS)?;
        let action = action_document::detail(reader, verb, None, &reasons)?;
        return Some((Some(action), ObligationDocument::default()));
    }
    let errors_before = reader.errors.len();
    let fields = reader.fields(node, "`then`", THEN_KEYS)?;
    let given = RULE_VERBS
        .iter()
        .filter_map(|(word, verb)| Some((*verb, fields.optional(word)?)));
    let mut action = None;
    let mut count = 0;
    for (verb, node) in given {
        count += 1;
        action = action_document::detail(reader, verb, Some(node), &reasons);
    }
    let obligations = obligation_document::read(reader, &fields);
    if count > 1 {
        let (expected, found) = (
            "one of `allow`, `hold`, `deny` and `terminate`",
            "several keys",
        );
        reader.report(node.span, Problem::WrongType { expected, found });
        return None;
    }
    let obligations = obligations?;
    if count == 0 && obligations.is_empty() {
        // A key that was misspelt said something.
        if reader.errors.len() == errors_before {
            reader.report(node.span, Problem::EmptyThen);
        }
        return None;
    }
    if count == 1 && action.is_none() {
        return None;
    }
    Some((action, obligations))
}
