//! Policy: from files to one decision a command.
//!
//! It owns the language of the policy files and what a decision is. It must not know how a
//! protocol's bytes look, nor where the files come from: their text is handed in.
//!
//! [`load`] checks every file and gives one immutable [`Snapshot`], or all the errors at once.
//! [`View::decide`] is the only place where a command is judged. `docs/policies.md` explains
//! the language to those who write it.

mod decide;
mod decision;
mod endpoint;
mod error;
mod expression;
mod form;
mod load;
mod mask_document;
mod name;
mod observe;
mod overlap;
mod people;
mod read;
mod rule_document;
mod target_document;
mod test_document;
mod test_verdict;
mod view;
mod view_session;
mod yaml;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use ipnet::IpNet;

use crate::mask::{HashKey, Masks};

pub use decision::{
    Action, Approver, ApproverGroup, Decision, HoldPlan, Lift, Limit, Limits, Obligations,
    OnTimeout, Outcome, Rate, Requirement, RuleReference, Who,
};
pub use error::{PolicyError, PolicyErrors, Problem};
pub use expression::{
    EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_STEPS_MAX, Expression, ExpressionError,
    Scope, Truth,
};
pub use form::Form;
pub(crate) use name::{Doubt, NamePattern, RelationPattern};
pub use observe::Observer;
pub use people::{People, Person};
pub use test_document::{
    Expected, Given, TEST_AT_UNIX_NS, TEST_CLIENT, TEST_DATABASE, TEST_USER, Test, TestCommand,
};
pub use test_verdict::{Difference, Verdict};
pub use view::{Input, View};

/// The largest policy file, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes in all files together: a snapshot of them goes on record.
pub const FILES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most documents in all files together.
pub const DOCUMENTS_MAX: usize = 10_000;
/// The most entries in one list of a document.
pub const LIST_ENTRIES_MAX: usize = 1_000;
/// The deepest nesting in a document.
pub const DEPTH_MAX: usize = 16;
/// The longest name of a document, in characters.
pub const NAME_CHARS_MAX: usize = 100;
/// The most host names in all targets together.
pub const NAMES_MAX: usize = 1_000;
/// The longest text or pattern in a document, in characters.
pub const TEXT_CHARS_MAX: usize = 500;
/// The most errors that one load lists.
pub const ERRORS_MAX: usize = 100;
/// How long a hold waits where the file does not say.
pub const HOLD_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// The longest that a hold may wait.
pub const HOLD_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A policy file's text and the name to report it by.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Path, as the user would write it.
    pub file: &'a str,
    /// The YAML documents in it.
    pub text: &'a str,
}

/// The protocol that a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL's frontend/backend protocol.
    Postgres,
    /// Any protocol over TCP, carried without being understood: a connection is one command, of
    /// the kind [`crate::command::CONNECT`].
    Tcp,
}

impl Protocol {
    /// The name in policy files and on record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Tcp => "tcp",
        }
    }
}

/// One address of a target: a prefix (a full-length one for a single address) and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or CIDR; IPv4 is never written as mapped IPv6 here.
    pub network: IpNet,
    /// TCP ports; a single one is a range of one.
    pub ports: RangeInclusive<u16>,
}

/// A host name of a target. Its addresses are the resolver's to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The name: absolute, in lower case, without the dot at its end.
    pub name: String,
    /// TCP ports, on whatever address it has.
    pub ports: RangeInclusive<u16>,
    /// `file:line` where it stands, for errors.
    pub place: String,
}

/// Credentials for reading a target's catalogue on a side connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogAccess {
    /// The role to connect as: it needs no right beyond CONNECT.
    pub user: String,
    /// File that holds its password; `None` where the target asks for none.
    pub password_file: Option<String>,
}

/// A protected server.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in policy files, logs and messages.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Addresses where it listens.
    pub endpoints: Vec<Endpoint>,
    /// Names whose addresses it listens on.
    pub names: Vec<NamedEndpoint>,
    /// Unix sockets that nobody but the gateway may connect to: a path, or `@` and an abstract name.
    pub unix_sockets: Vec<String>,
    /// Whether it sees the client's own address instead of the gateway's.
    pub preserve_client_address: bool,
    /// What happens to commands that no rule decides.
    pub default: Action,
    /// What happens to commands that no rule decides and whose facts may not be all. Never laxer
    /// than `default`: loading refuses that.
    pub incomplete: Action,
    /// How to read its catalogue; needed by masks on columns.
    pub catalog: Option<CatalogAccess>,
    /// The masks in force on its replies.
    pub masks: Arc<Masks>,
}

/// Checked policy: immutable, shared by every session that began under it.
#[derive(Debug)]
pub struct Snapshot {
    /// The protected servers, by name.
    pub targets: Vec<Arc<Target>>,
    /// SHA-256 over the files' texts: the same texts give the same hash wherever they lie.
    pub hash: [u8; 32],
    /// How many masks the files hold.
    pub mask_count: usize,
    /// The files' names and texts, by name: what goes on record.
    pub files: Vec<(String, String)>,
    /// Who measures decisions; nobody after loading.
    pub observer: Option<Arc<dyn Observer>>,
    /// Who is behind the users of the gateway host.
    pub people: Arc<People>,
    /// Strictest first, then by name: the first that matches decides.
    rules: Vec<decide::Rule>,
}

impl Snapshot {
    /// The target of that name.
    pub fn target(&self, name: &str) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| target.name == name)
    }

    /// The rules, with where they stand.
    pub fn rule_references(&self) -> impl Iterator<Item = &Arc<RuleReference>> {
        self.rules.iter().map(|rule| &rule.reference)
    }

    /// How many rules are in force.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// Checks policy files and makes them ready to decide, or gives every error in them.
///
/// `hash_key` keys the masks' method `hash`: hand in the same random key at each reload, so that
/// equal values keep equal hashes while the process lives.
pub fn load(sources: &[Source<'_>], hash_key: &HashKey) -> Result<Snapshot, PolicyErrors> {
    load::load(sources, hash_key)
}

/// As [`load`], with more files: there documents of kind Test are read, and any other document is
/// policy as well.
pub fn load_with_tests(
    sources: &[Source<'_>],
    tests: &[Source<'_>],
    hash_key: &HashKey,
) -> Result<(Snapshot, Vec<Test>), PolicyErrors> {
    load::load_with_tests(sources, tests, hash_key)
}
