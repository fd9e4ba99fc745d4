//! Documents of kind Rule.
//!
//! It owns their keys. How a rule meets a command is [`super::decide`]'s.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use saphyr_parser::Span;

use super::decide::{Conditions, ProcessConditions};
use super::error::Problem;
use super::read::Reader;
use super::target_document::{Reasons, action};
use super::yaml::Node;
use super::{Action, Outcome};
use crate::command::KINDS;

/// A rule as its document says, before others are looked at.
pub(super) struct RuleDocument {
    /// The targets as written, with their places.
    pub(super) targets: Option<Vec<(String, Span)>>,
    pub(super) conditions: Conditions,
    pub(super) action: Action,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    spec: &Node,
    place: Span,
) -> Option<RuleDocument> {
    let within = "a Rule's spec";
    let fields = reader.fields(spec, within, ["match", "then"])?;
    let then = reader.required(&fields, "then", within, place);
    let reasons = Reasons {
        allow: format!("allowed by the rule {name}"),
        hold: format!("the rule {name} asks for approval"),
        deny: format!("refused by the rule {name}"),
    };
    let action = then.and_then(|node| action(reader, node, &reasons));
    // With a broken `then`, the stricter reading of `match` still finds the errors in it.
    let outcome = action
        .as_ref()
        .map_or(Outcome::Deny, |action| action.outcome.clone());
    // A rule for everything is `match: {}`: leaving it out would be too easy a slip.
    let conditions = reader.required(&fields, "match", within, place);
    let (targets, conditions) =
        conditions.and_then(|node| conditions_of(reader, node, &outcome))?;
    Some(RuleDocument {
        targets,
        conditions,
        action: action?,
    })
}

type Targets = Option<Vec<(String, Span)>>;

fn conditions_of(
    reader: &mut Reader<'_>,
    node: &Node,
    outcome: &Outcome,
) -> Option<(Targets, Conditions)> {
    let keys = [
        "targets",
        "users",
        "databases",
        "statements",
        "tables",
        "reads",
        "writes",
        "functions",
        "noWhere",
        "incomplete",
        "clientNetworks",
        "process",
    ];
    let fields = reader.fields(node, "`match`", keys)?;
    let targets = reader.list(fields.optional("targets"), target_name);
    let statements = reader.list(fields.optional("statements"), |reader, node| {
        statement_kinds(reader, node, outcome)
    });
    let conditions = Conditions {
        // Filled in once every target is known.
        targets: None,
        users: reader.names(fields.optional("users")),
        databases: reader.names(fields.optional("databases")),
        statements: statements.map(|kinds| kinds.concat()),
        tables: reader.tables(fields.optional("tables")),
        reads: reader.tables(fields.optional("reads")),
        writes: reader.tables(fields.optional("writes")),
        functions: reader.functions(fields.optional("functions")),
        no_where: fields
            .optional("noWhere")
            .and_then(|node| reader.truth(node)),
        incomplete: fields
            .optional("incomplete")
            .and_then(|node| reader.truth(node)),
        client_networks: reader.list(fields.optional("clientNetworks"), Reader::network),
        process: fields
            .optional("process")
            .and_then(|node| process(reader, node)),
    };
    Some((targets, conditions))
}

/// A target's name with its place, for the look-up once all are known.
pub(super) fn target_name(reader: &mut Reader<'_>, node: &Node) -> Option<(String, Span)> {
    Some((reader.text(node)?.to_owned(), node.span))
}

/// The kinds that a word or two stand for: that kind, and every kind that goes on from it
/// (`ALTER`, `SET` with `SET ROLE`). In a rule that allows, the name of a kind is only that kind:
/// allowing `SET` must not allow `SET ROLE`.
fn statement_kinds(
    reader: &mut Reader<'_>,
    node: &Node,
    outcome: &Outcome,
) -> Option<Vec<&'static str>> {
    let text = reader.text(node)?;
    let word = text.to_ascii_uppercase();
    let goes_on = |kind: &str| {
        kind.strip_prefix(&word)
            .is_some_and(|rest| rest.starts_with(' '))
    };
    let exact = KINDS.contains(&word.as_str());
    let only_exact = exact && *outcome == Outcome::Allow;
    let kinds: Vec<&'static str> = KINDS
        .iter()
        .copied()
        .filter(|kind| *kind == word || (!only_exact && goes_on(kind)))
        .collect();
    if kinds.is_empty() {
        let first_words = KINDS.iter().filter_map(|kind| kind.split(' ').next());
        let problem = Problem::UnknownValue {
            what: "statement kind",
            value: text.to_owned(),
        };
        reader.report_unknown(
            node.span,
            &word,
            KINDS.iter().copied().chain(first_words),
            problem,
        );
        return None;
    }
    Some(kinds)
}

fn process(reader: &mut Reader<'_>, node: &Node) -> Option<ProcessConditions> {
    let fields = reader.fields(node, "`process`", ["uids", "executables", "cgroups"])?;
    Some(ProcessConditions {
        uids: reader.list(fields.optional("uids"), uid),
        executables: reader.names(fields.optional("executables")),
        cgroups: reader.names(fields.optional("cgroups")),
    })
}

fn uid(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let text = reader.text(node)?;
    let uid = text.parse().ok();
    if uid.is_none() {
        reader.report(
            node.span,
            Problem::BadUid {
                value: text.to_owned(),
            },
        );
    }
    uid
}
