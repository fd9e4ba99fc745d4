//! Grants and bypasses, compiled.
//!
//! It owns when one of them takes a rule out. It must not know what is decided then.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::condition::Conditions;
use super::expression::Scope;
use super::{NamePattern, RuleReference};

/// What a lifter would be asked to take out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Liftable<'a> {
    /// The rule; `None` for what the target does by itself.
    pub(super) rule: Option<&'a str>,
    /// It holds, so a bypass can lift it.
    pub(super) holds: bool,
}

/// A Grant or a Bypass.
#[derive(Debug)]
pub(super) struct Lifter {
    pub(super) reference: Arc<RuleReference>,
    /// It lifts holds alone: a Bypass.
    pub(super) only_holds: bool,
    pub(super) conditions: Conditions,
    pub(super) from_unix_ns: u64,
    pub(super) until_unix_ns: u64,
    /// Patterns of rule names; `None` for all.
    pub(super) rules: Option<Vec<NamePattern>>,
    /// What the target does by itself is lifted, too.
    pub(super) default: bool,
    /// Who should know when it lifts something.
    pub(super) notify: Vec<Arc<str>>,
    /// Why a grant was given.
    pub(super) reason: Option<String>,
}

impl Lifter {
    pub(super) const fn kind(&self) -> &'static str {
        match self.only_holds {
            true => "Bypass",
            false => "Grant",
        }
    }

    /// Whether it is about the rule at all, whoever asks.
    pub(super) fn names(&self, liftable: Liftable<'_>) -> bool {
        if self.only_holds && !liftable.holds {
            return false;
        }
        match (liftable.rule, &self.rules) {
            (None, _) => self.default,
            (Some(_), None) => true,
            (Some(rule), Some(patterns)) => patterns.iter().any(|pattern| pattern.matches(rule)),
        }
    }

    pub(super) fn is_in_time(&self, now_unix_ns: u64) -> bool {
        (self.from_unix_ns..self.until_unix_ns).contains(&now_unix_ns)
    }

    /// Whether it is in force for a command. Doubt is a no, as in everything that permits.
    pub(super) fn applies(&self, scope: &Scope<'_>) -> bool {
        self.is_in_time(scope.input.now_unix_ns) && self.conditions.permit(scope)
    }
}

/// The first that takes it out.
pub(super) fn find<'a>(
    lifters: &'a [Lifter],
    liftable: Liftable<'_>,
    scope: &Scope<'_>,
) -> Option<&'a Lifter> {
    lifters
        .iter()
        .find(|lifter| lifter.names(liftable) && lifter.applies(scope))
}
