//! Policy: from files to one decision a command.
//!
//! It owns the language of the policy files and what a decision is. It must not know how a
//! protocol's bytes look, nor where the files come from: their text is handed in.
//!
//! [`load`] checks every file and gives one immutable [`Snapshot`], or all the errors at once.
//! [`View::decide`] is the only place where a command is judged. `docs/policies.md` explains
//! the language to those who write it.

mod action_document;
mod approver_document;
mod condition;
mod cover;
mod decide;
mod decision;
mod detector_document;
mod endpoint;
mod error;
mod estimates;
mod explain;
mod expression;
mod files;
mod form;
mod grant_document;
mod identity_document;
mod imitate;
mod index;
mod lift;
mod lint;
mod load;
mod login;
mod login_document;
mod mask_document;
mod mask_lists;
mod mask_problem;
mod match_document;
mod name;
mod name_map;
mod normal;
mod obligation_document;
mod observe;
mod overlap;
mod people;
mod place;
mod problem;
mod read;
mod reference;
mod rule_document;
mod target_document;
mod test_document;
mod test_verdict;
mod times;
mod tls_document;
mod view;
pub mod vocabulary;
mod yaml;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::time::Duration;

use ipnet::IpNet;

use crate::mask::{HashKey, Masks};

pub use condition::Met;
pub use decision::{
    Action, Approver, ApproverGroup, Decision, HoldPlan, Lift, Limit, Limits, Obligations,
    OnTimeout, Outcome, Rate, Requirement, RuleReference, Who,
};
pub use error::{PolicyError, PolicyErrors};
pub use explain::{ConditionExplanation, Explanation, RuleExplanation};
pub use expression::{
    EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_STEPS_MAX, Expression, ExpressionError,
    Scope, Truth,
};
pub use form::Form;
pub use imitate::{Imitation, imitate};
pub use lint::Warning;
pub use login::{ClientProof, GatewayLogin, Login, LoginCredential, PasswordSource};
pub use mask_problem::MaskProblem;
pub(crate) use name::{Doubt, NamePattern, RelationPattern};
pub(crate) use name_map::NameMap;
pub use normal::{NormalDocument, normal_documents};
pub use observe::Observer;
pub use people::{People, Person};
pub use problem::Problem;
pub use test_document::{
    Expected, Given, TEST_AT_UNIX_NS, TEST_CLIENT, TEST_DATABASE, TEST_USER, Test, TestCommand,
};
pub use test_verdict::{Difference, Verdict};
pub use tls_document::{Authority, CertificateFiles, ClientTls, TargetTls, UpstreamTls};
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

/// The most memory that a compiled regular expression may take, in bytes.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// The deepest nesting in a regular expression.
pub const REGEX_DEPTH_MAX: u32 = 50;
/// The most regular expressions in all documents together.
pub const REGEXES_MAX: usize = 1_000;
/// The greatest priority of a rule; the least is as far below 0.
pub const PRIORITY_MAX: i16 = 1_000;
/// The most people that one hold may ask for of a group.
pub const QUORUM_MAX: u32 = 100;
/// How many times a hold may go on to others.
pub const ESCALATIONS_MAX: usize = 3;
/// The most days from the beginning of a grant to its end.
pub const GRANT_DAYS_MAX: u64 = 90;
/// The greatest limit on how long a command runs.
pub const LIMIT_DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The most commands in a limit's time.
pub const RATE_MAX: u32 = 1_000_000;
/// The most different lists of masks that the rules of one target name.
pub const MASK_LISTS_MAX: usize = 8;
/// What grants call a target's own action.
pub const DEFAULT_RULE: &str = "default";

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
    /// How its clients log in.
    pub login: Login,
    /// How its connections are encrypted.
    pub tls: TargetTls,
    /// The masks that are always in force on its replies.
    pub masks: Arc<Masks>,
    /// Those with what rules name besides.
    masks_by_rule: mask_lists::TargetMasks,
    /// Some document that can concern it asks how many rows a table has.
    needs_estimates: bool,
}

impl Target {
    /// Every mask that can be in force, by whatever rules.
    pub fn masks_possible(&self) -> &Arc<Masks> {
        self.masks_by_rule.all()
    }
}

/// How many documents of each kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Targets.
    pub targets: usize,
    /// Rules.
    pub rules: usize,
    /// Masks.
    pub masks: usize,
    /// Detectors.
    pub detectors: usize,
    /// Identities.
    pub identities: usize,
    /// Approver groups.
    pub approver_groups: usize,
    /// Grants.
    pub grants: usize,
    /// Bypasses.
    pub bypasses: usize,
}

/// What a tool needs to know of a rule.
#[derive(Debug, Clone, Copy)]
pub struct RuleSummary<'a> {
    /// Which one.
    pub reference: &'a Arc<RuleReference>,
    /// Its priority.
    pub priority: i16,
    /// The word of its outcome; `None` if it only asks for something.
    pub outcome: Option<&'static str>,
    /// It asks for something beside its outcome.
    pub obliges: bool,
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
    /// The key files of masks, and what may be known of each key.
    pub mask_keys: Vec<(String, String)>,
    /// The files' names and texts, by name: what goes on record.
    pub files: Vec<(String, String)>,
    /// Who measures decisions; nobody after loading.
    pub observer: Option<Arc<dyn Observer>>,
    /// Who is behind the users of the gateway host.
    pub people: Arc<People>,
    /// How many documents it is made of.
    pub counts: Counts,
    /// By name.
    identities: Vec<identity_document::Identity>,
    /// Grants before bypasses, then by name.
    lifters: Vec<lift::Lifter>,
    /// By priority, then the strictest first, then by name: the first that matches decides.
    rules: Vec<decide::Rule>,
    /// By what they ask of a command.
    index: index::Index,
    /// No decision depends on when it is made: nothing looks at the time, and nothing is over one day.
    is_timeless: bool,
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

    /// The rules, in the order in which they are asked.
    pub fn rules(&self) -> impl Iterator<Item = RuleSummary<'_>> {
        self.rules.iter().map(|rule| RuleSummary {
            reference: &rule.reference,
            priority: rule.priority,
            outcome: rule.outcome(),
            obliges: rule.obligations.is_some(),
        })
    }

    /// Some grant names the rule, whoever it is for.
    fn is_granted(&self, rule: &str) -> bool {
        let liftable = lift::Liftable {
            rule: Some(rule),
            holds: false,
        };
        self.lifters.iter().any(|lifter| lifter.names(liftable))
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

/// As [`load`], for those who write policy: with what is right and yet hardly meant, by file and line.
/// `tests` is taken as [`load_with_tests`] takes it.
///
/// It holds each rule against each other one, so it is not for a gateway.
pub fn check(
    sources: &[Source<'_>],
    tests: &[Source<'_>],
    hash_key: &HashKey,
    now_unix_ns: u64,
) -> Result<(Snapshot, Vec<PolicyError>), PolicyErrors> {
    let (snapshot, _, notes) = load::load_noting(sources, tests, hash_key, lint::Notes::of)?;
    let mut warnings = notes.warnings(&snapshot, now_unix_ns);
    // Tests have a time of their own.
    warnings.retain(|warning| {
        let is_of_now = matches!(
            warning.problem,
            Problem::Warning(Warning::GrantOver { .. } | Warning::GrantNotYet { .. })
        );
        !(is_of_now && tests.iter().any(|test| test.file == warning.file))
    });
    Ok((snapshot, warnings))
}
