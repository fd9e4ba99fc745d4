//! A command as a session finds it that has seen nothing before: for tools that ask the policy what it
//! would say.
//!
//! It owns no rule of its own: what a text does, and which masks are in force for it, is found out as
//! sessions do. What only a server's catalogue or earlier commands could tell is not known here.

use super::judge::{
    BINARY_COPY, COPIES_MASKED, GONE, UNSEEN, copies_by_name, copies_unmaskable, obliged_masks,
};
use super::replication::{UNMASKABLE, UNNAMED};
use super::resolve::UNKNOWN_FUNCTION;
use crate::command::Facts;
use crate::policy::{Input, View};
use crate::sql::{self, AnalysisError};

/// Reasons of refusals that no policy asks for.
pub const OWN_REFUSALS: &[&str] = &[BINARY_COPY, GONE, UNMASKABLE, UNNAMED];

/// What a text does, when a session sends it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// What the policy is asked about.
    pub facts: Facts,
    /// The gateway refuses it although the policy lets it go, for this reason.
    pub refusal: Option<&'static str>,
}

/// Finds out what a text does.
///
/// # Errors
/// If it cannot be read: the gateway refuses it before it asks the policy.
pub fn alone(
    view: &View,
    text: &str,
    now_unix_ns: u64,
    estimated_rows: Option<u64>,
) -> Result<Alone, AnalysisError> {
    let analysis = sql::analyze(text)?;
    let mut facts = analysis.facts.clone();
    facts.estimated_rows = estimated_rows;
    if !analysis.executes.is_empty() {
        facts.incomplete.get_or_insert(UNSEEN);
    }
    if facts.unknown_calls && facts.kinds != ["EXPLAIN"] {
        facts.incomplete.get_or_insert(UNKNOWN_FUNCTION);
    }
    let usual = &view.target().masks;
    let copies = |masks| copies_by_name(masks, &analysis.facts, &analysis.lineage) == Some(true);
    let mut copied = copies(usual);
    if copied {
        facts.incomplete.get_or_insert(COPIES_MASKED);
    }
    let decide = |facts: &Facts| {
        view.decide(&Input {
            facts,
            text,
            now_unix_ns,
        })
    };
    let mut decision = decide(&facts);
    // Which masks are in force is part of the decision, and what they hide is one of its facts.
    let obliged = obliged_masks(&decision);
    if let Some(masks) = &obliged
        && !copied
    {
        copied = copies(masks);
        if copied {
            facts.incomplete.get_or_insert(COPIES_MASKED);
            decision = decide(&facts);
        }
    }
    let masks = obliged_masks(&decision).or(obliged);
    let unmaskable = copies_unmaskable(masks.as_ref().unwrap_or(usual), &analysis);
    let refusal = (unmaskable && !decision.outcome.refuses()).then_some(BINARY_COPY);
    Ok(Alone { facts, refusal })
}
