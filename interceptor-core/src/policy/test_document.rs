//! Documents of kind Test: a client, a command, and the decision that is expected.
//!
//! It owns their keys. It must not know how a decision is made, nor how a text becomes facts;
//! [`super::test_verdict`] compares.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use saphyr_parser::Span;

use super::match_document::masked_use;
use super::problem::Problem;
use super::read::{Fields, Reader, parse_duration};
use super::yaml::{Node, Value};
use super::{Protocol, RuleReference};
use crate::command::{CONNECT, Facts, KINDS, Process};
use crate::mask::Method;
use crate::written;

/// The user that logs in where a test names none.
pub const TEST_USER: &str = "app";
/// The database where a test names none.
pub const TEST_DATABASE: &str = "shop";
/// The client's address where a test names none: one for documentation, no network's own.
pub const TEST_CLIENT: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(203, 0, 113, 7));
/// The time of day where a test names none: Monday, 2026-01-05T12:00:00Z.
pub const TEST_AT_UNIX_NS: u64 = 1_767_614_400_000_000_000;

pub(super) const TEST_KEYS: [&str; 5] = ["given", "statement", "facts", "connect", "expect"];
pub(super) const GIVEN_KEYS: [&str; 7] = [
    "target",
    "user",
    "database",
    "client",
    "process",
    "at",
    "estimatedRows",
];
pub(super) const TEST_PROCESS_KEYS: [&str; 9] = [
    "uid",
    "gid",
    "pid",
    "comm",
    "executable",
    "cgroup",
    "container",
    "unit",
    "commandLine",
];
pub(super) const FACTS_KEYS: [&str; 9] = [
    "kinds",
    "reads",
    "writes",
    "functions",
    "columnsRead",
    "columnsWritten",
    "noWhere",
    "maskedUses",
    "incomplete",
];
pub(super) const EXPECT_KEYS: [&str; 14] = [
    "outcome",
    "rule",
    "reason",
    "person",
    "groups",
    "timeout",
    "approvers",
    "onTimeout",
    "liftedBy",
    "limits",
    "readOnly",
    "masks",
    "shown",
    "notify",
];
pub(super) const EXPECTED_LIMITS_KEYS: [&str; 4] = ["rows", "bytes", "duration", "rate"];

/// A command, who sends it, and what is to become of it.
#[derive(Debug, Clone)]
pub struct Test {
    /// Its name and place.
    pub reference: RuleReference,
    /// Who sends it, to what and when.
    pub given: Given,
    /// What is sent.
    pub command: TestCommand,
    /// What is to become of it.
    pub expect: Expected,
}

/// Who sends a test's command, to what and when.
#[derive(Debug, Clone)]
pub struct Given {
    /// The target's name.
    pub target: String,
    /// The target's user.
    pub user: String,
    /// The target's database.
    pub database: String,
    /// The client's address.
    pub client: IpAddr,
    /// The local process; `None` for a client on another machine.
    pub process: Option<Process>,
    /// The time of day, in nanoseconds since the Unix epoch.
    pub at_unix_ns: u64,
    /// What the server's statistics say.
    pub estimated_rows: Option<u64>,
}

/// What a test sends.
#[derive(Debug, Clone)]
pub enum TestCommand {
    /// A text, for the gateway's own analysis.
    Statement(String),
    /// What an analysis would find.
    Facts(Facts),
    /// A connection to a target that is not understood.
    Connect,
}

/// What is expected of a decision. `None` is not looked at.
#[derive(Debug, Clone)]
pub struct Expected {
    /// `allow`, `hold`, `deny` or `terminate`.
    pub outcome: &'static str,
    /// The rule that decides; `none` for the target's default.
    pub rule: Option<String>,
    /// What the reason holds.
    pub reason: Option<String>,
    /// The person; `unknown` for none.
    pub person: Option<String>,
    /// The person's groups, in any order.
    pub groups: Option<Vec<String>>,
    /// How long a hold waits.
    pub timeout: Option<Duration>,
    /// Who has to approve, as in `2 of dba`, in any order; `anybody` where no group is asked for.
    pub approvers: Option<Vec<String>>,
    /// `deny`, `escalate` or `automatic`.
    pub on_timeout: Option<&'static str>,
    /// The Grant or Bypass that lifts a rule; `none` for none.
    pub lifted_by: Option<String>,
    /// Limits, each as a policy file writes it.
    pub limits: Vec<(&'static str, String)>,
    /// It must not write.
    pub read_only: Option<bool>,
    /// Columns with the method that hides them; `None` for one that may be seen.
    pub masks: Vec<(String, Option<Method>)>,
    /// Texts with what the client sees in their place.
    pub shown: Vec<(String, String)>,
    /// Groups that should know, in any order.
    pub notify: Option<Vec<String>>,
}

/// A test as its document says, with the places that later errors point at.
pub(super) struct TestDocument {
    pub(super) given: Given,
    pub(super) target_place: Span,
    pub(super) command: TestCommand,
    pub(super) command_place: Span,
    pub(super) expect: Expected,
}

impl TestDocument {
    /// What it sends cannot be sent to a target of that protocol.
    pub(super) fn misfit(&self, protocol: Protocol) -> Option<Problem> {
        let (written, right) = match (&self.command, protocol) {
            (TestCommand::Statement(_), Protocol::Tcp) => ("statement", "connect: true"),
            (TestCommand::Connect, Protocol::Postgres) => ("connect", "statement"),
            _ => return None,
        };
        let protocol = protocol.name();
        Some(Problem::TestMisfit {
            written,
            protocol,
            right,
        })
    }
}

pub(super) fn read(reader: &mut Reader<'_>, spec: &Node, place: Span) -> Option<TestDocument> {
    let within = "a Test's spec";
    let keys = TEST_KEYS;
    let fields = reader.fields(spec, within, keys)?;
    let given = reader.required(&fields, "given", within, place);
    let given = given.and_then(|node| self::given(reader, node));
    let command = command(reader, &fields, place);
    let expect = reader.required(&fields, "expect", within, place);
    let expect = expect.and_then(|node| expected(reader, node));
    let ((given, target_place), (command, command_place)) = (given?, command?);
    Some(TestDocument {
        given,
        target_place,
        command,
        command_place,
        expect: expect?,
    })
}

fn given(reader: &mut Reader<'_>, node: &Node) -> Option<(Given, Span)> {
    let within = "`given`";
    let keys = GIVEN_KEYS;
    let fields = reader.fields(node, within, keys)?;
    let target = reader.required(&fields, "target", within, node.span);
    let name = target.and_then(|node| reader.text(node));
    let user = text_or(reader, fields.optional("user"), TEST_USER);
    let database = text_or(reader, fields.optional("database"), TEST_DATABASE);
    let client = or(fields.optional("client"), TEST_CLIENT, |node| {
        let parsed = |text: &str| text.parse().ok();
        parse(reader, node, parsed, |value| Problem::BadAddress { value })
    });
    let process = or(fields.optional("process"), None, |node| {
        process(reader, node).map(Some)
    });
    let at_unix_ns = or(fields.optional("at"), TEST_AT_UNIX_NS, |node| {
        parse(reader, node, parse_time, |value| Problem::BadTime { value })
    });
    let estimated_rows = or(fields.optional("estimatedRows"), None, |node| {
        number(reader, node).map(Some)
    });
    let given = Given {
        target: name?.to_owned(),
        user: user?,
        database: database?,
        client: client?,
        process: process?,
        at_unix_ns: at_unix_ns?,
        estimated_rows: estimated_rows?,
    };
    Some((given, target?.span))
}

/// A time in RFC 3339, in nanoseconds since the Unix epoch.
fn parse_time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

fn process(reader: &mut Reader<'_>, node: &Node) -> Option<Process> {
    let keys = TEST_PROCESS_KEYS;
    let fields = reader.fields(node, "`process`", keys)?;
    let mut id = |key| {
        or(fields.optional(key), 0, |node| {
            let parsed = |text: &str| text.parse().ok();
            parse(reader, node, parsed, |value| Problem::BadUid { value })
        })
    };
    let (uid, gid, pid) = (id("uid"), id("gid"), id("pid"));
    let mut text = |key| match fields.optional(key) {
        Some(node) => reader.text(node).map(|text| Some(text.to_owned())),
        None => Some(None),
    };
    let (comm, executable, cgroup) = (text("comm"), text("executable"), text("cgroup"));
    let (container, unit) = (text("container"), text("unit"));
    let command_line = text("commandLine");
    Some(Process {
        uid: uid?,
        gid: gid?,
        pid: pid?,
        comm: comm?.unwrap_or_default(),
        executable: executable?,
        cgroup: cgroup?,
        container: container?,
        unit: unit?,
        command_line: command_line?,
        is_own_netns: true,
        ..Process::default()
    })
}

/// Exactly one of the three ways to say what is sent.
fn command<const N: usize>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, N>,
    place: Span,
) -> Option<(TestCommand, Span)> {
    let [statement, facts, connect] =
        ["statement", "facts", "connect"].map(|key| fields.optional(key));
    let (command, node) = match (statement, facts, connect) {
        (Some(node), None, None) => (self::statement(reader, node), node),
        (None, Some(node), None) => (self::facts(reader, node).map(TestCommand::Facts), node),
        (None, None, Some(node)) => {
            let connects = reader.truth(node);
            if connects == Some(false) {
                let (expected, found) = ("`true`", "`false`");
                reader.report(node.span, Problem::WrongType { expected, found });
            }
            (
                connects.filter(|it| *it).map(|_| TestCommand::Connect),
                node,
            )
        }
        _ => {
            reader.report(place, Problem::TestCommands);
            return None;
        }
    };
    Some((command?, node.span))
}

/// A statement's text may go over several lines.
fn statement(reader: &mut Reader<'_>, node: &Node) -> Option<TestCommand> {
    match &node.value {
        Value::Scalar { text, .. } => Some(TestCommand::Statement(text.clone())),
        _ => {
            let (expected, found) = ("a text", node.value.describe());
            reader.report(node.span, Problem::WrongType { expected, found });
            None
        }
    }
}

fn facts(reader: &mut Reader<'_>, node: &Node) -> Option<Facts> {
    let keys = FACTS_KEYS;
    let fields = reader.fields(node, "`facts`", keys)?;
    let kinds = reader.required(&fields, "kinds", "`facts`", node.span);
    let kinds = reader.list(kinds, statement_kind);
    let relation = |value| Problem::BadTable { value };
    let column = |value| Problem::BadColumn { value };
    let reads = entries(
        reader,
        fields.optional("reads"),
        written::relation,
        relation,
    );
    let writes = entries(
        reader,
        fields.optional("writes"),
        written::relation,
        relation,
    );
    let [read, written] = ["columnsRead", "columnsWritten"].map(|key| fields.optional(key));
    let columns_read = entries(reader, read, written::column, column);
    let columns_written = entries(reader, written, written::column, column);
    let functions = or(fields.optional("functions"), Vec::new(), |node| {
        texts(reader, node)
    });
    let unfiltered = or(fields.optional("noWhere"), false, |node| reader.truth(node));
    let masked_uses = or(fields.optional("maskedUses"), Vec::new(), |node| {
        reader.list(Some(node), masked_use)
    });
    let incomplete = or(fields.optional("incomplete"), false, |node| {
        reader.truth(node)
    });
    Some(Facts {
        kinds: kinds?,
        reads: reads?,
        writes: writes?,
        columns_read: columns_read?,
        columns_written: columns_written?,
        functions: functions?,
        unfiltered: unfiltered?,
        masked_uses: masked_uses?,
        locks: false,
        foreign_code: false,
        unknown_calls: false,
        estimated_rows: None,
        incomplete: incomplete?.then_some("the test says so"),
    })
}

/// A kind as the record has it; here no word stands for several.
fn statement_kind(reader: &mut Reader<'_>, node: &Node) -> Option<&'static str> {
    let text = reader.text(node)?;
    let kind = written::kind(text);
    if kind.is_none() {
        let problem = Problem::UnknownValue {
            what: "statement kind",
            value: text.to_owned(),
        };
        reader.report_unknown(node.span, text, KINDS.iter().copied(), problem);
    }
    kind
}

const OUTCOMES: &[(&str, &str)] = &[
    ("allow", "allow"),
    ("hold", "hold"),
    ("deny", "deny"),
    ("terminate", "terminate"),
];

const ON_TIMEOUT: &[(&str, &str)] = &[
    ("deny", "deny"),
    ("escalate", "escalate"),
    ("automatic", "automatic"),
];

fn expected(reader: &mut Reader<'_>, node: &Node) -> Option<Expected> {
    let within = "`expect`";
    let keys = EXPECT_KEYS;
    let fields = reader.fields(node, within, keys)?;
    let outcome = reader.required(&fields, "outcome", within, node.span);
    let outcome = outcome.and_then(|node| reader.one_of(node, "outcome", OUTCOMES));
    let on_timeout = given_or_none(fields.optional("onTimeout"), |node| {
        reader.one_of(node, "end of a hold", ON_TIMEOUT)
    });
    let mut text = |key| {
        given_or_none(fields.optional(key), |node| {
            reader.text(node).map(ToOwned::to_owned)
        })
    };
    let (rule, reason, person) = (text("rule"), text("reason"), text("person"));
    let lifted_by = text("liftedBy");
    let mut list = |key| given_or_none(fields.optional(key), |node| texts(reader, node));
    let (groups, approvers, notify) = (list("groups"), list("approvers"), list("notify"));
    let timeout = given_or_none(fields.optional("timeout"), |node| {
        let problem = |value| Problem::BadDuration { value };
        parse(reader, node, parse_duration, problem)
    });
    let limits = or(fields.optional("limits"), Vec::new(), |node| {
        limits(reader, node)
    });
    let read_only = given_or_none(fields.optional("readOnly"), |node| reader.truth(node));
    let masks = or(fields.optional("masks"), Vec::new(), |node| {
        masks(reader, node)
    });
    let shown = or(fields.optional("shown"), Vec::new(), |node| {
        shown(reader, node)
    });
    Some(Expected {
        outcome: outcome?,
        rule: rule?,
        reason: reason?,
        person: person?,
        groups: groups?,
        timeout: timeout?,
        approvers: approvers?,
        on_timeout: on_timeout?,
        lifted_by: lifted_by?,
        limits: limits?,
        read_only: read_only?,
        masks: masks?,
        shown: shown?,
        notify: notify?,
    })
}

fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(&'static str, String)>> {
    let keys = EXPECTED_LIMITS_KEYS;
    let fields = reader.fields(node, "`limits`", keys)?;
    let given = keys
        .into_iter()
        .filter_map(|key| Some((key, fields.optional(key)?)));
    let given: Vec<(&'static str, &Node)> = given.collect();
    let read = given.into_iter().map(|(key, node)| {
        let text = reader.text(node)?;
        Some((key, text.to_owned()))
    });
    read.collect()
}

fn masks(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(String, Option<Method>)>> {
    let methods: Vec<(&str, Option<Method>)> = Method::NAMES
        .iter()
        .map(|(name, method)| (*name, Some(*method)))
        .chain([("none", None)])
        .collect();
    pairs(reader, node, |reader, column, node| {
        if written::column(column).is_none_or(|column| column.relation.is_none()) {
            let value = column.to_owned();
            reader.report(node.span, Problem::BadColumn { value });
            return None;
        }
        reader.one_of(node, "method", &methods)
    })
}

fn shown(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(String, String)>> {
    pairs(reader, node, |reader, _, node| {
        reader.text(node).map(ToOwned::to_owned)
    })
}

/// A mapping whose keys are the writer's own.
fn pairs<T>(
    reader: &mut Reader<'_>,
    node: &Node,
    mut value: impl FnMut(&mut Reader<'_>, &str, &Node) -> Option<T>,
) -> Option<Vec<(String, T)>> {
    let Value::Mapping(entries) = &node.value else {
        let (expected, found) = ("a mapping", node.value.describe());
        reader.report(node.span, Problem::WrongType { expected, found });
        return None;
    };
    let read: Vec<Option<(String, T)>> = entries
        .iter()
        .map(|(key, node)| {
            let key = reader.text(key)?.to_owned();
            let value = value(reader, &key, node)?;
            Some((key, value))
        })
        .collect();
    read.into_iter().collect()
}

fn texts(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    reader.list(Some(node), |reader, node| {
        reader.text(node).map(ToOwned::to_owned)
    })
}

fn entries<T>(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    parsed: fn(&str) -> Option<T>,
    problem: fn(String) -> Problem,
) -> Option<Vec<T>> {
    or(node, Vec::new(), |node| {
        reader.list(Some(node), |reader, node| {
            parse(reader, node, parsed, problem)
        })
    })
}

fn number(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let parsed = |text: &str| text.parse().ok();
    parse(reader, node, parsed, |value| Problem::BadNumber { value })
}

fn parse<T>(
    reader: &mut Reader<'_>,
    node: &Node,
    parsed: impl Fn(&str) -> Option<T>,
    problem: fn(String) -> Problem,
) -> Option<T> {
    let text = reader.text(node)?;
    let value = parsed(text);
    if value.is_none() {
        reader.report(node.span, problem(text.to_owned()));
    }
    value
}

fn text_or(reader: &mut Reader<'_>, node: Option<&Node>, default: &str) -> Option<String> {
    or(node, default.to_owned(), |node| {
        reader.text(node).map(ToOwned::to_owned)
    })
}

/// The value read, or the default where the key is not given; `None` where it is wrong.
fn or<T>(node: Option<&Node>, default: T, read: impl FnOnce(&Node) -> Option<T>) -> Option<T> {
    match node {
        Some(node) => read(node),
        None => Some(default),
    }
}

/// Likewise for what is left out where it is not given.
fn given_or_none<T>(
    node: Option<&Node>,
    read: impl FnOnce(&Node) -> Option<T>,
) -> Option<Option<T>> {
    or(node, None, |node| read(node).map(Some))
}

/// What a connection to a target that is not understood does.
pub(super) fn connect_facts() -> Facts {
    Facts {
        kinds: alloc::vec![CONNECT],
        ..Facts::default()
    }
}
