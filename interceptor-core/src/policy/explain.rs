//! Why a command is decided as it is.
//!
//! It owns the words. It asks the same functions as [`super::decide`] does, and takes the decision from
//! there: it cannot come to another one.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{Display, Write as _};

use super::condition::{Condition, Conditions, Met, ProcessConditions};
use super::decide::{Rule, Standing};
use super::expression::Scope;
use super::lift::Lifter;
use super::{Decision, Outcome, Protocol, RuleReference, Who, cover};
use crate::command::Process;

/// The most names of one list that are shown.
const SHOWN_MAX: usize = 12;

/// A decision, and what every document of the policy has to do with it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What [`super::View::decide`] says.
    pub decision: Decision,
    /// The person of the session.
    pub who: Who,
    /// Every identity that fits the session; the person is known if there is one.
    pub identities: Vec<Arc<str>>,
    /// Rules in the order in which they are asked: by priority, the strictest first. Then grants and
    /// bypasses.
    pub rules: Vec<RuleExplanation>,
}

/// One document.
#[derive(Debug, Clone)]
pub struct RuleExplanation {
    /// Which one.
    pub reference: Arc<RuleReference>,
    /// `Rule`, `Grant` or `Bypass`.
    pub kind: &'static str,
    /// A rule's outcome in policy files' words, if it has one.
    pub outcome: Option<&'static str>,
    /// A rule's priority.
    pub priority: i16,
    /// All its conditions together.
    pub met: Met,
    /// It has a part in the decision.
    pub counts: bool,
    /// Those that the document has.
    pub conditions: Vec<ConditionExplanation>,
    /// Why it has a part, or none. One line.
    pub note: String,
}

/// One key of a `match`.
#[derive(Debug, Clone)]
pub struct ConditionExplanation {
    /// The key.
    pub key: &'static str,
    /// Whether the command meets it.
    pub met: Met,
    /// What the document asks for, and what is there.
    pub detail: String,
}

pub(super) fn rules<'a>(
    rules: &'a [Rule],
    lifters: &'a [Lifter],
    scope: &Scope<'_>,
    decision: &Decision,
) -> Vec<RuleExplanation> {
    let mut used: Vec<&Lifter> = Vec::new();
    let decides = |rule: &&Rule| {
        let decider = decision.rule.as_ref();
        decider.is_some_and(|decider| Arc::ptr_eq(decider, &rule.reference))
    };
    let deciding = rules.iter().find(decides);
    let mut all = Vec::new();
    for rule in rules {
        let standing = rule.standing(lifters, scope);
        let obliges = match &rule.obligations {
            Some(_) => rule.obliges(lifters, scope),
            None => Standing::Out,
        };
        for standing in [standing, obliges] {
            if let Standing::Lifted(lifter) = standing {
                used.push(lifter);
            }
        }
        let (counts, note) = explain_rule(rule, standing, obliges, scope, decision, deciding);
        all.push(RuleExplanation {
            reference: Arc::clone(&rule.reference),
            kind: "Rule",
            outcome: rule.outcome(),
            priority: rule.priority,
            met: rule.conditions.met(scope),
            counts,
            conditions: conditions(&rule.conditions, scope),
            note,
        });
    }
    for lifter in lifters {
        let lifts_decision = decision
            .lift
            .as_ref()
            .is_some_and(|lift| Arc::ptr_eq(&lift.by, &lifter.reference));
        let counts = lifts_decision || used.iter().any(|used| core::ptr::eq(*used, lifter));
        let note = match (counts, lifter.is_in_time(scope.input.now_unix_ns)) {
            (true, _) => String::from("it lifts what is named here as lifted"),
            (false, false) => String::from("it is not in time"),
            (false, true) => permission_note(&lifter.conditions, scope)
                .unwrap_or_else(|| String::from("it lifts nothing that this command would meet")),
        };
        all.push(RuleExplanation {
            reference: Arc::clone(&lifter.reference),
            kind: lifter.kind(),
            outcome: None,
            priority: 0,
            met: lifter.conditions.met(scope),
            counts,
            conditions: conditions(&lifter.conditions, scope),
            note,
        });
    }
    all
}

/// Whether a rule has a part in the decision, and why or why not.
fn explain_rule(
    rule: &Rule,
    standing: Standing<'_>,
    obliges: Standing<'_>,
    scope: &Scope<'_>,
    decision: &Decision,
    deciding: Option<&Rule>,
) -> (bool, String) {
    let is = |other: &Arc<RuleReference>| Arc::ptr_eq(other, &rule.reference);
    let is_bound = decision
        .obligations
        .as_ref()
        .is_some_and(|all| all.rules.iter().any(is));
    if decision.rule.as_ref().is_some_and(is) {
        return (true, String::from("it decides"));
    }
    // Without an outcome, only what it asks for beside one can count.
    let standing = match rule.action {
        Some(_) => standing,
        None => obliges,
    };
    let note = match (&rule.action, standing) {
        (_, Standing::Lifted(lifter)) => {
            let (kind, name) = (lifter.kind(), &lifter.reference.name);
            format!("the {kind} {name} lifts it")
        }
        (_, Standing::Out) if rule.allows() => {
            permission_note(&rule.conditions, scope).unwrap_or_default()
        }
        (_, Standing::Out) => String::from("it does not match"),
        (Some(action), Standing::Counts) => {
            let both = (&action.outcome, &decision.outcome);
            let hold = matches!(both, (Outcome::Hold(_), Outcome::Hold(_)));
            if hold && deciding.is_some_and(|first| first.priority == rule.priority) {
                let note = "what it asks for joins the hold that decides";
                return (true, String::from(note));
            }
            match &decision.rule {
                Some(first) => format!("the rule {} comes before it", first.name),
                None => String::from(
                    "it matches in doubt, and what the target does by itself is stricter",
                ),
            }
        }
        (None, Standing::Counts) => String::new(),
    };
    if is_bound {
        let bound = "what it asks for beside its outcome is in force";
        let note = match note.is_empty() || rule.action.is_none() {
            true => bound.into(),
            false => format!("{note}; {bound}"),
        };
        return (true, note);
    }
    (false, note)
}

/// Why a permission does not apply.
fn permission_note(conditions: &Conditions, scope: &Scope<'_>) -> Option<String> {
    match conditions.met(scope) {
        Met::No => Some("it does not match".into()),
        Met::Doubt => Some("doubt is no match for what permits".into()),
        Met::Yes => cover::check(conditions, scope.input.facts)
            .err()
            .map(|uncovered| format!("it does not vouch for {uncovered}")),
    }
}

fn conditions(conditions: &Conditions, scope: &Scope<'_>) -> Vec<ConditionExplanation> {
    let explain = |condition: &Condition| ConditionExplanation {
        key: condition.key(),
        met: condition.met(scope),
        detail: detail(condition, scope),
    };
    conditions.0.iter().map(explain).collect()
}

/// What is asked for, and what is there.
fn detail(condition: &Condition, scope: &Scope<'_>) -> String {
    let facts = scope.input.facts;
    let unseen = scope.target.protocol == Protocol::Tcp;
    let login = |name: &str| match unseen {
        true => String::from("not known"),
        false => name.into(),
    };
    let (asked, found) = match condition {
        Condition::Targets(list) => (listed(list), scope.target.name.clone()),
        Condition::Users(list) => (listed(list), login(&scope.subject.user)),
        Condition::Databases(list) => (listed(list), login(&scope.subject.database)),
        Condition::ClientNetworks(list) => (
            listed(list),
            format!("{}", scope.subject.client.ip().to_canonical()),
        ),
        Condition::Persons(list) => (listed(list), format!("{}", scope.who)),
        Condition::Groups(list) => match scope.who.person {
            Some(_) => (listed(list), listed(&scope.who.groups)),
            None => (listed(list), "not known".into()),
        },
        Condition::Process(process) => process_detail(process, scope.subject.process.as_ref()),
        Condition::Statements(list) => (listed(list), listed(&facts.kinds)),
        Condition::Tables(list) => (
            listed(list),
            listed(facts.reads.iter().chain(&facts.writes)),
        ),
        Condition::Reads(list) => (listed(list), listed(&facts.reads)),
        Condition::Writes(list) => (listed(list), listed(&facts.writes)),
        Condition::Functions(list) => (listed(list), listed(&facts.functions)),
        Condition::ColumnsRead(list) => (listed(list), listed(&facts.columns_read)),
        Condition::ColumnsWritten(list) => (listed(list), listed(&facts.columns_written)),
        Condition::NoWhere(expected) => (format!("{expected}"), format!("{}", facts.unfiltered)),
        Condition::MaskedUses(list) => (listed(list), listed(&facts.masked_uses)),
        Condition::Incomplete(expected) => (
            format!("{expected}"),
            facts
                .incomplete
                .map_or("false".into(), |why| format!("true ({why})")),
        ),
        Condition::EstimatedRows(over) => {
            let rows = facts.rows_of_largest_table();
            let rows = rows.map_or("not known".into(), |rows| format!("{rows}"));
            (format!("over {over}"), rows)
        }
        Condition::Times(windows) => (listed(windows), moment(scope.input.now_unix_ns)),
        Condition::Text(regex) if unseen => (format!("{regex}"), "not known".into()),
        Condition::Text(regex) => match regex.find(scope.input.text) {
            Some(found) => (
                format!("{regex}"),
                format!("found at byte {}", found.start()),
            ),
            None => (format!("{regex}"), "not found".into()),
        },
        Condition::When(expression) => (
            expression.text().into(),
            format!("{:?}", expression.evaluate(scope)),
        ),
    };
    format!("asks for {asked}; is {found}")
}

fn process_detail(asked: &ProcessConditions, process: Option<&Process>) -> (String, String) {
    let (mut wanted, mut found) = (String::new(), String::new());
    let mut add = |key: &str, list: Option<String>, value: Option<String>| {
        if let Some(list) = list {
            let gap = if wanted.is_empty() { "" } else { ", " };
            let _ = write!(wanted, "{gap}{key} {list}");
            let value = value.unwrap_or_else(|| "not known".into());
            let _ = write!(found, "{gap}{value}");
        }
    };
    let names = |list: &Option<Vec<super::NamePattern>>| list.as_ref().map(listed);
    let of = |field: fn(&Process) -> Option<String>| process.and_then(field);
    add(
        "uids",
        asked.uids.as_ref().map(listed),
        of(|process| Some(format!("{}", process.uid))),
    );
    add(
        "executables",
        names(&asked.executables),
        of(|process| process.executable.clone()),
    );
    add(
        "cgroups",
        names(&asked.cgroups),
        of(|process| process.cgroup.clone()),
    );
    add(
        "containers",
        names(&asked.containers),
        of(|process| process.container.clone()),
    );
    add(
        "units",
        names(&asked.units),
        of(|process| process.unit.clone()),
    );
    if wanted.is_empty() {
        wanted.push_str("a local process");
        found.push_str(if process.is_some() {
            "known"
        } else {
            "not known"
        });
    }
    (wanted, found)
}

fn moment(unix_ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_ns)) {
        Ok(time) => format!("{time}"),
        Err(_) => format!("{unix_ns} ns after 1970"),
    }
}

fn listed<T: Display>(list: impl IntoIterator<Item = T>) -> String {
    let mut out = String::new();
    for (index, entry) in list.into_iter().enumerate() {
        if index == SHOWN_MAX {
            out.push_str(", …");
            break;
        }
        let gap = if index > 0 { ", " } else { "" };
        let _ = write!(out, "{gap}{entry}");
    }
    match out.is_empty() {
        true => "none".into(),
        false => out,
    }
}
