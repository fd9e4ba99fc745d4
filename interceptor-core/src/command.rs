//! The protocol-neutral command: what a statement does, and who sends it.
//!
//! A protocol's analysis fills [`Facts`]; policy decides on them; the record keeps them. Nothing
//! here knows how a protocol's bytes look or what a policy file says.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

/// A table, view or other relation as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// The schema, where the statement gave one.
    pub schema: Option<Box<str>>,
    /// The relation's own name, case-folded as the server folds it.
    pub name: Box<str>,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A column as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Column {
    /// The relation that it belongs to; `None` where it may be any that the command names.
    pub relation: Option<Relation>,
    /// Its name, case-folded; `None` for every column of the relation.
    pub name: Option<Box<str>>,
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(relation) = &self.relation {
            write!(f, "{relation}.")?;
        }
        f.write_str(self.name.as_deref().unwrap_or("*"))
    }
}

/// What one command does, as far as its text shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kinds of the statements in it, in order, without repeats: the names in [`KINDS`].
    pub kinds: Vec<&'static str>,
    /// Relations that it reads.
    pub reads: Vec<Relation>,
    /// Relations that it writes, creates, alters or drops.
    pub writes: Vec<Relation>,
    /// Columns whose values it reads, filters by or orders by.
    pub columns_read: Vec<Column>,
    /// Columns that it sets.
    pub columns_written: Vec<Column>,
    /// Functions that it calls, case-folded, schema-qualified where the statement is.
    pub functions: Vec<String>,
    /// An UPDATE or DELETE without a WHERE clause is in it.
    pub unfiltered: bool,
    /// What it uses masked columns for, beside showing them: `filter`, `order`, `group`, `join`.
    pub masked_uses: Vec<&'static str>,
    /// It locks rows that it reads: FOR UPDATE and its like.
    pub locks: bool,
    /// It names operators, types or sampling methods that do not come with the server, or views: functions
    /// can stand behind them, whose names are not in the statement.
    pub foreign_code: bool,
    /// It calls functions that do not come with the server.
    pub unknown_calls: bool,
    /// The most rows that the server's statistics give any table that it names; `None` where they are
    /// not known.
    pub estimated_rows: Option<u64>,
    /// Why the facts above may not be all: dynamic SQL, an anonymous block, an unknown node.
    /// `None` means that they are complete.
    pub incomplete: Option<&'static str>,
}

impl Facts {
    /// It can only read, as far as its text shows: it writes and locks nothing, ends no transaction, and
    /// calls nothing but functions that come with the server and change nothing. What stands behind the
    /// names in it, such as a view's definition or somebody's own function called `lower`, is not known
    /// here.
    pub fn only_reads(&self) -> bool {
        const KINDS: &[&str] = &[
            "BEGIN",
            "COPY TO",
            "EMPTY",
            "EXPLAIN",
            "EXPLAIN ANALYZE",
            "SELECT",
            "SHOW",
        ];
        let writes = !self.writes.is_empty() || !self.columns_written.is_empty();
        let complete = self.incomplete.is_none() && !self.foreign_code && !self.kinds.is_empty();
        complete
            && !writes
            && !self.locks
            && self.kinds.iter().all(|kind| KINDS.contains(kind))
            && self
                .functions
                .iter()
                .all(|function| crate::sql::is_harmless(function))
    }

    /// The rows of the largest table that it names, by the server's statistics. A command that names no
    /// table, and hides nothing, has none.
    pub fn rows_of_largest_table(&self) -> Option<u64> {
        let names_none = self.reads.is_empty() && self.writes.is_empty();
        let hides = self.incomplete.is_some() || self.kinds.contains(&CONNECT);
        self.estimated_rows.or((names_none && !hides).then_some(0))
    }
}

/// What a command can use a masked column for, beside showing it: as a policy file names it, and as the
/// facts do.
pub const MASKED_USES: &[(&str, &str)] = &[
    ("filter", "filter"),
    ("order", "order"),
    ("group", "group"),
    ("join", "join"),
];

/// The kind of a connection that is carried without being understood: its one command.
pub const CONNECT: &str = "CONNECT";

/// The kind of a replication connection and of its own commands, which pass without being looked at.
pub const REPLICATION: &str = "REPLICATION";

/// Every statement kind that an analysis can report and a policy file can name: PostgreSQL's
/// command tags, [`CONNECT`] and [`REPLICATION`]. A policy's `DROP` stands for every kind whose first word it is.
#[rustfmt::skip]
pub const KINDS: &[&str] = &[
    "ALTER DATABASE", "ALTER EXTENSION", "ALTER FUNCTION", "ALTER INDEX", "ALTER POLICY",
    "ALTER PUBLICATION", "ALTER ROLE", "ALTER SCHEMA", "ALTER SEQUENCE", "ALTER SUBSCRIPTION",
    "ALTER SYSTEM", "ALTER TABLE", "ALTER TYPE", "ALTER VIEW", "ALTER OTHER",
    "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "CLOSE", "CLUSTER", "COMMENT", "COMMIT", "COMMIT PREPARED",
    CONNECT,
    "COPY FILE", "COPY FROM", "COPY PROGRAM", "COPY TO",
    "CREATE DATABASE", "CREATE EXTENSION", "CREATE FUNCTION", "CREATE INDEX", "CREATE POLICY",
    "CREATE PUBLICATION", "CREATE ROLE", "CREATE RULE", "CREATE SCHEMA", "CREATE SEQUENCE",
    "CREATE SUBSCRIPTION", "CREATE TABLE", "CREATE TABLE AS", "CREATE TRIGGER", "CREATE TYPE",
    "CREATE VIEW", "CREATE OTHER",
    "DEALLOCATE", "DECLARE CURSOR", "DELETE", "DISCARD", "DO",
    "DROP DATABASE", "DROP EXTENSION", "DROP FUNCTION", "DROP INDEX", "DROP OWNED",
    "DROP POLICY", "DROP PUBLICATION", "DROP ROLE", "DROP SCHEMA", "DROP SEQUENCE",
    "DROP SUBSCRIPTION", "DROP TABLE", "DROP TRIGGER", "DROP TYPE", "DROP VIEW", "DROP OTHER",
    "EMPTY", "EXECUTE", "EXPLAIN", "EXPLAIN ANALYZE", "FETCH", "FUNCTION CALL", "GRANT", "IMPORT",
    "INSERT", "LISTEN", "LOAD", "LOCK", "MERGE", "MOVE", "NOTIFY", "OTHER", "PREPARE",
    "REASSIGN OWNED", "REFRESH MATERIALIZED VIEW", "REINDEX", "RELEASE", REPLICATION, "RESET", "REVOKE",
    "ROLLBACK", "ROLLBACK PREPARED", "SAVEPOINT", "SECURITY LABEL", "SELECT", "SET", "SET ROLE", "SHOW",
    "TRUNCATE", "UNLISTEN", "UPDATE", "VACUUM",
];

/// The local process behind a connection, as the kernel saw it call `connect`. What is `None` is not
/// known for certain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Process (thread group) id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name, at most 15 bytes; a thread names itself.
    pub comm: String,
    /// When the process started.
    pub started_unix_ns: Option<u64>,
    /// Path of the executable, if it leads to that file from where the gateway is.
    pub executable: Option<String>,
    /// Path of the executable in a file system that the gateway does not see, or of a removed file.
    pub executable_elsewhere: Option<String>,
    /// SHA-256 of the executable's file.
    pub executable_sha256: Option<[u8; 32]>,
    /// The command line without its secrets; a process can write what it likes there.
    pub command_line: Option<String>,
    /// Path of the cgroup, relative to the cgroup2 mount.
    pub cgroup: Option<String>,
    /// The container's runtime and id, as in `docker://0123…`.
    pub container: Option<String>,
    /// Uid of the Kubernetes pod.
    pub pod: Option<String>,
    /// The systemd service or scope.
    pub unit: Option<String>,
    /// Inode number of the connection's network namespace.
    pub netns: Option<u32>,
    /// It is the gateway's own.
    pub is_own_netns: bool,
}

/// Who acts: what is known of the client when a command is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The client's address as the gateway sees it.
    pub client: SocketAddr,
    /// The local process, for clients on the gateway host; `None` is "unknown".
    pub process: Option<Process>,
    /// The target's user that the client asked to be.
    pub user: String,
    /// The target's database that the client asked for.
    pub database: String,
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The command may go.
    pub approved: bool,
    /// Who says so.
    pub by: String,
    /// What they say.
    pub reason: String,
}
