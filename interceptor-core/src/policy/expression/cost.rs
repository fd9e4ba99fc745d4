//! How many steps an expression may take, by its shape alone.
//!
//! It owns the estimate. It must not know a command: the [budget](super::evaluate) bounds what a long
//! one can cost after all.

use super::tree::{Condition, List, Moment, Number, Text};
use super::variable::TextVariable;

/// Entries that a list of a command is taken to have.
const ENTRIES_ASSUMED: u64 = 32;
/// Steps that looking through the text of a command is taken to be.
const STATEMENT_STEPS: u64 = 16;

pub(super) fn condition(node: &Condition) -> u64 {
    let below = match node {
        Condition::Literal(_) | Condition::Variable(_) | Condition::Known(_) => 0,
        Condition::Not(inner) => condition(inner),
        Condition::And(both) | Condition::Or(both) | Condition::Same(both) => {
            condition(&both.0).saturating_add(condition(&both.1))
        }
        Condition::Choose(parts) => choice(&parts.0, condition(&parts.1), condition(&parts.2)),
        Condition::Numbers(_, both) => number(&both.0).saturating_add(number(&both.1)),
        Condition::Texts(_, both)
        | Condition::StartsWith(both)
        | Condition::EndsWith(both)
        | Condition::Contains(both) => text(&both.0).saturating_add(text(&both.1)),
        Condition::Moments(_, both) => moment(&both.0).saturating_add(moment(&both.1)),
        Condition::SameLists(both) => list(&both.0).saturating_add(list(&both.1)),
        Condition::TextIn(both) => text(&both.0).saturating_add(list(&both.1)),
        Condition::NumberIn(both) => both
            .1
            .iter()
            .map(number)
            .fold(number(&both.0), u64::saturating_add),
        Condition::Matches(both) => text(&both.0).saturating_mul(2),
        Condition::Entries(_, both) => {
            let each = condition(&both.1).saturating_mul(entries(&both.0));
            list(&both.0).saturating_add(each)
        }
    };
    below.saturating_add(1)
}

fn choice(chooses: &Condition, one: u64, other: u64) -> u64 {
    condition(chooses).saturating_add(one.max(other))
}

fn number(node: &Number) -> u64 {
    let below = match node {
        Number::Literal(_) | Number::Variable(_) => 0,
        Number::Negative(inner) => number(inner),
        Number::Computed(_, both) => number(&both.0).saturating_add(number(&both.1)),
        Number::SizeOfText(inner) => text(inner),
        Number::SizeOfList(inner) => list(inner),
        Number::Clock(_, both) => moment(&both.0).saturating_add(1),
        Number::Choose(parts) => choice(&parts.0, number(&parts.1), number(&parts.2)),
    };
    below.saturating_add(1)
}

fn text(node: &Text) -> u64 {
    let below = match node {
        Text::Variable(TextVariable::Statement) => STATEMENT_STEPS,
        Text::Literal(_) | Text::Variable(_) | Text::Entry(_) => 0,
        Text::Joined(both) => text(&both.0).saturating_add(text(&both.1)),
        Text::Choose(parts) => choice(&parts.0, text(&parts.1), text(&parts.2)),
    };
    below.saturating_add(1)
}

fn moment(node: &Moment) -> u64 {
    match node {
        Moment::Now | Moment::Literal(_) => 1,
        Moment::Choose(parts) => choice(&parts.0, moment(&parts.1), moment(&parts.2)),
    }
}

fn list(node: &List) -> u64 {
    match node {
        List::Variable(_) => ENTRIES_ASSUMED,
        List::Literal(texts) => texts.iter().map(text).fold(1, u64::saturating_add),
        List::Choose(parts) => choice(&parts.0, list(&parts.1), list(&parts.2)),
    }
}

fn entries(node: &List) -> u64 {
    match node {
        List::Variable(_) => ENTRIES_ASSUMED,
        List::Literal(texts) => texts.len() as u64,
        List::Choose(parts) => entries(&parts.1).max(entries(&parts.2)),
    }
}
