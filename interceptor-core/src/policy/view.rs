//! A snapshot as one session sees it: its target, its client, and the rules that can concern them.
//!
//! It owns what is found out once a session and holds for each of its commands.

use alloc::sync::Arc;

use super::decide;
use super::expression::Expression;
use super::{Decision, Snapshot, Target, Who};
use crate::command::{Facts, Subject};

/// What a decision is made on, beside the session.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What the command does.
    pub facts: &'a Facts,
    /// Its text, as the client sent it.
    pub text: &'a str,
    /// The time of day, in nanoseconds since the Unix epoch.
    pub now_unix_ns: u64,
}

/// A snapshot as one session sees it. Make another when the policy changes, or when more is known
/// of the client.
#[derive(Debug, Clone)]
pub struct View {
    snapshot: Arc<Snapshot>,
    target: Arc<Target>,
    subject: Arc<Subject>,
    who: Who,
}

impl View {
    /// `None` if the snapshot has no target of that name.
    pub fn new(snapshot: Arc<Snapshot>, target: &str, subject: Subject) -> Option<Self> {
        let target = Arc::clone(snapshot.target(target)?);
        Some(Self {
            snapshot,
            target,
            subject: Arc::new(subject),
            who: Who::default(),
        })
    }

    /// The snapshot.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The target, as this snapshot has it.
    pub const fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The client, as known when the view was made.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The person behind the client.
    pub const fn who(&self) -> &Who {
        &self.who
    }

    /// Judges a command. Docs: `docs/policies.md`, "How a decision is made".
    pub fn decide(&self, input: &Input<'_>) -> Decision {
        let observer = self.snapshot.observer.as_deref();
        let begun = observer.map(|observer| (observer, observer.begin()));
        let decision = decide::decide(
            &self.snapshot.rules,
            &self.target,
            &self.subject,
            input.facts,
        );
        if let Some((observer, begun)) = begun {
            observer.end(begun);
        }
        decision
    }

    /// Whether a command that nobody answered in time may go by the expression of
    /// [`super::OnTimeout::Automatic`]. Doubt is a no.
    pub fn automatic(&self, _expression: &Expression, _input: &Input<'_>) -> bool {
        false
    }
}
