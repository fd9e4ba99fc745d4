//! What a document's `match` asks of a command.
//!
//! It owns what each key is met by, and what doubt means there. It must not know what follows from a
//! match, nor how a key is written.
//!
//! Each condition answers one question for two kinds of askers: what restricts takes doubt for a
//! match, what permits does not. Both answers together tell what is certain ([`Condition::met`]), so an
//! explanation cannot say anything else than the decision.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ipnet::IpNet;
use regex::Regex;

use super::expression::{Expression, Scope, Truth};
use super::name::{ColumnPattern, Doubt};
use super::times::Window;
use super::{NamePattern, Protocol, RelationPattern};
use crate::command::{CONNECT, Column, Facts, Process, REPLICATION, Relation};

/// All of them have to be met; none at all is everything. Each kind is there at most once.
#[derive(Debug, Default)]
pub(super) struct Conditions(pub(super) Box<[Condition]>);

/// One key. Every list holds at least one entry, of which any will do.
#[derive(Debug)]
pub(super) enum Condition {
    Targets(Vec<NamePattern>),
    Users(Vec<NamePattern>),
    Databases(Vec<NamePattern>),
    ClientNetworks(Vec<IpNet>),
    Persons(Vec<NamePattern>),
    Groups(Vec<NamePattern>),
    Process(ProcessConditions),
    /// Names from [`crate::command::KINDS`].
    Statements(Vec<&'static str>),
    Tables(Vec<RelationPattern>),
    Reads(Vec<RelationPattern>),
    Writes(Vec<RelationPattern>),
    Functions(Vec<RelationPattern>),
    ColumnsRead(Vec<ColumnPattern>),
    ColumnsWritten(Vec<ColumnPattern>),
    NoWhere(bool),
    /// What masked columns are used for.
    MaskedUses(Vec<&'static str>),
    Incomplete(bool),
    /// More rows than this.
    EstimatedRows(u64),
    Times(Vec<Window>),
    Text(Box<Regex>),
    When(Box<Expression>),
}

/// What is asked of the local process behind the connection.
#[derive(Debug, Default)]
pub(super) struct ProcessConditions {
    pub(super) uids: Option<Vec<u32>>,
    pub(super) executables: Option<Vec<NamePattern>>,
    pub(super) cgroups: Option<Vec<NamePattern>>,
    pub(super) containers: Option<Vec<NamePattern>>,
    pub(super) units: Option<Vec<NamePattern>>,
}

/// How a condition stands to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// It is not met.
    No,
    /// That cannot be told: it is met for what restricts, and not for what permits.
    Doubt,
    /// It is met.
    Yes,
}

impl Conditions {
    /// Every key is met, by the given reading of doubt.
    pub(super) fn match_all(&self, scope: &Scope<'_>, doubt: Doubt) -> bool {
        self.0.iter().all(|condition| condition.holds(scope, doubt))
    }

    /// What an allow rule, a grant or a bypass needs: every key is met for certain, and they cover the
    /// whole command.
    pub(super) fn permit(&self, scope: &Scope<'_>) -> bool {
        self.match_all(scope, Doubt::Differs)
            && super::cover::check(self, scope.input.facts).is_ok()
    }

    pub(super) fn met(&self, scope: &Scope<'_>) -> Met {
        let all = self.0.iter().map(|condition| condition.met(scope));
        all.min().unwrap_or(Met::Yes)
    }

    /// Nothing here is about the command itself: it is met for all of a session's commands or for none,
    /// time aside.
    pub(super) fn are_of_the_session(&self) -> bool {
        let mut conditions = self.0.iter();
        conditions.all(|one| one.is_of_the_session() || matches!(one, Condition::Times(_)))
    }
}

impl Condition {
    /// The key in policy files.
    pub(super) const fn key(&self) -> &'static str {
        match self {
            Self::Targets(_) => "targets",
            Self::Users(_) => "users",
            Self::Databases(_) => "databases",
            Self::ClientNetworks(_) => "clientNetworks",
            Self::Persons(_) => "persons",
            Self::Groups(_) => "groups",
            Self::Process(_) => "process",
            Self::Statements(_) => "statements",
            Self::Tables(_) => "tables",
            Self::Reads(_) => "reads",
            Self::Writes(_) => "writes",
            Self::Functions(_) => "functions",
            Self::ColumnsRead(_) => "columnsRead",
            Self::ColumnsWritten(_) => "columnsWritten",
            Self::NoWhere(_) => "noWhere",
            Self::MaskedUses(_) => "maskedUses",
            Self::Incomplete(_) => "incomplete",
            Self::EstimatedRows(_) => "estimatedRows",
            Self::Times(_) => "times",
            Self::Text(_) => "text",
            Self::When(_) => "when",
        }
    }

    /// It is about the target or the client: met for all of a session's commands or for none.
    pub(super) const fn is_of_the_session(&self) -> bool {
        matches!(
            self,
            Self::Targets(_)
                | Self::Users(_)
                | Self::Databases(_)
                | Self::ClientNetworks(_)
                | Self::Persons(_)
                | Self::Groups(_)
                | Self::Process(_)
        )
    }

    pub(super) fn met(&self, scope: &Scope<'_>) -> Met {
        if self.holds(scope, Doubt::Differs) {
            Met::Yes
        } else if self.holds(scope, Doubt::Matches) {
            Met::Doubt
        } else {
            Met::No
        }
    }

    /// Whether it is met, where doubt counts as it says.
    pub(super) fn holds(&self, scope: &Scope<'_>, doubt: Doubt) -> bool {
        let facts = scope.input.facts;
        let in_doubt = doubt == Doubt::Matches;
        // Who logs in to what, and what is asked, is not seen in a connection that passes through.
        let unseen = scope.target.protocol == Protocol::Tcp;
        match self {
            Self::Targets(names) => is_named(names, &scope.target.name),
            Self::Users(_) | Self::Databases(_) | Self::Text(_) if unseen => in_doubt,
            Self::Users(names) => is_named(names, &scope.subject.user),
            Self::Databases(names) => is_named(names, &scope.subject.database),
            Self::ClientNetworks(networks) => {
                let client = scope.subject.client.ip().to_canonical();
                networks.iter().any(|network| network.contains(&client))
            }
            Self::Persons(names) => match &scope.who.person {
                Some(person) => is_named(names, person),
                None => in_doubt,
            },
            Self::Groups(names) => match &scope.who.person {
                Some(_) => scope.who.groups.iter().any(|group| is_named(names, group)),
                None => in_doubt,
            },
            Self::Process(conditions) => match &scope.subject.process {
                Some(process) => conditions.match_process(process, doubt),
                None => in_doubt,
            },
            Self::Statements(kinds) => facts.kinds.iter().any(|kind| kinds.contains(kind)),
            Self::Tables(list) => {
                let mut relations = facts.reads.iter().chain(&facts.writes);
                relations.any(|relation| is_among(relation, list, doubt))
            }
            Self::Reads(list) => facts.reads.iter().any(|name| is_among(name, list, doubt)),
            Self::Writes(list) => facts.writes.iter().any(|name| is_among(name, list, doubt)),
            Self::Functions(list) => {
                let mut functions = facts.functions.iter();
                functions.any(|name| is_function_among(name, list, doubt))
            }
            Self::ColumnsRead(list) => {
                let mut columns = facts.columns_read.iter();
                columns.any(|column| is_column_among(column, facts, list, doubt))
            }
            Self::ColumnsWritten(list) => {
                let mut columns = facts.columns_written.iter();
                columns.any(|column| is_column_among(column, facts, list, doubt))
            }
            Self::NoWhere(expected) => facts.unfiltered == *expected,
            Self::MaskedUses(list) => {
                let mut uses = facts.masked_uses.iter();
                uses.any(|used| list.contains(used)) || (in_doubt && facts.incomplete.is_some())
            }
            Self::Incomplete(expected) => facts.incomplete.is_some() == *expected,
            Self::EstimatedRows(over) => match facts.rows_of_largest_table() {
                Some(rows) => rows > *over,
                None => in_doubt,
            },
            Self::Times(windows) => {
                let now = scope.input.now_unix_ns;
                windows.iter().any(|window| window.contains(now))
            }
            Self::Text(regex) => regex.is_match(scope.input.text),
            Self::When(expression) => match expression.evaluate(scope) {
                Truth::Yes => true,
                Truth::No => false,
                Truth::Unknown => in_doubt,
            },
        }
    }
}

impl ProcessConditions {
    /// Any process at all will do.
    pub(super) const fn is_empty(&self) -> bool {
        self.uids.is_none()
            && self.executables.is_none()
            && self.cgroups.is_none()
            && self.containers.is_none()
            && self.units.is_none()
    }

    fn match_process(&self, process: &Process, doubt: Doubt) -> bool {
        let named = |list: &Option<Vec<NamePattern>>, name: Option<&str>| {
            list.as_ref().is_none_or(|list| match name {
                Some(name) => is_named(list, name),
                None => doubt == Doubt::Matches,
            })
        };
        self.uids
            .as_ref()
            .is_none_or(|uids| uids.contains(&process.uid))
            && named(&self.executables, process.executable.as_deref())
            && named(&self.cgroups, process.cgroup.as_deref())
            && named(&self.containers, process.container.as_deref())
            && named(&self.units, process.unit.as_deref())
    }
}

fn is_named(patterns: &[NamePattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

pub(super) fn is_among(relation: &Relation, patterns: &[RelationPattern], doubt: Doubt) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.matches_relation(relation, doubt))
}

pub(super) fn is_function_among(name: &str, patterns: &[RelationPattern], doubt: Doubt) -> bool {
    let (schema, name) = match name.rsplit_once('.') {
        Some((schema, name)) => (Some(schema), name),
        None => (None, name),
    };
    patterns
        .iter()
        .any(|pattern| pattern.matches(schema, name, doubt))
}

/// A column of no particular relation may be of any that the command names: in doubt one of them is
/// enough, for certain it takes all.
pub(super) fn is_column_among(
    column: &Column,
    facts: &Facts,
    patterns: &[ColumnPattern],
    doubt: Doubt,
) -> bool {
    let among = |relation: &Relation| {
        patterns
            .iter()
            .any(|pattern| pattern.matches(relation, column, doubt))
    };
    if let Some(relation) = &column.relation {
        return among(relation);
    }
    let mut relations = facts.reads.iter().chain(&facts.writes).peekable();
    match (relations.peek().is_some(), doubt) {
        (true, Doubt::Matches) => relations.any(among),
        (true, Doubt::Differs) => relations.all(among),
        // Of something that has no name, such as a function's rows.
        (false, Doubt::Matches) => patterns
            .iter()
            .any(|pattern| pattern.matches_name(column, doubt)),
        (false, Doubt::Differs) => false,
    }
}

/// What passes through without being looked at has to be named by its kind.
pub(super) fn is_connection(facts: &Facts) -> bool {
    facts.kinds.contains(&CONNECT) || facts.kinds.contains(&REPLICATION)
}
