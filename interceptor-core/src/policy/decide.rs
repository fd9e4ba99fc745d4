//! One decision a command: the rules, compiled, and how they meet a command.
//!
//! It owns matching and strictness. It must not know how rules are written.
//!
//! Two ideas carry it. *Strictest wins*: rules are sorted by strictness, so the first match is
//! the decision. *Doubt restricts*: what is not known of a command counts as a match for a rule
//! that denies or holds, and as none for a rule that allows.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

use ipnet::IpNet;

use super::name::Doubt;
use super::{
    Action, Decision, NamePattern, Outcome, Protocol, RelationPattern, RuleReference, Target,
};
use crate::command::{CONNECT, Facts, Process, Relation, Subject};

/// A rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) reference: Arc<RuleReference>,
    pub(super) conditions: Conditions,
    pub(super) action: Action,
}

/// What a rule asks of a command. `None` asks nothing; every list holds at least one entry.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) targets: Option<Vec<NamePattern>>,
    pub(super) users: Option<Vec<NamePattern>>,
    pub(super) databases: Option<Vec<NamePattern>>,
    /// Names from [`crate::command::KINDS`].
    pub(super) statements: Option<Vec<&'static str>>,
    pub(super) tables: Option<Vec<RelationPattern>>,
    pub(super) reads: Option<Vec<RelationPattern>>,
    pub(super) writes: Option<Vec<RelationPattern>>,
    pub(super) functions: Option<Vec<RelationPattern>>,
    pub(super) no_where: Option<bool>,
    pub(super) incomplete: Option<bool>,
    pub(super) client_networks: Option<Vec<IpNet>>,
    pub(super) process: Option<ProcessConditions>,
}

/// What a rule asks of the local process behind the connection.
#[derive(Debug, Default)]
pub(super) struct ProcessConditions {
    pub(super) uids: Option<Vec<u32>>,
    pub(super) executables: Option<Vec<NamePattern>>,
    pub(super) cgroups: Option<Vec<NamePattern>>,
}

/// Brings rules into the order in which [`decide`] reads them.
pub(super) fn sort(rules: &mut [Rule]) {
    rules.sort_by(|a, b| {
        let order = |rule: &Rule| Reverse(rule.action.outcome.strictness());
        order(a)
            .cmp(&order(b))
            .then_with(|| a.reference.name.cmp(&b.reference.name))
    });
}

pub(super) fn decide(
    rules: &[Rule],
    target: &Target,
    subject: &Subject,
    facts: &Facts,
) -> Decision {
    if let Some(rule) = rules
        .iter()
        .find(|rule| rule.matches(target, subject, facts))
    {
        return Decision {
            outcome: rule.action.outcome.clone(),
            rule: Some(Arc::clone(&rule.reference)),
            reason: Arc::clone(&rule.action.reason),
            lift: None,
            obligations: None,
        };
    }
    let (action, reason) = match facts.incomplete {
        None => (&target.default, Arc::clone(&target.default.reason)),
        Some(why) => {
            let action = &target.incomplete;
            (action, format!("{} ({why})", action.reason).into())
        }
    };
    Decision {
        outcome: action.outcome.clone(),
        rule: None,
        reason,
        lift: None,
        obligations: None,
    }
}

impl Rule {
    fn matches(&self, target: &Target, subject: &Subject, facts: &Facts) -> bool {
        let allows = self.action.outcome == Outcome::Allow;
        let doubt = if allows {
            Doubt::Differs
        } else {
            Doubt::Matches
        };
        let conditions = &self.conditions;
        conditions.match_subject(target, subject, doubt)
            && conditions.match_facts(facts, doubt)
            && (!allows || conditions.cover(facts))
    }
}

impl Conditions {
    fn match_subject(&self, target: &Target, subject: &Subject, doubt: Doubt) -> bool {
        let named = |list: &Option<Vec<NamePattern>>, name: &str| {
            list.as_ref()
                .is_none_or(|list| list.iter().any(|pattern| pattern.matches(name)))
        };
        // Who logs in to what is not seen in a connection that passes through.
        let asked = |list: &Option<Vec<NamePattern>>, name: &str| match target.protocol {
            Protocol::Postgres => named(list, name),
            Protocol::Tcp => list.is_none() || doubt == Doubt::Matches,
        };
        named(&self.targets, &target.name)
            && asked(&self.users, &subject.user)
            && asked(&self.databases, &subject.database)
            && self.client_networks.as_ref().is_none_or(|networks| {
                let client = subject.client.ip().to_canonical();
                networks.iter().any(|network| network.contains(&client))
            })
            && self
                .process
                .as_ref()
                .is_none_or(|conditions| match &subject.process {
                    Some(process) => conditions.match_process(process, doubt),
                    None => doubt == Doubt::Matches,
                })
    }

    /// Each list that is given finds at least one thing in the command.
    fn match_facts(&self, facts: &Facts, doubt: Doubt) -> bool {
        self.statements
            .as_ref()
            .is_none_or(|list| facts.kinds.iter().any(|kind| list.contains(kind)))
            && any_among(facts.reads.iter().chain(&facts.writes), &self.tables, doubt)
            && any_among(facts.reads.iter(), &self.reads, doubt)
            && any_among(facts.writes.iter(), &self.writes, doubt)
            && self.functions.as_ref().is_none_or(|list| {
                facts
                    .functions
                    .iter()
                    .any(|name| is_function_among(name, list, doubt))
            })
            && self
                .no_where
                .is_none_or(|expected| facts.unfiltered == expected)
            && self
                .incomplete
                .is_none_or(|expected| facts.incomplete.is_some() == expected)
    }

    /// What an allow rule must do beyond matching: vouch for the whole command. One statement,
    /// table or function that its lists do not name, or a doubt that it does not name, and it
    /// says nothing; otherwise `SELECT FROM allowed; DROP TABLE other` would ride along. What
    /// passes through without being understood has to be named: `match: {}` is not enough.
    fn cover(&self, facts: &Facts) -> bool {
        let covers = |relation: &Relation, lists: [&Option<Vec<RelationPattern>>; 2]| {
            lists
                .into_iter()
                .flatten()
                .any(|list| is_among(relation, list, Doubt::Differs))
        };
        let names_relations =
            self.tables.is_some() || self.reads.is_some() || self.writes.is_some();
        (self.statements.is_some() || !facts.kinds.contains(&CONNECT))
            && (facts.incomplete.is_none() || self.incomplete == Some(true))
            && self
                .statements
                .as_ref()
                .is_none_or(|list| facts.kinds.iter().all(|kind| list.contains(kind)))
            && (!names_relations
                || facts
                    .reads
                    .iter()
                    .all(|name| covers(name, [&self.tables, &self.reads]))
                    && facts
                        .writes
                        .iter()
                        .all(|name| covers(name, [&self.tables, &self.writes])))
            && self.functions.as_ref().is_none_or(|list| {
                facts
                    .functions
                    .iter()
                    .all(|name| is_function_among(name, list, Doubt::Differs))
            })
    }
}

impl ProcessConditions {
    fn match_process(&self, process: &Process, doubt: Doubt) -> bool {
        let named = |list: &Option<Vec<NamePattern>>, path: &Option<String>| {
            list.as_ref().is_none_or(|list| match path {
                Some(path) => list.iter().any(|pattern| pattern.matches(path)),
                None => doubt == Doubt::Matches,
            })
        };
        self.uids
            .as_ref()
            .is_none_or(|uids| uids.contains(&process.uid))
            && named(&self.executables, &process.executable)
            && named(&self.cgroups, &process.cgroup)
    }
}

fn any_among<'a>(
    mut relations: impl Iterator<Item = &'a Relation>,
    list: &Option<Vec<RelationPattern>>,
    doubt: Doubt,
) -> bool {
    list.as_ref()
        .is_none_or(|list| relations.any(|relation| is_among(relation, list, doubt)))
}

fn is_among(relation: &Relation, patterns: &[RelationPattern], doubt: Doubt) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.matches_relation(relation, doubt))
}

fn is_function_among(function: &str, patterns: &[RelationPattern], doubt: Doubt) -> bool {
    let (schema, name) = match function.rsplit_once('.') {
        Some((schema, name)) => (Some(schema), name),
        None => (None, function),
    };
    patterns
        .iter()
        .any(|pattern| pattern.matches(schema, name, doubt))
}
