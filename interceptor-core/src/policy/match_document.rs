//! The mapping `match`, which rules, grants and bypasses share.
//!
//! It owns its keys. How each of them meets a command is [`super::condition`]'s.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;

use regex::RegexBuilder;

use super::condition::{Condition, Conditions, ProcessConditions};
use super::expression::Expression;
use super::name::ColumnPattern;
use super::problem::Problem;
use super::read::{Fields, Reader};
use super::reference::{Reference, Referent};
use super::times::{self, Days, Window};
use super::yaml::Node;
use super::{EXPRESSION_BYTES_MAX, REGEX_BYTES_MAX, REGEX_DEPTH_MAX};
use crate::command::{KINDS, MASKED_USES};

pub(super) const MATCH_KEYS: [&str; 21] = [
    "targets",
    "persons",
    "groups",
    "process",
    "users",
    "databases",
    "clientNetworks",
    "statements",
    "tables",
    "reads",
    "writes",
    "functions",
    "columnsRead",
    "columnsWritten",
    "noWhere",
    "maskedUses",
    "incomplete",
    "estimatedRows",
    "times",
    "text",
    "when",
];
pub(super) const PROCESS_KEYS: [&str; 5] =
    ["uids", "executables", "cgroups", "containers", "units"];
pub(super) const ESTIMATED_ROWS_KEYS: [&str; 1] = ["over"];
pub(super) const TIMES_KEYS: [&str; 4] = ["days", "from", "to", "zone"];

/// A `match` as its document says, before others are looked at.
#[derive(Default)]
pub(super) struct MatchDocument {
    pub(super) conditions: Conditions,
    /// The targets, persons and groups that it names.
    pub(super) references: Vec<Reference>,
}

impl MatchDocument {
    /// Whether a key is given.
    pub(super) fn has(&self, key: &str) -> bool {
        self.conditions
            .0
            .iter()
            .any(|condition| condition.key() == key)
    }

    /// Whether a key is given and says which clients: `process: {}` is every local process.
    pub(super) fn tells_apart(&self, key: &str) -> bool {
        self.conditions.0.iter().any(|condition| {
            let is_any = matches!(condition, Condition::Process(process) if process.is_empty());
            condition.key() == key && !is_any
        })
    }
}

/// `permits` says that the document allows something: then the name of a statement kind is only that
/// kind.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, permits: bool) -> Option<MatchDocument> {
    let fields = reader.fields(node, "`match`", MATCH_KEYS)?;
    let mut references = Vec::new();
    let mut named = |reader: &mut Reader<'_>, key: &'static str, referent: Referent| {
        let names = reader.references(fields.optional(key), referent)?;
        let patterns = names.iter().map(Reference::pattern).collect();
        references.extend(names);
        Some(patterns)
    };
    let targets = named(reader, "targets", Referent::Target);
    let persons = named(reader, "persons", Referent::Person);
    let groups = named(reader, "groups", Referent::Group);
    let truth = |reader: &mut Reader<'_>, key| fields.optional(key).and_then(|at| reader.truth(at));
    let statements = reader.list(fields.optional("statements"), |reader, node| {
        statement_kinds(reader, node, permits)
    });
    // The cheap ones first, as the first that is not met ends the look at a document.
    let conditions = [
        targets.map(Condition::Targets),
        statements.map(|kinds| Condition::Statements(kinds.concat())),
        reader.names(fields.optional("users")).map(Condition::Users),
        reader
            .names(fields.optional("databases"))
            .map(Condition::Databases),
        truth(reader, "noWhere").map(Condition::NoWhere),
        reader
            .list(fields.optional("maskedUses"), masked_use)
            .map(Condition::MaskedUses),
        truth(reader, "incomplete").map(Condition::Incomplete),
        fields
            .optional("estimatedRows")
            .and_then(|node| estimated_rows(reader, node))
            .map(Condition::EstimatedRows),
        reader
            .list(fields.optional("clientNetworks"), Reader::network)
            .map(Condition::ClientNetworks),
        persons.map(Condition::Persons),
        groups.map(Condition::Groups),
        fields
            .optional("process")
            .and_then(|node| process(reader, node))
            .map(Condition::Process),
    ];
    let mut conditions: Vec<Condition> = conditions.into_iter().flatten().collect();
    conditions.extend(costly(reader, &fields).into_iter().flatten());
    Some(MatchDocument {
        conditions: Conditions(conditions.into()),
        references,
    })
}

/// One use of masked columns.
pub(super) fn masked_use(reader: &mut Reader<'_>, node: &Node) -> Option<&'static str> {
    reader.one_of(node, "use", MASKED_USES)
}

/// The conditions that cost more to look at.
fn costly<const N: usize>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, N>,
) -> [Option<Condition>; 9] {
    [
        reader
            .tables(fields.optional("tables"))
            .map(Condition::Tables),
        reader
            .tables(fields.optional("reads"))
            .map(Condition::Reads),
        reader
            .tables(fields.optional("writes"))
            .map(Condition::Writes),
        reader
            .functions(fields.optional("functions"))
            .map(Condition::Functions),
        reader
            .list(fields.optional("columnsRead"), column)
            .map(Condition::ColumnsRead),
        reader
            .list(fields.optional("columnsWritten"), column)
            .map(Condition::ColumnsWritten),
        reader
            .list(fields.optional("times"), window)
            .map(Condition::Times),
        fields
            .optional("text")
            .and_then(|node| text(reader, node))
            .map(|regex| Condition::Text(Box::new(regex))),
        fields
            .optional("when")
            .and_then(|node| expression(reader, node))
            .map(|expression| Condition::When(Box::new(expression))),
    ]
}

/// The kinds that a word or two stand for: that kind, and every kind that goes on from it
/// (`ALTER`, `SET` with `SET ROLE`). In what permits, the name of a kind is only that kind:
/// allowing `SET` must not allow `SET ROLE`.
fn statement_kinds(
    reader: &mut Reader<'_>,
    node: &Node,
    permits: bool,
) -> Option<Vec<&'static str>> {
    let text = reader.text(node)?;
    let word = text.to_ascii_uppercase();
    let goes_on = |kind: &str| {
        kind.strip_prefix(&word)
            .is_some_and(|rest| rest.starts_with(' '))
    };
    let exact = KINDS.contains(&word.as_str());
    let only_exact = exact && permits;
    let kinds: Vec<&'static str> = KINDS
        .iter()
        .copied()
        .filter(|kind| *kind == word || (!only_exact && goes_on(kind)))
        .collect();
    if kinds.is_empty() {
        let first_words = KINDS.iter().filter_map(|kind| kind.split(' ').next());
        let problem = Problem::UnknownValue {
            what: "statement kind",
            value: text.to_owned(),
        };
        let known = KINDS.iter().copied().chain(first_words);
        reader.report_unknown(node.span, &word, known, problem);
        return None;
    }
    Some(kinds)
}

pub(super) fn process(reader: &mut Reader<'_>, node: &Node) -> Option<ProcessConditions> {
    let fields = reader.fields(node, "`process`", PROCESS_KEYS)?;
    Some(ProcessConditions {
        uids: reader.list(fields.optional("uids"), uid),
        executables: reader.names(fields.optional("executables")),
        cgroups: reader.names(fields.optional("cgroups")),
        containers: reader.names(fields.optional("containers")),
        units: reader.names(fields.optional("units")),
    })
}

pub(super) fn uid(reader: &mut Reader<'_>, node: &Node) -> Option<u32> {
    let text = reader.text(node)?;
    let uid = text.parse().ok();
    if uid.is_none() {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadUid { value });
    }
    uid
}

/// `table.column` or `schema.table.column`.
pub(super) fn column(reader: &mut Reader<'_>, node: &Node) -> Option<ColumnPattern> {
    let text = reader.text(node)?;
    let column = ColumnPattern::parse(text);
    if column.is_none() {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadColumn { value });
    }
    column
}

fn estimated_rows(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let within = "`estimatedRows`";
    let fields = reader.fields(node, within, ESTIMATED_ROWS_KEYS)?;
    let over = reader.required(&fields, "over", within, node.span)?;
    reader.number(over, 0..=u64::MAX)
}

fn window(reader: &mut Reader<'_>, node: &Node) -> Option<Window> {
    let within = "an entry of `times`";
    let fields = reader.fields(node, within, TIMES_KEYS)?;
    let days = match fields.optional("days") {
        Some(list) => reader
            .list(Some(list), days)
            .and_then(|days| days.into_iter().reduce(Days::and)),
        None => Some(Days::ALL),
    };
    let from = fields
        .optional("from")
        .map_or(Some(0), |node| minute(reader, node));
    let to = fields
        .optional("to")
        .map_or(Some(24 * 60), |node| minute(reader, node));
    let zone = reader.required(&fields, "zone", within, node.span);
    let zone = zone.and_then(|node| {
        let name = reader.text(node)?;
        let zone = times::zone(name);
        if zone.is_none() {
            let zones = times::zones();
            let known = zones.iter().map(alloc::string::String::as_str);
            let value = name.to_owned();
            reader.report_unknown(node.span, name, known, Problem::UnknownZone { value });
        }
        zone
    });
    let (days, from, to, zone) = (days?, from?, to?, zone?);
    Some(Window {
        days,
        from,
        to,
        zone,
    })
}

fn days(reader: &mut Reader<'_>, node: &Node) -> Option<Days> {
    let text = reader.text(node)?;
    let days = Days::parse(text);
    if days.is_none() {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadDays { value });
    }
    days
}

fn minute(reader: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let text = reader.text(node)?;
    let minute = times::parse_minute(text);
    if minute.is_none() {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadTimeOfDay { value });
    }
    minute
}

fn text(reader: &mut Reader<'_>, node: &Node) -> Option<regex::Regex> {
    let text = reader.text(node)?;
    reader.count_regex(node)?;
    let regex = RegexBuilder::new(text)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build();
    reader.regex(node, regex)
}

/// A CEL expression, which may go over several lines.
pub(super) fn expression(reader: &mut Reader<'_>, node: &Node) -> Option<Expression> {
    let text = reader.lines(node, EXPRESSION_BYTES_MAX)?;
    // Each of its patterns takes as much memory as any other regular expression.
    for _ in text.matches("matches") {
        reader.count_regex(node)?;
    }
    match Expression::compile(text) {
        Ok(expression) => Some(expression),
        Err(error) => {
            let span = reader.place_in(node, error.offset);
            let message = error.message;
            reader.report(span, Problem::BadExpression { message });
            None
        }
    }
}
