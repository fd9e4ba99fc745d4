//! Documents of kind Grant and Bypass: what takes rules out.
//!
//! It owns their keys. Whether one applies to a command is [`super::lift`]'s.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use jiff::Timestamp;
use saphyr_parser::Span;

use super::match_document::{self, MatchDocument};
use super::problem::Problem;
use super::read::Reader;
use super::reference::{Reference, Referent};
use super::yaml::Node;
use super::{DEFAULT_RULE, GRANT_DAYS_MAX};

pub(super) const GRANT_KEYS: [&str; 6] = ["match", "from", "until", "lifts", "reason", "notify"];
pub(super) const BYPASS_KEYS: [&str; 2] = ["match", "lifts"];

const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// A grant or bypass as its document says, before others are looked at.
pub(super) struct GrantDocument {
    pub(super) conditions: MatchDocument,
    /// From when on, in nanoseconds since the Unix epoch.
    pub(super) from_unix_ns: u64,
    /// Until when; not at that moment any more.
    pub(super) until_unix_ns: u64,
    /// Patterns of rule names; `None` for a bypass of every hold.
    pub(super) lifts: Option<Vec<Reference>>,
    /// The target's own action is lifted, too.
    pub(super) lifts_default: bool,
    /// Names of approver groups.
    pub(super) notify: Vec<Reference>,
    /// Why it was given.
    pub(super) reason: Option<String>,
}

pub(super) fn read_grant(
    reader: &mut Reader<'_>,
    spec: &Node,
    place: Span,
) -> Option<GrantDocument> {
    let within = "a Grant's spec";
    let fields = reader.fields(spec, within, GRANT_KEYS)?;
    let conditions = reader.required(&fields, "match", within, place);
    let conditions = conditions.and_then(|node| {
        let conditions = match_document::read(reader, node, true)?;
        let keys = ["persons", "groups", "users", "process", "clientNetworks"];
        if !keys.iter().any(|key| conditions.tells_apart(key)) {
            reader.report(node.span, Problem::GrantToEverybody);
        }
        Some(conditions)
    });
    let from = match fields.optional("from") {
        Some(node) => moment(reader, node),
        None => Some(0),
    };
    let until = reader.required(&fields, "until", within, place);
    let until = until.and_then(|node| Some((moment(reader, node)?, node)));
    if let (Some(from), Some((until, node))) = (from, until) {
        if until <= from {
            reader.report(node.span, Problem::GrantEndsBefore);
        } else if fields.optional("from").is_some() && until - from > GRANT_DAYS_MAX * DAY_NS {
            reader.report(node.span, Problem::GrantTooLong);
        }
    }
    let lifts = reader.required(&fields, "lifts", within, place);
    let lifts = lifts.and_then(|node| lifts_of(reader, node));
    let reason = reader.required(&fields, "reason", within, place);
    let reason = reason.and_then(|node| reader.text(node)).map(str::to_owned);
    let notify = match fields.optional("notify") {
        Some(node) => reader.references(Some(node), Referent::ApproverGroup),
        None => Some(Vec::new()),
    };
    let (lifts, lifts_default) = lifts?;
    Some(GrantDocument {
        conditions: conditions?,
        from_unix_ns: from?,
        until_unix_ns: until?.0,
        lifts: Some(lifts),
        lifts_default,
        notify: notify?,
        reason: Some(reason?),
    })
}

pub(super) fn read_bypass(
    reader: &mut Reader<'_>,
    spec: &Node,
    place: Span,
) -> Option<GrantDocument> {
    let within = "a Bypass's spec";
    let fields = reader.fields(spec, within, BYPASS_KEYS)?;
    let conditions = reader.required(&fields, "match", within, place);
    let conditions = conditions.and_then(|node| {
        let conditions = match_document::read(reader, node, true)?;
        // Whoever has a password can be a user of the target: that is no identity.
        let keys = ["persons", "groups", "process", "clientNetworks"];
        if !keys.iter().any(|key| conditions.tells_apart(key)) {
            reader.report(node.span, Problem::BypassForEverybody);
        }
        Some(conditions)
    });
    let (lifts, lifts_default) = match fields.optional("lifts") {
        Some(node) => {
            let (lifts, lifts_default) = lifts_of(reader, node)?;
            (Some(lifts), lifts_default)
        }
        None => (None, true),
    };
    Some(GrantDocument {
        conditions: conditions?,
        from_unix_ns: 0,
        until_unix_ns: u64::MAX,
        lifts,
        lifts_default,
        notify: Vec::new(),
        reason: None,
    })
}

/// Names of rules, and `default` for what the target does by itself.
fn lifts_of(reader: &mut Reader<'_>, node: &Node) -> Option<(Vec<Reference>, bool)> {
    let mut lifts = reader.references(Some(node), Referent::Rule)?;
    let count = lifts.len();
    lifts.retain(|lift| lift.name != DEFAULT_RULE);
    let lifts_default = lifts.len() < count;
    Some((lifts, lifts_default))
}

/// A moment as RFC 3339 writes it, with its offset.
fn moment(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let text = reader.text(node)?;
    let moment: Option<Timestamp> = text.parse().ok();
    let moment = moment.and_then(|moment| u64::try_from(moment.as_nanosecond()).ok());
    if moment.is_none() {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadMoment { value });
    }
    moment
}
