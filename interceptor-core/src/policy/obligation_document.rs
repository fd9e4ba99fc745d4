//! What a rule asks for beside an outcome: `mask`, `limit`, `readOnly`, `notify`.
//!
//! It owns their keys. What comes of them is the session's business.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::problem::Problem;
use super::read::{Fields, Reader};
use super::reference::{Reference, Referent};
use super::yaml::Node;
use super::{LIMIT_DURATION_MAX, Limit, Limits, Obligations, RATE_MAX, Rate, RuleReference};

pub(super) const LIMIT_KEYS: [&str; 4] = ["rows", "bytes", "duration", "rate"];

/// The units of a limit on bytes.
const BYTE_UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];
/// The units of a rate, in seconds.
const RATE_UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// What stands in a rule's `then` beside the outcome.
#[derive(Debug, Default)]
pub(super) struct ObligationDocument {
    rows: Option<u64>,
    bytes: Option<u64>,
    duration: Option<Duration>,
    rate: Option<Rate>,
    read_only: bool,
    /// Names of masks.
    pub(super) masks: Vec<Reference>,
    /// Names of approver groups.
    pub(super) notify: Vec<Reference>,
}

impl ObligationDocument {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_none()
            && self.bytes.is_none()
            && self.duration.is_none()
            && self.rate.is_none()
            && !self.read_only
            && self.masks.is_empty()
            && self.notify.is_empty()
    }

    /// All of it but the masks, which differ by target.
    pub(super) fn compile(&self, rule: &Arc<RuleReference>) -> Obligations {
        fn limit<T>(at: T, rule: &Arc<RuleReference>) -> Limit<T> {
            let rule = Arc::clone(rule);
            Limit { at, rule }
        }
        let notify = names(&self.notify);
        Obligations {
            rules: [Arc::clone(rule)].into(),
            limits: Limits {
                rows: self.rows.map(|at| limit(at, rule)),
                bytes: self.bytes.map(|at| limit(at, rule)),
                duration: self.duration.map(|at| limit(at, rule)),
                rates: self.rate.map(|at| limit(at, rule)).into_iter().collect(),
            },
            read_only: self.read_only,
            masks: None,
            notify: match notify.is_empty() {
                true => Vec::new(),
                false => [(Arc::clone(rule), notify)].into(),
            },
        }
    }
}

/// The names of approver groups that should know.
pub(super) fn names(references: &[Reference]) -> Vec<Arc<str>> {
    let names = references.iter().map(|group| group.name.as_str().into());
    names.collect()
}

/// `None` if anything in it is wrong.
pub(super) fn read<const N: usize>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, N>,
) -> Option<ObligationDocument> {
    let mut document = ObligationDocument::default();
    let limit = fields
        .optional("limit")
        .map(|node| limit(reader, node, &mut document));
    let read_only = fields.optional("readOnly").map(|node| reader.truth(node));
    let masks = fields.optional("mask");
    let masks = masks.map(|node| reader.references(Some(node), Referent::Mask));
    let notify = fields.optional("notify");
    let notify = notify.map(|node| reader.references(Some(node), Referent::ApproverGroup));
    limit.unwrap_or(Some(()))?;
    document.read_only = read_only.unwrap_or(Some(false))?;
    document.masks = masks.unwrap_or(Some(Vec::new()))?;
    document.notify = notify.unwrap_or(Some(Vec::new()))?;
    Some(document)
}

fn limit(reader: &mut Reader<'_>, node: &Node, document: &mut ObligationDocument) -> Option<()> {
    let fields = reader.fields(node, "`limit`", LIMIT_KEYS)?;
    if LIMIT_KEYS.iter().all(|key| fields.optional(key).is_none()) {
        reader.report(node.span, Problem::EmptyLimit);
        return None;
    }
    let rows = fields
        .optional("rows")
        .map(|node| reader.number(node, 1..=u64::MAX));
    let bytes = fields.optional("bytes").map(|node| bytes(reader, node));
    let duration = fields
        .optional("duration")
        .map(|node| duration(reader, node));
    let rate = fields.optional("rate").map(|node| rate(reader, node));
    document.rows = rows.unwrap_or(None);
    document.bytes = bytes.unwrap_or(None);
    document.duration = duration.unwrap_or(None);
    document.rate = rate.unwrap_or(None);
    (rows != Some(None) && bytes != Some(None) && duration != Some(None) && rate != Some(None))
        .then_some(())
}

fn bytes(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let text = reader.text(node)?;
    let bytes = BYTE_UNITS
        .into_iter()
        .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))
        .and_then(|(number, unit)| digits(number)?.checked_mul(unit))
        .filter(|bytes| *bytes > 0);
    if bytes.is_none() {
        let value = text.to_owned();
        reader.report(node.span, Problem::BadBytes { value });
    }
    bytes
}

fn duration(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    let duration = reader.duration(node)?;
    if duration.is_zero() || duration > LIMIT_DURATION_MAX {
        reader.report(node.span, Problem::DurationOutOfRange);
        return None;
    }
    Some(duration)
}

/// `100/m`.
fn rate(reader: &mut Reader<'_>, node: &Node) -> Option<Rate> {
    let text = reader.text(node)?;
    let rate = text.split_once('/').and_then(|(count, unit)| {
        let (_, seconds) = RATE_UNITS.into_iter().find(|(known, _)| *known == unit)?;
        let count = u32::try_from(digits(count)?).ok()?;
        (1..=RATE_MAX).contains(&count).then(|| Rate {
            count,
            per: Duration::from_secs(seconds),
        })
    });
    if rate.is_none() {
        let value: String = text.to_owned();
        reader.report(node.span, Problem::BadRate { value });
    }
    rate
}

fn digits(text: &str) -> Option<u64> {
    let all = text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}
