//! A recorded command as the policy saw it: what a decision is made on, read back from the record.
//!
//! It owns the way back from events to [`Subject`] and [`Facts`]. It must not know where records come
//! from, or what a policy says.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::event::{self, Command, Connection, Identity};
use crate::command::{CONNECT, Column, Facts, MASKED_USES, Process, Relation, Subject};
use crate::written;

/// Why a recorded command cannot be decided on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Lost {
    /// The record does not say what the command does.
    #[error("their facts are not on record, and their texts cannot be analysed")]
    Facts,
    /// A newer version wrote what this one has no name for.
    #[error("a newer version recorded them")]
    Newer,
    /// The client is not on record.
    #[error("their clients are not on record, or had not logged in")]
    Client,
}

/// What the record says of the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedFacts {
    /// All that the decision was made on.
    Whole(Box<Facts>),
    /// They were not recorded yet when this was written: the text has to be analysed.
    Absent,
}

/// Reasons of refusals that no policy asks for.
pub use crate::session::postgres::OWN_REFUSALS;

/// Why a command was incomplete is on record; that it was, is what counts.
const INCOMPLETE: &str = "the record says so";

/// The facts that a command was decided on.
///
/// # Errors
/// If a newer version wrote them.
pub fn facts(command: &Command) -> Result<RecordedFacts, Lost> {
    let kinds: Option<Vec<&'static str>> = command
        .kinds
        .iter()
        .map(|kind| written::kind(kind))
        .collect();
    let kinds = kinds.ok_or(Lost::Newer)?;
    // A connection that is carried without being understood does nothing else.
    if command.facts == 0 && kinds != [CONNECT] {
        return Ok(RecordedFacts::Absent);
    }
    Ok(RecordedFacts::Whole(Box::new(Facts {
        kinds,
        reads: relations(&command.reads)?,
        writes: relations(&command.writes)?,
        columns_read: columns(&command.columns_read)?,
        columns_written: columns(&command.columns_written)?,
        functions: command.functions.clone(),
        unfiltered: command.unfiltered,
        masked_uses: masked_uses(&command.masked_uses)?,
        locks: false,
        foreign_code: false,
        unknown_calls: false,
        estimated_rows: command.estimated_rows,
        incomplete: (!command.incomplete.is_empty()).then_some(INCOMPLETE),
    })))
}

fn masked_uses(list: &[String]) -> Result<Vec<&'static str>, Lost> {
    let known = |name: &String| {
        let mut uses = MASKED_USES.iter();
        uses.find(|(known, _)| known == name).map(|(name, _)| *name)
    };
    let read: Option<_> = list.iter().map(known).collect();
    read.ok_or(Lost::Newer)
}

fn relations(list: &[String]) -> Result<Vec<Relation>, Lost> {
    let read = list.iter().map(|name| written::relation(name));
    read.collect::<Option<_>>().ok_or(Lost::Newer)
}

fn columns(list: &[String]) -> Result<Vec<Column>, Lost> {
    let read = list.iter().map(|name| written::column(name));
    read.collect::<Option<_>>().ok_or(Lost::Newer)
}

/// The client of a session. `identity` is absent where the protocol has no login.
///
/// # Errors
/// If its address cannot be read.
pub fn subject(connection: &Connection, identity: Option<&Identity>) -> Result<Subject, Lost> {
    let text = |pick: fn(&Identity) -> &String| identity.map(pick).cloned().unwrap_or_default();
    Ok(Subject {
        client: connection.client.parse().map_err(|_| Lost::Client)?,
        process: connection.process.as_ref().map(process),
        user: text(|identity| &identity.user),
        database: text(|identity| &identity.database),
    })
}

/// The local process; what is empty on record was not known.
fn process(process: &event::Process) -> Process {
    let known = |text: &String| (!text.is_empty()).then(|| text.clone());
    Process {
        uid: process.uid,
        gid: process.gid,
        pid: process.pid,
        tid: process.tid,
        comm: process.comm.clone(),
        started_unix_ns: (process.started_unix_ns != 0).then_some(process.started_unix_ns),
        executable: known(&process.executable),
        executable_elsewhere: known(&process.executable_elsewhere),
        executable_sha256: process.executable_sha256.as_slice().try_into().ok(),
        command_line: known(&process.command_line),
        cgroup: known(&process.cgroup),
        container: known(&process.container),
        pod: known(&process.pod),
        unit: known(&process.unit),
        netns: (process.netns != 0).then_some(process.netns),
        is_own_netns: process.is_own_netns,
    }
}

/// The recorded text is certainly what the client sent: its digest says so. A text with parameters,
/// or with something masked, is not certain.
pub fn is_exact(command: &Command) -> bool {
    let mut hash = Sha256::new();
    hash.update((command.text.len() as u64).to_be_bytes());
    hash.update(command.text.as_bytes());
    hash.finalize().as_slice() == command.digest
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use super::*;

    #[test]
    fn facts_come_back_as_they_were() {
        let relation = |text| written::relation(text).unwrap();
        let facts_before = Facts {
            kinds: vec!["UPDATE", "SELECT"],
            reads: vec![relation("public.orders"), relation("customers")],
            writes: vec![relation("orders")],
            columns_read: vec![written::column("customers.*").unwrap()],
            columns_written: vec![written::column("status").unwrap()],
            functions: vec!["pg_catalog.now".into()],
            unfiltered: true,
            estimated_rows: Some(0),
            incomplete: Some(INCOMPLETE),
            ..Facts::default()
        };
        let strings = |list: &[Relation]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let command = Command {
            facts: 1,
            kinds: vec!["UPDATE".into(), "SELECT".into()],
            reads: strings(&facts_before.reads),
            writes: strings(&facts_before.writes),
            columns_read: vec!["customers.*".into()],
            columns_written: vec!["status".into()],
            functions: facts_before.functions.clone(),
            unfiltered: true,
            estimated_rows: Some(0),
            incomplete: "it copies".into(),
            ..Command::default()
        };
        assert_eq!(
            facts(&command),
            Ok(RecordedFacts::Whole(Box::new(facts_before)))
        );
        let older = Command {
            facts: 0,
            ..command.clone()
        };
        assert_eq!(facts(&older), Ok(RecordedFacts::Absent));
        let newer = Command {
            kinds: vec!["TELEPORT".into()],
            ..command
        };
        assert_eq!(facts(&newer), Err(Lost::Newer));
    }

    #[test]
    fn a_process_comes_back_as_it_was() {
        let before = Process {
            uid: 1000,
            executable: Some("/usr/bin/psql".into()),
            executable_sha256: Some([7; 32]),
            unit: Some("x.service".into()),
            netns: Some(4),
            is_own_netns: true,
            ..Process::default()
        };
        assert_eq!(process(&event::Process::from(&before)), before);
        let connection = Connection {
            client: "no address".into(),
            ..Connection::default()
        };
        assert_eq!(subject(&connection, None), Err(Lost::Client));
    }
}
