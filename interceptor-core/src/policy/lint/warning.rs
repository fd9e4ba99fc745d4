//! What is right in a policy and yet hardly meant.
//!
//! It owns the words.

use alloc::string::String;

use super::super::ERRORS_MAX;

/// A policy loads with it, and a person should look at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Another rule decides wherever this one could.
    #[error(
        "the rule `{rule}` can never decide: whatever it matches, `{by}` at {place} matches as well, and {why}"
    )]
    Shadowed {
        /// The rule that does not decide.
        rule: String,
        /// The rule that does.
        by: String,
        /// That one's `file:line`.
        place: String,
        /// Why that one decides.
        why: &'static str,
    },
    /// Two rules match the same and say different things.
    #[error(
        "the rules `{rule}` and `{other}` at {place} match the same and contradict each other: {outcome} here, {other_outcome} there, which decides; remove one, or give one a higher `priority`"
    )]
    Contradiction {
        /// The rule that does not decide.
        rule: String,
        /// What it says.
        outcome: &'static str,
        /// The rule that does.
        other: String,
        /// What that says.
        other_outcome: &'static str,
        /// That one's `file:line`.
        place: String,
    },
    /// No command meets a `match`.
    #[error("nothing can match the {kind} `{name}`: {why}")]
    Unreachable {
        /// The document's kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// On a target that is not understood, a rule takes everything for a match.
    #[error(
        "the rule `{rule}` matches every connection to the target `{target}`, for its `{key}` is not seen with `protocol: tcp`; name the rule's `targets`"
    )]
    MatchesByDoubt {
        /// The rule.
        rule: String,
        /// The key in doubt.
        key: &'static str,
        /// The target.
        target: String,
    },
    /// What cannot be kept on a target that is not understood.
    #[error(
        "the rule `{rule}` asks for `{what}`, which cannot be kept on the target `{target}`: with `protocol: tcp` nothing of what it carries is understood"
    )]
    NotKept {
        /// The rule.
        rule: String,
        /// What it asks for.
        what: &'static str,
        /// The target.
        target: String,
    },
    /// A connection is more than reading.
    #[error(
        "the rule `{rule}` asks for `readOnly`, so every connection to the target `{target}` that it matches is refused: with `protocol: tcp` nobody can tell whether it writes"
    )]
    ReadOnlyConnection {
        /// The rule.
        rule: String,
        /// The target.
        target: String,
    },
    /// A grant's time has passed.
    #[error("the grant `{name}` is over since {until}; remove it")]
    GrantOver {
        /// The grant.
        name: String,
        /// Its end.
        until: String,
    },
    /// A grant's time has not come.
    #[error("the grant `{name}` is not in force before {from}")]
    GrantNotYet {
        /// The grant.
        name: String,
        /// Its beginning.
        from: String,
    },
    /// A grant or bypass of nothing.
    #[error("the {kind} `{name}` lifts nothing: {why}")]
    LiftsNothing {
        /// The document's kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// A mask that is never in force.
    #[error(
        "the mask `{name}` is never in force: it has `when: named`, and no rule's `mask` names it"
    )]
    UnnamedMask {
        /// The mask.
        name: String,
    },
    /// A detector that no mask uses.
    #[error("the detector `{name}` is used by no mask")]
    UnusedDetector {
        /// The detector.
        name: String,
    },
    /// A group that is never asked or told.
    #[error(
        "the approver group `{name}` is used by nobody: no hold, `notify` or other group names it"
    )]
    UnusedGroup {
        /// The group.
        name: String,
    },
    /// A person who is never seen.
    #[error(
        "the identity `{name}` has no effect: without `is` and `uids` no session is theirs, and no approver group names them"
    )]
    UselessIdentity {
        /// The identity.
        name: String,
    },
    /// The rest is not listed.
    #[error("there are more than {ERRORS_MAX} warnings; the rest is not shown")]
    More,
}
