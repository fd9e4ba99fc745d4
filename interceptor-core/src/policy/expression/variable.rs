//! The variables of an expression: their names, types, and values for a command.
//!
//! It owns the table that documents, messages and the checker read. It must not know what an
//! expression does with a value.

use alloc::borrow::Cow;
use alloc::string::ToString;

use super::Scope;
use super::text::Text;
use crate::command::{Column, Process, Relation};
use crate::policy::Protocol;

/// A variable, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Text(TextVariable),
    Number(NumberVariable),
    Flag(FlagVariable),
    List(ListVariable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextVariable {
    User,
    Database,
    Address,
    Person,
    Comm,
    Executable,
    Cgroup,
    Container,
    Unit,
    CommandLine,
    Target,
    Protocol,
    Statement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberVariable {
    Uid,
    Gid,
    Pid,
    EstimatedRows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagVariable {
    NoWhere,
    Incomplete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListVariable {
    Groups,
    Kinds,
    Tables,
    Reads,
    Writes,
    Functions,
    ColumnsRead,
    ColumnsWritten,
}

/// What the variables hang on.
pub(super) const ROOTS: [&str; 4] = ["client", "process", "target", "statement"];
/// The time; it stands alone.
pub(super) const NOW: &str = "now";

/// Every variable with its name.
#[rustfmt::skip]
pub(super) const VARIABLES: &[(&str, Variable)] = &[
    ("client.user", Variable::Text(TextVariable::User)),
    ("client.database", Variable::Text(TextVariable::Database)),
    ("client.address", Variable::Text(TextVariable::Address)),
    ("client.person", Variable::Text(TextVariable::Person)),
    ("client.groups", Variable::List(ListVariable::Groups)),
    ("process.uid", Variable::Number(NumberVariable::Uid)),
    ("process.gid", Variable::Number(NumberVariable::Gid)),
    ("process.pid", Variable::Number(NumberVariable::Pid)),
    ("process.comm", Variable::Text(TextVariable::Comm)),
    ("process.executable", Variable::Text(TextVariable::Executable)),
    ("process.cgroup", Variable::Text(TextVariable::Cgroup)),
    ("process.container", Variable::Text(TextVariable::Container)),
    ("process.unit", Variable::Text(TextVariable::Unit)),
    ("process.command_line", Variable::Text(TextVariable::CommandLine)),
    ("target.name", Variable::Text(TextVariable::Target)),
    ("target.protocol", Variable::Text(TextVariable::Protocol)),
    ("statement.kinds", Variable::List(ListVariable::Kinds)),
    ("statement.tables", Variable::List(ListVariable::Tables)),
    ("statement.reads", Variable::List(ListVariable::Reads)),
    ("statement.writes", Variable::List(ListVariable::Writes)),
    ("statement.functions", Variable::List(ListVariable::Functions)),
    ("statement.columns_read", Variable::List(ListVariable::ColumnsRead)),
    ("statement.columns_written", Variable::List(ListVariable::ColumnsWritten)),
    ("statement.no_where", Variable::Flag(FlagVariable::NoWhere)),
    ("statement.incomplete", Variable::Flag(FlagVariable::Incomplete)),
    ("statement.estimated_rows", Variable::Number(NumberVariable::EstimatedRows)),
    ("statement.text", Variable::Text(TextVariable::Statement)),
];

impl Variable {
    /// Whether it has a value for this command.
    pub(super) fn is_known(self, scope: &Scope<'_>) -> bool {
        match self {
            Self::Text(variable) => variable.value(scope).is_some(),
            Self::Number(variable) => variable.value(scope).is_some(),
            Self::List(variable) => variable.is_known(scope),
            Self::Flag(_) => true,
        }
    }
}

impl TextVariable {
    pub(super) fn value<'s>(self, scope: &Scope<'s>) -> Option<Text<'s>> {
        let subject = scope.subject;
        let of_process = |part: fn(&Process) -> Option<&str>| part(subject.process.as_ref()?);
        // Who logs in to what, and what is asked, is not seen in a connection that passes through.
        let is_asked = scope.target.protocol != Protocol::Tcp;
        let value = match self {
            Self::User => is_asked.then_some(subject.user.as_str())?,
            Self::Database => is_asked.then_some(subject.database.as_str())?,
            Self::Address => {
                let address = subject.client.ip().to_canonical().to_string();
                return Some(Text::One(Cow::Owned(address)));
            }
            Self::Person => scope.who.person.as_deref()?,
            Self::Comm => of_process(|process| Some(&process.comm))?,
            Self::Executable => of_process(|process| process.executable.as_deref())?,
            Self::Cgroup => of_process(|process| process.cgroup.as_deref())?,
            Self::Container => of_process(|process| process.container.as_deref())?,
            Self::Unit => of_process(|process| process.unit.as_deref())?,
            Self::CommandLine => of_process(|process| process.command_line.as_deref())?,
            Self::Target => &scope.target.name,
            Self::Protocol => scope.target.protocol.name(),
            Self::Statement => is_asked.then_some(scope.input.text)?,
        };
        Some(Text::One(Cow::Borrowed(value)))
    }
}

impl NumberVariable {
    pub(super) fn value(self, scope: &Scope<'_>) -> Option<i64> {
        let process = scope.subject.process.as_ref();
        Some(match self {
            Self::Uid => process?.uid.into(),
            Self::Gid => process?.gid.into(),
            Self::Pid => process?.pid.into(),
            Self::EstimatedRows => {
                i64::try_from(scope.input.facts.rows_of_largest_table()?).unwrap_or(i64::MAX)
            }
        })
    }
}

impl FlagVariable {
    pub(super) const fn value(self, scope: &Scope<'_>) -> bool {
        match self {
            Self::NoWhere => scope.input.facts.unfiltered,
            Self::Incomplete => scope.input.facts.incomplete.is_some(),
        }
    }
}

impl ListVariable {
    fn is_known(self, scope: &Scope<'_>) -> bool {
        self != Self::Groups || scope.who.person.is_some()
    }

    /// Gives each entry to `visit` until that says stop. `None` if the list is not known.
    pub(super) fn visit<'s>(
        self,
        scope: &Scope<'s>,
        mut visit: impl FnMut(Text<'s>) -> bool,
    ) -> Option<()> {
        if !self.is_known(scope) {
            return None;
        }
        let facts = scope.input.facts;
        let plain = |text: &'s str| Text::One(Cow::Borrowed(text));
        // A table that is read and written is one table.
        let read_too = |relation: &&Relation| !facts.reads.contains(relation);
        let _ = match self {
            Self::Groups => scope.who.groups.iter().all(|name| visit(plain(name))),
            Self::Kinds => facts.kinds.iter().all(|kind| visit(plain(kind))),
            Self::Functions => facts.functions.iter().all(|name| visit(plain(name))),
            Self::Reads => facts.reads.iter().all(|one| visit(relation(one))),
            Self::Writes => facts.writes.iter().all(|one| visit(relation(one))),
            Self::Tables => {
                let written = facts.writes.iter().filter(read_too);
                facts
                    .reads
                    .iter()
                    .chain(written)
                    .all(|one| visit(relation(one)))
            }
            Self::ColumnsRead => facts.columns_read.iter().all(|one| visit(column(one))),
            Self::ColumnsWritten => facts.columns_written.iter().all(|one| visit(column(one))),
        };
        Some(())
    }
}

/// As they are displayed, without writing them.
fn relation(relation: &Relation) -> Text<'_> {
    match relation.schema.as_deref() {
        Some(schema) => Text::Two(schema, &relation.name),
        None => Text::One(Cow::Borrowed(&relation.name)),
    }
}

fn column(column: &Column) -> Text<'_> {
    let name = column.name.as_deref().unwrap_or("*");
    match &column.relation {
        None => Text::One(Cow::Borrowed(name)),
        Some(relation) => match relation.schema.as_deref() {
            None => Text::Two(&relation.name, name),
            Some(schema) => Text::Three(schema, &relation.name, name),
        },
    }
}
