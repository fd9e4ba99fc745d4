//! One decision a command: which of the rules that match speaks, and what they all ask for.
//!
//! It owns the order of rules. How a rule meets a command is [`super::condition`]'s.
//!
//! Three ideas carry it. *Priority, then the strictest*: rules are sorted so that the first that matches
//! decides. *Doubt restricts*: what is not known of a command counts as a match for a rule that
//! restricts, and as none for one that allows. *What permits must cover*: [`super::cover`].

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::cmp::{Ordering, Reverse};

use super::condition::{Condition, Conditions};
use super::expression::Scope;
use super::lift::{self, Liftable, Lifter};
use super::name::Doubt;
use super::{Action, DEFAULT_RULE, Decision, HoldPlan, Lift, Obligations, Outcome, RuleReference};
use crate::command::Facts;

/// A rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) reference: Arc<RuleReference>,
    pub(super) priority: i16,
    pub(super) conditions: Conditions,
    pub(super) action: Option<Action>,
    pub(super) obligations: Option<RuleObligations>,
}

impl Rule {
    /// Whether it matches does not depend on the time. An expression may look at it.
    pub(super) fn is_timeless(&self) -> bool {
        let looks = |it: &Condition| matches!(it, Condition::Times(_) | Condition::When(_));
        !self.conditions.0.iter().any(looks)
    }
}

/// What a rule asks for beside its outcome.
#[derive(Debug)]
pub(super) struct RuleObligations {
    /// All of it but the masks: shared where no other rule asks for anything.
    pub(super) alone: Arc<Obligations>,
    /// Which of the policy's lists of masks ([`super::mask_lists`]).
    pub(super) mask_list: Option<u32>,
}

/// How a rule stands to a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standing<'a> {
    /// It does not match.
    Out,
    /// It matches, and does not count.
    Lifted(&'a Lifter),
    /// It counts.
    Counts,
}

/// Priority and strictness: the order in which rules speak.
type Rank = (Reverse<i16>, Reverse<Option<u8>>);

impl Rule {
    fn rank(&self) -> Rank {
        (Reverse(self.priority), Reverse(self.strictness()))
    }

    fn strictness(&self) -> Option<u8> {
        self.action
            .as_ref()
            .map(|action| action.outcome.strictness())
    }

    /// The word of its outcome.
    pub(super) fn outcome(&self) -> Option<&'static str> {
        self.action.as_ref().map(|action| action.outcome.word())
    }

    pub(super) fn allows(&self) -> bool {
        self.strictness() == Some(0)
    }

    /// The order in which [`decide`] reads rules.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.reference.name.cmp(&other.reference.name))
    }

    /// How its outcome stands. A grant never lifts what allows.
    pub(super) fn standing<'a>(&self, lifters: &'a [Lifter], scope: &Scope<'_>) -> Standing<'a> {
        if self.allows() {
            return match self.conditions.permit(scope) {
                true => Standing::Counts,
                false => Standing::Out,
            };
        }
        if !self.conditions.match_all(scope, Doubt::Matches) {
            return Standing::Out;
        }
        let holds = self.strictness() == Some(1);
        self.lifted(lifters, holds, scope)
    }

    /// How what it asks for beside its outcome stands: it restricts, whatever the outcome is. Only a
    /// grant lifts that.
    pub(super) fn obliges<'a>(&self, lifters: &'a [Lifter], scope: &Scope<'_>) -> Standing<'a> {
        match self.conditions.match_all(scope, Doubt::Matches) {
            true => self.lifted(lifters, false, scope),
            false => Standing::Out,
        }
    }

    fn lifted<'a>(&self, lifters: &'a [Lifter], holds: bool, scope: &Scope<'_>) -> Standing<'a> {
        let rule = Some(self.reference.name.as_str());
        let lifter = lift::find(lifters, Liftable { rule, holds }, scope);
        lifter.map_or(Standing::Counts, Standing::Lifted)
    }
}

/// Brings rules into the order in which [`decide`] reads them.
pub(super) fn sort(rules: &mut [Rule]) {
    rules.sort_by(Rule::order);
}

/// Judges a command by rules that are sorted. Rules that cannot match may be left out.
pub(super) fn decide<'a>(
    rules: impl Iterator<Item = &'a Rule> + Clone,
    lifters: &'a [Lifter],
    scope: &Scope<'a>,
) -> Decision {
    let mut spoken = outcome(rules.clone(), lifters, scope);
    if spoken.certain.is_none() {
        by_default(lifters, scope, &mut spoken);
    }
    let obligations = obligations(rules, lifters, scope, &spoken);
    let mut decision = Decision {
        outcome: match (spoken.plan, spoken.outcome) {
            (Some(plan), _) => Outcome::Hold(Arc::new(plan)),
            (None, Some(outcome)) => outcome.clone(),
            // By now somebody has spoken; if not, nothing goes.
            (None, None) => Outcome::Deny,
        },
        rule: spoken.rule.map(|rule| Arc::clone(&rule.reference)),
        reason: spoken.reason,
        lift: obligations
            .lift
            .map(|(lifter, rule)| Box::new(lift_of(lifter, rule))),
        obligations: obligations.shared,
    };
    if let (Some(rule), false) = (obligations.read_only, decision.outcome.refuses())
        && !only_reads(scope.input.facts)
    {
        decision.outcome = Outcome::Deny;
        decision.reason = format!("the rule {} lets nothing be written", rule.name).into();
        decision.rule = Some(rule);
    }
    decision
}

/// What rules, or else the target, say of a command.
struct Spoken<'a> {
    rule: Option<&'a Rule>,
    outcome: Option<&'a Outcome>,
    /// What several holds ask for together.
    plan: Option<HoldPlan>,
    reason: Arc<str>,
    /// The strictest that was lifted, of those that would have spoken.
    lift: Option<(&'a Lifter, &'a str)>,
    /// The rank of the first rule that matches for certain.
    certain: Option<Rank>,
}

impl<'a> Spoken<'a> {
    /// One more rule counts.
    fn hear(&mut self, rule: &'a Rule, action: &'a Action, scope: &Scope<'_>) {
        let said = self.outcome.map(Outcome::strictness);
        if said.is_none_or(|said| said < action.outcome.strictness()) {
            self.rule = Some(rule);
            self.outcome = Some(&action.outcome);
            self.reason = Arc::clone(&action.reason);
            self.plan = None;
        } else if let (Outcome::Hold(other), Some(Outcome::Hold(plan))) =
            (&action.outcome, self.outcome)
            && self.rule.is_some_and(|first| first.rank() == rule.rank())
        {
            let so_far = self.plan.as_ref().unwrap_or(plan);
            self.plan = Some(so_far.and(other));
        }
        if self.certain.is_none() && rule.conditions.match_all(scope, Doubt::Differs) {
            self.certain = Some(rule.rank());
        }
    }
}

fn outcome<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    lifters: &'a [Lifter],
    scope: &Scope<'a>,
) -> Spoken<'a> {
    let mut spoken = Spoken {
        rule: None,
        outcome: None,
        plan: None,
        reason: Arc::default(),
        lift: None,
        certain: None,
    };
    for rule in rules {
        let Some(action) = &rule.action else {
            continue;
        };
        // After the first that matches for certain, only other holds of its rank have a say. One that
        // matches in doubt may not take the place of what is stricter.
        if spoken.certain.is_some_and(|rank| rank != rule.rank()) {
            break;
        }
        match rule.standing(lifters, scope) {
            Standing::Out => {}
            Standing::Lifted(lifter) => {
                spoken.lift.get_or_insert((lifter, &rule.reference.name));
            }
            Standing::Counts => spoken.hear(rule, action, scope),
        }
    }
    spoken
}

/// What a grant or a bypass of a target's own action leaves.
static ALLOWED: Outcome = Outcome::Allow;

/// No rule speaks for certain: the target's own action, if nothing lifts it, and if it is stricter than
/// what a rule says in doubt.
fn by_default<'a>(lifters: &'a [Lifter], scope: &Scope<'a>, spoken: &mut Spoken<'a>) {
    let incomplete = scope.input.facts.incomplete;
    let action = match incomplete {
        None => &scope.target.default,
        Some(_) => &scope.target.incomplete,
    };
    let in_doubt = spoken.outcome.map(Outcome::strictness);
    if in_doubt.is_some_and(|said| said >= action.outcome.strictness()) {
        return;
    }
    let liftable = Liftable {
        rule: None,
        holds: matches!(action.outcome, Outcome::Hold(_)),
    };
    let lifter = match action.outcome {
        Outcome::Allow => None,
        _ => lift::find(lifters, liftable, scope),
    };
    if let Some(lifter) = lifter {
        spoken.lift.get_or_insert((lifter, DEFAULT_RULE));
        // What holds in doubt stays.
        if in_doubt.is_some() {
            return;
        }
    }
    (spoken.rule, spoken.plan) = (None, None);
    (spoken.outcome, spoken.reason) = match (lifter, incomplete) {
        (Some(lifter), _) => (Some(&ALLOWED), lifted_reason(lifter)),
        (None, None) => (Some(&action.outcome), Arc::clone(&action.reason)),
        (None, Some(why)) => {
            let reason = format!("{} ({why})", action.reason).into();
            (Some(&action.outcome), reason)
        }
    };
}

fn lifted_reason(lifter: &Lifter) -> Arc<str> {
    let name = &lifter.reference.name;
    match &lifter.reason {
        Some(reason) => format!("allowed by the grant {name}: {reason}").into(),
        None => format!("the bypass {name} lifts the hold").into(),
    }
}

fn lift_of(lifter: &Lifter, rule: &str) -> Lift {
    Lift {
        kind: lifter.kind(),
        by: Arc::clone(&lifter.reference),
        rule: rule.into(),
    }
}

/// What a command is bound to.
struct Bound<'a> {
    shared: Option<Arc<Obligations>>,
    /// The first rule that lets nothing be written.
    read_only: Option<Arc<RuleReference>>,
    /// The first that does not count, where no outcome was lifted.
    lift: Option<(&'a Lifter, &'a str)>,
}

/// What all rules that match ask for, whatever their priority, and who should know of a grant.
fn obligations<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    lifters: &'a [Lifter],
    scope: &Scope<'_>,
    spoken: &Spoken<'a>,
) -> Bound<'a> {
    let mut bound = Bound {
        shared: None,
        read_only: None,
        lift: spoken.lift,
    };
    let mut mask_lists = 0;
    for rule in rules {
        let Some(asked) = &rule.obligations else {
            continue;
        };
        match rule.obliges(lifters, scope) {
            Standing::Counts => {}
            Standing::Out => continue,
            Standing::Lifted(lifter) => {
                bound.lift.get_or_insert((lifter, &rule.reference.name));
                continue;
            }
        }
        if asked.alone.read_only && bound.read_only.is_none() {
            bound.read_only = Some(Arc::clone(&rule.reference));
        }
        if let Some(list) = asked.mask_list {
            mask_lists |= scope.target.masks_by_rule.bit(list);
        }
        match &mut bound.shared {
            None => bound.shared = Some(Arc::clone(&asked.alone)),
            Some(others) => Arc::make_mut(others).join(&asked.alone),
        }
    }
    if mask_lists != 0 {
        let all = bound.shared.get_or_insert_default();
        Arc::make_mut(all).masks =
            Some(Arc::clone(scope.target.masks_by_rule.combined(mask_lists)));
    }
    if let Some((lifter, _)) = bound.lift
        && !lifter.notify.is_empty()
    {
        let all = Arc::make_mut(bound.shared.get_or_insert_default());
        let notify = (Arc::clone(&lifter.reference), lifter.notify.clone());
        all.notify.push(notify);
    }
    bound
}

/// Kinds of statements that by themselves write nothing. `SELECT INTO` is `CREATE TABLE AS`.
#[rustfmt::skip]
const READING_KINDS: &[&str] = &[
    "BEGIN", "CLOSE", "COMMIT", "COPY TO", "DEALLOCATE", "DECLARE CURSOR", "DISCARD", "EMPTY",
    "EXECUTE", "EXPLAIN", "EXPLAIN ANALYZE", "FETCH", "LISTEN", "MOVE", "PREPARE", "RELEASE", "RESET",
    "ROLLBACK", "SAVEPOINT", "SELECT", "SET", "SET ROLE", "SHOW", "UNLISTEN",
];

/// For certain, by what its text shows. What functions do is for the server to refuse.
fn only_reads(facts: &Facts) -> bool {
    facts.incomplete.is_none()
        && facts.writes.is_empty()
        && facts.kinds.iter().all(|kind| READING_KINDS.contains(kind))
}
