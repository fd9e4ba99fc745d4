//! A decision beside the one that a test expects.
//!
//! It owns the comparison and its words. It must not know where tests come from, nor how a text
//! becomes facts.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::test_document::{Given, Test, TestCommand, connect_facts};
use super::{Decision, Input, Limits, OnTimeout, Outcome, Protocol, RuleReference, Snapshot, View};
use crate::command::{Facts, Subject};
use crate::mask::{Masks, Method, TextMask};
use crate::written;

/// The port that a test's client has.
const CLIENT_PORT: u16 = 50_000;

/// What became of a test.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// What is not as expected; empty for a test that passed.
    pub differences: Vec<Difference>,
    /// The documents that had a say: the rule that decided, what lifted one, and who binds it.
    pub spoke: Vec<Arc<RuleReference>>,
}

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key of `expect`.
    pub key: String,
    /// What the test says.
    pub expected: String,
    /// What is.
    pub got: String,
}

impl Test {
    /// The client.
    pub fn subject(&self, protocol: Protocol) -> Subject {
        // Who logs in to what is not seen in a connection that passes through.
        let seen = |name: &str| match protocol {
            Protocol::Postgres => name.to_owned(),
            Protocol::Tcp => String::new(),
        };
        Subject {
            client: SocketAddr::new(self.given.client, CLIENT_PORT),
            process: self.given.process.clone(),
            user: seen(&self.given.user),
            database: seen(&self.given.database),
        }
    }

    /// Decides on the test's command. `facts` is asked for what a text does. `None` if the snapshot has
    /// no such target; the error is that of `facts`.
    pub fn run<E>(
        &self,
        snapshot: &Arc<Snapshot>,
        facts: impl FnOnce(&View, &str, &Given) -> Result<Facts, E>,
    ) -> Option<Result<Verdict, E>> {
        let target = snapshot.target(&self.given.target)?;
        let subject = self.subject(target.protocol);
        let view = View::new(Arc::clone(snapshot), &self.given.target, subject)?;
        let (facts, text) = match &self.command {
            TestCommand::Statement(text) => (facts(&view, text, &self.given), text.as_str()),
            TestCommand::Facts(facts) => (Ok(facts.clone()), ""),
            TestCommand::Connect => (Ok(connect_facts()), ""),
        };
        let mut facts = match facts {
            Ok(facts) => facts,
            Err(error) => return Some(Err(error)),
        };
        facts.estimated_rows = self.given.estimated_rows;
        let decision = view.decide(&Input {
            facts: &facts,
            text,
            now_unix_ns: self.given.at_unix_ns,
        });
        let differences = Comparison::of(self, &view, &decision);
        let spoke = spoke(&decision);
        Some(Ok(Verdict {
            decision,
            differences,
            spoke,
        }))
    }
}

fn spoke(decision: &Decision) -> Vec<Arc<RuleReference>> {
    let lift = decision.lift.as_ref().map(|lift| &lift.by);
    let bound = decision.obligations.as_ref();
    let bound = bound.map(|obligations| obligations.rules.iter());
    let documents = decision.rule.iter().chain(lift);
    documents
        .chain(bound.into_iter().flatten())
        .cloned()
        .collect()
}

struct Comparison(Vec<Difference>);

impl Comparison {
    fn of(test: &Test, view: &View, decision: &Decision) -> Vec<Difference> {
        let mut comparison = Self(Vec::new());
        comparison.outcome(test, decision);
        comparison.who(test, view);
        comparison.hold(test, decision);
        comparison.obligations(test, decision);
        let obligations = decision.obligations.as_ref();
        let masks = obligations.and_then(|obligations| obligations.masks.as_ref());
        comparison.masks(test, masks.unwrap_or(&view.target().masks));
        comparison.0
    }

    fn check(&mut self, key: &str, expected: Option<String>, got: impl FnOnce() -> String) {
        let Some(expected) = expected else { return };
        let got = got();
        if expected != got {
            let key = key.to_owned();
            self.0.push(Difference { key, expected, got });
        }
    }

    fn outcome(&mut self, test: &Test, decision: &Decision) {
        let expect = &test.expect;
        self.check("outcome", Some(expect.outcome.to_owned()), || {
            decision.outcome.word().to_owned()
        });
        let rule = decision.rule.as_ref().map(|rule| rule.name.clone());
        self.check("rule", expect.rule.clone(), || or_none(rule));
        if let Some(part) = &expect.reason
            && !decision.reason.contains(part.as_str())
        {
            self.0.push(Difference {
                key: "reason".to_owned(),
                expected: format!("…{part}…"),
                got: decision.reason.to_string(),
            });
        }
        let lift = decision.lift.as_ref().map(|lift| lift.by.name.clone());
        self.check("liftedBy", expect.lifted_by.clone(), || or_none(lift));
    }

    fn who(&mut self, test: &Test, view: &View) {
        let who = view.who();
        let person = test.expect.person.clone();
        self.check("person", person, || who.to_string());
        let groups = test.expect.groups.as_ref().map(|list| sorted(list));
        self.check("groups", groups, || sorted(&who.groups));
    }

    fn hold(&mut self, test: &Test, decision: &Decision) {
        let plan = match &decision.outcome {
            Outcome::Hold(plan) => Some(plan),
            _ => None,
        };
        let of_plan = |text: Option<String>| text.unwrap_or_else(|| "no hold".to_owned());
        let expect = &test.expect;
        let timeout = expect.timeout.map(in_words);
        self.check("timeout", timeout, || {
            of_plan(plan.map(|plan| in_words(plan.timeout)))
        });
        let approvers = expect.approvers.as_ref().map(|list| sorted(list));
        self.check("approvers", approvers, || {
            of_plan(plan.map(|plan| match plan.required() {
                required if required.is_empty() => "anybody".to_owned(),
                required => sorted(&required),
            }))
        });
        let on_timeout = expect.on_timeout.map(ToOwned::to_owned);
        self.check("onTimeout", on_timeout, || {
            let word = plan.map(|plan| match &plan.on_timeout {
                OnTimeout::Deny => "deny",
                OnTimeout::Escalate(_) => "escalate",
                OnTimeout::Automatic(_) => "automatic",
            });
            of_plan(word.map(ToOwned::to_owned))
        });
    }

    fn obligations(&mut self, test: &Test, decision: &Decision) {
        let obligations = decision.obligations.as_deref();
        let limits = obligations.map(|obligations| &obligations.limits);
        for (key, expected) in &test.expect.limits {
            let expected = canonical(key, expected);
            self.check(&format!("limits.{key}"), Some(expected), || {
                limits
                    .and_then(|limits| limit(limits, key))
                    .unwrap_or_else(|| "none".to_owned())
            });
        }
        let read_only = test.expect.read_only.map(|it| it.to_string());
        self.check("readOnly", read_only, || {
            let bound = obligations.is_some_and(|obligations| obligations.read_only);
            bound.to_string()
        });
        let notify = test.expect.notify.as_ref().map(|list| sorted(list));
        self.check("notify", notify, || {
            let notify = obligations.map(|obligations| &obligations.notify);
            let groups = notify.into_iter().flatten();
            let groups: Vec<Arc<str>> = groups.flat_map(|(_, groups)| groups.clone()).collect();
            sorted(&groups)
        });
    }

    fn masks(&mut self, test: &Test, masks: &Masks) {
        for (column, method) in &test.expect.masks {
            let got = written::column(column).and_then(|column| {
                let relation = column.relation?;
                let (schema, name) = (relation.schema.as_deref(), column.name?);
                masks.method(schema, &relation.name, &name)
            });
            let expected = Some(method_name(*method).to_owned());
            self.check(&format!("masks.{column}"), expected, || {
                method_name(got).to_owned()
            });
        }
        for (text, shown) in &test.expect.shown {
            self.check(&format!("shown.{text}"), Some(shown.clone()), || {
                let mut out = Vec::new();
                match masks.mask_text(text.as_bytes(), &mut out) {
                    TextMask::Clean => text.clone(),
                    TextMask::Rewritten { .. } => String::from_utf8_lossy(&out).into_owned(),
                    TextMask::Null { .. } => "null".to_owned(),
                }
            });
        }
    }
}

fn or_none(name: Option<String>) -> String {
    name.unwrap_or_else(|| "none".to_owned())
}

/// Without repeats, in an order that does not depend on files.
fn sorted<T: AsRef<str>>(list: &[T]) -> String {
    let mut list: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
    list.sort_unstable();
    list.dedup();
    match list.is_empty() {
        true => "none".to_owned(),
        false => list.join(", "),
    }
}

fn method_name(method: Option<Method>) -> &'static str {
    method.map_or("none", Method::name)
}

fn limit(limits: &Limits, key: &str) -> Option<String> {
    match key {
        "rows" => limits.rows.as_ref().map(|limit| limit.at.to_string()),
        "bytes" => limits.bytes.as_ref().map(|limit| limit.at.to_string()),
        "duration" => limits.duration.as_ref().map(|limit| in_words(limit.at)),
        _ => {
            let rates = limits.rates.iter();
            let words = |per: Duration| match per.as_secs() {
                1 => "s".to_owned(),
                60 => "m".to_owned(),
                3600 => "h".to_owned(),
                seconds => format!("{seconds}s"),
            };
            let rates = rates.map(|limit| format!("{}/{}", limit.at.count, words(limit.at.per)));
            let rates: Vec<String> = rates.collect();
            (!rates.is_empty()).then(|| sorted(&rates))
        }
    }
}

/// A limit of a test in the form that [`limit`] gives.
fn canonical(key: &str, written: &str) -> String {
    let canonical = match key {
        "bytes" => parse_bytes(written).map(|bytes| bytes.to_string()),
        "duration" => super::read::parse_duration(written).map(in_words),
        _ => None,
    };
    canonical.unwrap_or_else(|| written.to_owned())
}

fn parse_bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let (number, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    number.trim_end().parse::<u64>().ok()?.checked_shl(shift)
}

/// The greatest unit that gives a whole number, as policy files have it.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => "0s".to_owned(),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
