//! What a decision binds a command to whatever the protocol: who is told, and how often it may come.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::{Now, Rates};
use crate::audit::event::{self, Kind};
use crate::command::Subject;
use crate::policy::{Decision, Outcome, Rate, RuleReference, Who};

/// Counts a command under every limit on rates that is on it. One too many is refused: the decision
/// says so from then on. Gives the limit that it met.
pub fn keep_rates(
    decision: &mut Decision,
    rates: &dyn Rates,
    who: &str,
    now: Now,
) -> Option<String> {
    let obligations = decision.obligations.as_ref()?;
    let limits = &obligations.limits.rates;
    if decision.outcome.refuses() || limits.is_empty() {
        return None;
    }
    let admitted =
        |rule: &RuleReference, rate| rates.admit(&rule.name, who, rate, now.monotonic_ns);
    let met = limits.iter().find(|limit| !admitted(&limit.rule, limit.at));
    let met = met.cloned()?;
    let text = rate_text(met.at);
    decision.outcome = Outcome::Deny;
    decision.reason = format!("its limit is {text}").into();
    decision.rule = Some(met.rule);
    Some(text)
}

/// Under which name a client's commands are counted: the person's, or else who it is for the target,
/// and from where. The two are never the same.
pub fn counted_as(who: Option<&Who>, subject: &Subject, target: &str) -> String {
    match who.and_then(|who| who.person.as_ref()) {
        Some(person) => format!("person {person}"),
        None => {
            let address = subject.client.ip().to_canonical();
            format!("user {}@{address} of {target}", subject.user)
        }
    }
}

/// What is recorded of a command beside itself: the limit that it met before it began, and who should
/// know of it.
pub fn notes(command: u64, decision: &Decision, reached: Option<&str>) -> Vec<Kind> {
    let mut notes = Vec::new();
    if let (Some(limit), Some(rule)) = (reached, &decision.rule) {
        notes.push(limit_reached(command, rule, limit));
    }
    let obligations = decision.obligations.iter();
    for (rule, groups) in obligations.flat_map(|they| &they.notify) {
        notes.push(Kind::Notification(event::Notification {
            command,
            rule: rule.name.clone(),
            groups: groups.iter().map(ToString::to_string).collect(),
        }));
    }
    notes
}

/// A command met a limit.
pub fn limit_reached(command: u64, rule: &RuleReference, limit: &str) -> Kind {
    Kind::LimitReached(event::LimitReached {
        command,
        rule: rule.name.clone(),
        limit: limit.to_string(),
    })
}

/// A limit on time as the client reads it.
pub fn duration_text(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) => format!("{seconds} s"),
        (0, milliseconds) => format!("{milliseconds} ms"),
        (seconds, milliseconds) => format!("{seconds}.{milliseconds:03} s"),
    }
}

fn rate_text(rate: Rate) -> String {
    let per = match rate.per.as_secs() {
        1 => String::from("a second"),
        60 => String::from("a minute"),
        3_600 => String::from("an hour"),
        seconds => format!("in {seconds} s"),
    };
    format!("{} commands {per}", rate.count)
}
