//! Warnings: what is right in a policy and yet hardly meant.
//!
//! It owns what is looked for. A warning is never wrong: a rule that is said to be without effect can be
//! removed, and no decision changes. Much that is hardly meant goes unseen; [`subset`] and [`reach`] say
//! what. A gateway never asks: looking at each pair of rules is for the one who writes them.

mod reach;
mod subset;
mod usage;
mod warning;

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use hashbrown::HashMap;
use jiff::Timestamp;
use saphyr_parser::Span;

use super::condition::{Condition, Conditions};
use super::decide::Rule;
use super::error::PolicyError;
use super::files::Files;
use super::lift::{Liftable, Lifter};
use super::problem::Problem;
use super::read::report;
use super::{ERRORS_MAX, Outcome, Protocol, RuleReference, Snapshot, Source, Target};

pub use warning::Warning;

/// What a snapshot does not keep of the documents: their places, and the warnings about those that
/// nobody uses.
pub(super) struct Notes<'a> {
    places: HashMap<(&'static str, String), (Source<'a>, Span)>,
    found: Vec<PolicyError>,
}

impl<'a> Notes<'a> {
    pub(super) fn of(files: &Files<'a>) -> Self {
        let mut places = HashMap::new();
        let mut add = |kind, head: &super::files::Head<'a>| {
            places.insert((kind, head.name.clone()), (head.source, head.place));
        };
        files.rules.iter().for_each(|(head, _)| add("Rule", head));
        files.grants.iter().for_each(|(head, _)| add("Grant", head));
        let bypasses = files.bypasses.iter();
        bypasses.for_each(|(head, _)| add("Bypass", head));
        let mut notes = Self {
            places,
            found: Vec::new(),
        };
        usage::check(files, &mut notes);
        notes
    }

    /// Everything found, by file and line.
    pub(super) fn warnings(mut self, snapshot: &Snapshot, now_unix_ns: u64) -> Vec<PolicyError> {
        for (index, rule) in snapshot.rules.iter().enumerate() {
            self.check_reach(rule, snapshot);
            let before = snapshot.rules.get(..index).unwrap_or_default();
            self.check_against(rule, before, &snapshot.lifters);
        }
        for lifter in &snapshot.lifters {
            self.check_lifter(lifter, snapshot, now_unix_ns);
        }
        self.found
            .sort_by_cached_key(|e| (e.file.is_empty(), e.file.clone(), e.line, e.column));
        self.found
    }

    fn warn(&mut self, kind: &'static str, name: &str, warning: Warning) {
        if let Some((source, span)) = self.places.get(&(kind, name.to_string())) {
            let (source, span) = (*source, *span);
            self.warn_at(source, span, warning);
        }
    }

    fn warn_at(&mut self, source: Source<'a>, span: Span, warning: Warning) {
        if self.found.len() < ERRORS_MAX {
            report(
                &mut self.found,
                source,
                span,
                Problem::Warning(warning),
                None,
            );
        } else if self.found.len() == ERRORS_MAX {
            let more = Problem::Warning(Warning::More);
            self.found.push(PolicyError::of_all(more));
        }
    }

    /// Whether an earlier rule decides wherever this one could.
    fn check_against(&mut self, rule: &Rule, before: &[Rule], lifters: &[Lifter]) {
        if rule.action.is_none() || is_liftable(rule, lifters) {
            return;
        }
        let keys = keys(&rule.conditions);
        let by = before.iter().find(|by| {
            by.action.is_some()
                && keys & needed(&by.conditions) == needed(&by.conditions)
                && decides_instead(by, rule)
                && !is_liftable(by, lifters)
        });
        let Some(by) = by else {
            return;
        };
        let name = rule.reference.name.clone();
        let place = place(&by.reference);
        let (outcome, by_outcome) = (word(rule), word(by));
        let contradict = rule.priority == by.priority
            && outcome != by_outcome
            && subset::is_within(&by.conditions, &rule.conditions);
        let warning = if contradict {
            Warning::Contradiction {
                rule: name,
                outcome,
                other: by.reference.name.clone(),
                other_outcome: by_outcome,
                place,
            }
        } else if rule.obligations.is_some() {
            // Its outcome is without effect, and the rule is not.
            return;
        } else {
            Warning::Shadowed {
                rule: name,
                by: by.reference.name.clone(),
                place,
                why: match (rule.priority == by.priority, outcome == by_outcome) {
                    (false, _) => "its priority is higher",
                    (true, false) => "its outcome is stricter",
                    (true, true) => "it says the same and comes first by name",
                },
            }
        };
        self.warn("Rule", &rule.reference.name, warning);
    }

    fn check_reach(&mut self, rule: &Rule, snapshot: &Snapshot) {
        let name = &rule.reference.name;
        let targets = || targets_of(&rule.conditions, snapshot);
        let permits = rule.allows() && rule.obligations.is_none();
        if let Some(why) = reach::unreachable(&rule.conditions, permits, targets()) {
            let (kind, name) = ("Rule", name.clone());
            self.warn(
                kind,
                &rule.reference.name,
                Warning::Unreachable { kind, name, why },
            );
            return;
        }
        let pass_through = targets().find(|target| target.protocol == Protocol::Tcp);
        let Some(target) = pass_through.map(|target| target.name.clone()) else {
            return;
        };
        let rule_name = name.clone();
        if !permits && let Some(key) = reach::met_by_doubt(&rule.conditions) {
            let rule = rule_name;
            self.warn("Rule", name, Warning::MatchesByDoubt { rule, key, target });
            return;
        }
        let Some(asked) = &rule.obligations else {
            return;
        };
        let is_for_tcp_alone = targets().all(|target| target.protocol == Protocol::Tcp);
        for (what, is_asked) in [
            ("mask", asked.mask_list.is_some()),
            ("limit: {rows}", asked.alone.limits.rows.is_some()),
        ] {
            if is_asked && is_for_tcp_alone {
                let (rule, target) = (rule_name.clone(), target.clone());
                self.warn("Rule", name, Warning::NotKept { rule, what, target });
            }
        }
        if asked.alone.read_only && reach::may_meet_connections(&rule.conditions) {
            let rule = rule_name;
            self.warn("Rule", name, Warning::ReadOnlyConnection { rule, target });
        }
    }

    fn check_lifter(&mut self, lifter: &Lifter, snapshot: &Snapshot, now_unix_ns: u64) {
        let (kind, name) = (lifter.kind(), lifter.reference.name.clone());
        let own_name = name.clone();
        let warning = if lifter.until_unix_ns <= now_unix_ns {
            let until = moment(lifter.until_unix_ns);
            Warning::GrantOver { name, until }
        } else if lifter.from_unix_ns > now_unix_ns {
            let from = moment(lifter.from_unix_ns);
            Warning::GrantNotYet { name, from }
        } else if let Some(why) = reach::unreachable(
            &lifter.conditions,
            true,
            targets_of(&lifter.conditions, snapshot),
        ) {
            Warning::Unreachable { kind, name, why }
        } else if !lifts_something(lifter, snapshot) {
            let why = match lifter.only_holds {
                true => "nothing that it names holds",
                false => "nothing that it names holds, refuses or asks for anything",
            };
            Warning::LiftsNothing { kind, name, why }
        } else {
            return;
        };
        self.warn(kind, &own_name, warning);
    }
}

/// Wherever `rule` matches, `by` does, and of the two `by` decides. Both are as they are sorted.
fn decides_instead(by: &Rule, rule: &Rule) -> bool {
    let is_hold = |rule: &Rule| matches!(&rule.action, Some(action) if matches!(action.outcome, Outcome::Hold(_)));
    if by.priority == rule.priority && is_hold(by) && is_hold(rule) {
        // Both are asked.
        return false;
    }
    if by.allows()
        && !(rule.allows() && subset::name_the_same_things(&rule.conditions, &by.conditions))
    {
        // In doubt what allows does not speak, and what restricts does.
        return false;
    }
    // One that matches in doubt takes the place of nothing stricter.
    let strictness = |rule: &Rule| rule.action.as_ref().map(|one| one.outcome.strictness());
    let certain = |one: &Condition| {
        matches!(
            one,
            Condition::Targets(_)
                | Condition::Statements(_)
                | Condition::ClientNetworks(_)
                | Condition::NoWhere(_)
                | Condition::Incomplete(_)
                | Condition::Times(_)
        )
    };
    if strictness(by) < strictness(rule) && !by.conditions.0.iter().all(certain) {
        return false;
    }
    subset::is_within(&rule.conditions, &by.conditions)
}

/// A grant or a bypass, of whatever time, could take it out.
fn is_liftable(rule: &Rule, lifters: &[Lifter]) -> bool {
    let liftable = |holds| Liftable {
        rule: Some(rule.reference.name.as_str()),
        holds,
    };
    let mut lifters = lifters.iter();
    lifters.any(|lifter| lifter.names(liftable(word(rule) == "hold")))
}

fn lifts_something(lifter: &Lifter, snapshot: &Snapshot) -> bool {
    let lifts_rule = |rule: &Rule| {
        let liftable = Liftable {
            rule: Some(rule.reference.name.as_str()),
            holds: word(rule) == "hold",
        };
        (!rule.allows() || rule.obligations.is_some()) && lifter.names(liftable)
    };
    let lifts_target = |target: &Target| {
        [&target.default, &target.incomplete].iter().any(|action| {
            let holds = matches!(action.outcome, Outcome::Hold(_));
            action.outcome != Outcome::Allow && lifter.names(Liftable { rule: None, holds })
        })
    };
    snapshot.rules.iter().any(lifts_rule)
        || targets_of(&lifter.conditions, snapshot).any(lifts_target)
}

fn word(rule: &Rule) -> &'static str {
    rule.outcome().unwrap_or("nothing")
}

fn place(reference: &RuleReference) -> String {
    alloc::format!("{}:{}", reference.file, reference.line)
}

fn moment(unix_ns: u64) -> String {
    let moment = Timestamp::from_nanosecond(i128::from(unix_ns));
    moment.map_or_else(
        |_| String::from("long ago or far ahead"),
        |moment| moment.to_string(),
    )
}

/// The targets that the conditions can be about.
fn targets_of<'s>(
    conditions: &'s Conditions,
    snapshot: &'s Snapshot,
) -> impl Iterator<Item = &'s Target> {
    let names = conditions.0.iter().find_map(|condition| match condition {
        Condition::Targets(names) => Some(names),
        _ => None,
    });
    let targets = snapshot.targets.iter().map(AsRef::as_ref);
    targets.filter(move |target: &&Target| {
        names.is_none_or(|names| names.iter().any(|name| name.matches(&target.name)))
    })
}

/// The keys of a `match`, a bit each.
fn keys(conditions: &Conditions) -> u32 {
    let keys = conditions.0.iter();
    keys.fold(0, |keys, condition| keys | bits(condition))
}

/// The keys that another `match` needs to have to be within this one.
fn needed(conditions: &Conditions) -> u32 {
    let keys = conditions.0.iter();
    keys.fold(0, |keys, condition| match condition {
        // Reads and writes are tables as well.
        Condition::Tables(_) => keys,
        _ => keys | bits(condition),
    })
}

fn bits(condition: &Condition) -> u32 {
    let number = match condition {
        Condition::Targets(_) => 0,
        Condition::Users(_) => 1,
        Condition::Databases(_) => 2,
        Condition::ClientNetworks(_) => 3,
        Condition::Persons(_) => 4,
        Condition::Groups(_) => 5,
        Condition::Process(_) => 6,
        Condition::Statements(_) => 7,
        Condition::Tables(_) => 8,
        Condition::Reads(_) => 9,
        Condition::Writes(_) => 10,
        Condition::Functions(_) => 11,
        Condition::ColumnsRead(_) => 12,
        Condition::ColumnsWritten(_) => 13,
        Condition::NoWhere(_) => 14,
        Condition::MaskedUses(_) => 20,
        Condition::Incomplete(_) => 15,
        Condition::EstimatedRows(_) => 16,
        Condition::Times(_) => 17,
        Condition::Text(_) => 18,
        Condition::When(_) => 19,
    };
    1 << number
}
