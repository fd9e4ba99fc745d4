//! A snapshot as one session sees it: its target, its client, and the person behind it.
//!
//! It owns what is found out once a session and holds for each of its commands.

use alloc::sync::Arc;

use super::condition::Condition;
use super::explain::{self, Explanation};
use super::expression::{Expression, Scope, Truth};
use super::index::{Index, Set};
use super::{Decision, RuleReference, Snapshot, Target, Who, decide, identity_document};
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
    /// The rules that can concern it.
    rules: Arc<Set>,
}

impl View {
    /// `None` if the snapshot has no target of that name.
    pub fn new(snapshot: Arc<Snapshot>, target: &str, subject: Subject) -> Option<Self> {
        let target = Arc::clone(snapshot.target(target)?);
        let mut view = Self {
            snapshot,
            target,
            subject: Arc::new(subject),
            who: Who::default(),
            rules: Arc::default(),
        };
        let facts = Facts::default();
        let input = Input::nothing(&facts);
        view.who = identity_document::who(&view.snapshot.identities, &view.scope(&input));
        view.rules = Arc::new(Index::of_session(&view.snapshot.rules, &view.scope(&input)));
        Some(view)
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

    /// The person is known by the client's process, as the kernel saw it: nothing that the client says
    /// of itself is needed.
    pub fn is_person_certain_by_process(&self) -> bool {
        let facts = Facts::default();
        let input = Input::nothing(&facts);
        let identities = &self.snapshot.identities;
        identity_document::is_certain_by_process(identities, &self.scope(&input))
    }

    /// Judges a command. Docs: `docs/policies.md`, "How a decision is made".
    pub fn decide(&self, input: &Input<'_>) -> Decision {
        let observer = self.snapshot.observer.as_deref();
        let begun = observer.map(|observer| (observer, observer.begin()));
        let scope = self.scope(input);
        let Snapshot {
            rules,
            lifters,
            index,
            ..
        } = &*self.snapshot;
        let candidates = index.candidates(&self.rules, input.facts);
        let decision = decide::decide(candidates.of(rules), lifters, &scope);
        if let Some((observer, begun)) = begun {
            observer.end(begun);
        }
        decision
    }

    /// The same without the index.
    #[cfg(test)]
    pub(super) fn decide_by_all(&self, input: &Input<'_>) -> Decision {
        let scope = self.scope(input);
        decide::decide(self.snapshot.rules.iter(), &self.snapshot.lifters, &scope)
    }

    /// Whether a command that nobody answered in time may go by the expression of
    /// [`super::OnTimeout::Automatic`]. Doubt is a no; so is a command that cannot be seen through,
    /// unless the expression looks at that.
    pub fn automatic(&self, expression: &Expression, input: &Input<'_>) -> bool {
        let looks = expression.variables().contains(&"statement.incomplete");
        if input.facts.incomplete.is_some() && !looks {
            return false;
        }
        expression.evaluate(&self.scope(input)) == Truth::Yes
    }

    /// The decision, with what every document has to do with it.
    pub fn explain(&self, input: &Input<'_>) -> Explanation {
        let scope = self.scope(input);
        let decision = self.decide(input);
        let identities = identity_document::fitting(&self.snapshot.identities, &scope);
        Explanation {
            who: self.who.clone(),
            identities: identities
                .map(|identity| Arc::clone(&identity.person))
                .collect(),
            rules: explain::rules(
                &self.snapshot.rules,
                &self.snapshot.lifters,
                &scope,
                &decision,
            ),
            decision,
        }
    }

    /// What it says of a command it will say of it at any time.
    pub fn is_timeless(&self) -> bool {
        self.snapshot.is_timeless
    }

    /// Some document that can concern this target asks how many rows a table has.
    pub fn needs_estimates(&self) -> bool {
        self.target.needs_estimates
    }

    /// Some mask on this target names columns, be it in force always or only where a rule names it.
    pub fn may_mask_columns(&self) -> bool {
        self.target.masks_possible().has_columns()
    }

    /// The rule by which nothing may be written in this session, whatever the command is: one that asks
    /// for nothing but who the client is, and that no grant names.
    pub fn read_only_session(&self) -> Option<Arc<RuleReference>> {
        let facts = Facts::default();
        let input = Input::nothing(&facts);
        let scope = self.scope(&input);
        let rule = self.snapshot.rules.iter().find(|rule| {
            let read_only = |asked: &decide::RuleObligations| asked.alone.read_only;
            let of_session = |condition: &Condition| !matches!(condition, Condition::Times(_));
            rule.obligations.as_ref().is_some_and(read_only)
                && rule.conditions.are_of_the_session()
                && rule.conditions.0.iter().all(of_session)
                && rule.conditions.match_all(&scope, super::Doubt::Matches)
                && !self.snapshot.is_granted(&rule.reference.name)
        });
        rule.map(|rule| Arc::clone(&rule.reference))
    }

    fn scope<'a>(&'a self, input: &'a Input<'_>) -> Scope<'a> {
        Scope {
            target: &self.target,
            subject: &self.subject,
            who: &self.who,
            input,
        }
    }
}

impl<'a> Input<'a> {
    /// No command in particular.
    const fn nothing(facts: &'a Facts) -> Self {
        Self {
            facts,
            text: "",
            now_unix_ns: 0,
        }
    }
}
