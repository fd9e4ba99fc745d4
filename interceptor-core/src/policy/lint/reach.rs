//! Rules, grants and bypasses that no command can meet.
//!
//! It owns what a target's protocol can never show.

use super::super::condition::{Condition, Conditions};
use super::super::{Protocol, Target};
use crate::command::CONNECT;

/// Why nothing meets the conditions on any of these targets; `None` if something may. `permits` says
/// that doubt is no match, and that the whole command has to be covered.
pub(super) fn unreachable<'a>(
    conditions: &Conditions,
    permits: bool,
    targets: impl Iterator<Item = &'a Target>,
) -> Option<&'static str> {
    let mut why = None;
    for target in targets {
        let here = match target.protocol {
            Protocol::Tcp => on_pass_through(conditions, permits),
            Protocol::Postgres => on_postgres(conditions),
        };
        // One target on which something may is enough.
        why = Some(here?);
    }
    why
}

fn on_postgres(conditions: &Conditions) -> Option<&'static str> {
    let is_connection = |condition: &Condition| match condition {
        Condition::Statements(kinds) => kinds.iter().all(|kind| *kind == CONNECT),
        _ => false,
    };
    let any = conditions.0.iter().any(is_connection);
    any.then_some("CONNECT is the kind of connections to targets with `protocol: tcp` alone")
}

fn on_pass_through(conditions: &Conditions, permits: bool) -> Option<&'static str> {
    let why = conditions.0.iter().find_map(|condition| match condition {
        Condition::Statements(kinds) => (!kinds.contains(&CONNECT)).then_some(
            "with `protocol: tcp` the only kind of statement is CONNECT",
        ),
        Condition::Tables(_)
        | Condition::Reads(_)
        | Condition::Writes(_)
        | Condition::Functions(_)
        | Condition::ColumnsRead(_)
        | Condition::ColumnsWritten(_)
        | Condition::NoWhere(true)
        | Condition::MaskedUses(_)
        | Condition::Incomplete(true) => {
            Some("with `protocol: tcp` no statement is seen, so it has no tables, columns or functions")
        }
        Condition::Users(_) | Condition::Databases(_) | Condition::Text(_) if permits => Some(
            "with `protocol: tcp` nobody sees users, databases and texts, and what permits needs certainty",
        ),
        Condition::EstimatedRows(_) if permits => Some(
            "with `protocol: tcp` nobody sees tables, and what permits needs certainty",
        ),
        _ => None,
    });
    let names_kinds = conditions
        .0
        .iter()
        .any(|condition| matches!(condition, Condition::Statements(_)));
    why.or((permits && !names_kinds).then_some(
        "what permits a connection with `protocol: tcp` has to have `statements: [CONNECT]`",
    ))
}

/// The first key that nobody can see on a target that is not understood, if nothing else in the
/// conditions has to do with connections.
pub(super) fn met_by_doubt(conditions: &Conditions) -> Option<&'static str> {
    if on_pass_through(conditions, false).is_some() {
        return None;
    }
    let mut key = None;
    for condition in &conditions.0 {
        match condition {
            Condition::Users(_) | Condition::Databases(_) | Condition::Text(_) => {
                key = key.or(Some(condition.key()));
            }
            Condition::NoWhere(_) | Condition::Incomplete(_) | Condition::EstimatedRows(_) => {}
            // Its writer thought of connections, or something else decides whether it matches.
            _ => return None,
        }
    }
    key
}

/// A connection to a target that is not understood can meet them, as far as the keys tell.
pub(super) fn may_meet_connections(conditions: &Conditions) -> bool {
    let is_expression = |condition: &Condition| matches!(condition, Condition::When(_));
    on_pass_through(conditions, false).is_none() && !conditions.0.iter().any(is_expression)
}
