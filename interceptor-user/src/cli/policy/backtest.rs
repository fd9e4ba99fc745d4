//! `interceptor policy backtest`: what a policy would have said to the commands on record.

use std::io::{self, Write};
use std::time::Duration;

use interceptor_core::audit::chain::Record;
use interceptor_core::audit::render::Escaped;
use serde_json::{Value, json};

use super::super::output::{self, Progress};
use super::super::{CliError, audit};
use super::files::PolicyFiles;
use super::questions::BacktestArgs;
use super::replay::{Change, Changed, Replay, Said, Totals};
use crate::admin::client::AuditLine;
use crate::audit::json::{now_unix_ns, session, time};

/// Characters of an example's text in the table.
const TEXT_CHARS_MAX: usize = 60;

pub(super) fn run(arguments: &BacktestArgs, out: &mut impl Write) -> Result<(), CliError> {
    let source = &arguments.source;
    let files = PolicyFiles::of(arguments.policies.as_deref(), source)?;
    let snapshot = files.load()?;
    let now = now_unix_ns();
    let window = arguments.since.unix_ns(now)..arguments.until.unix_ns(now);
    let mut replay = Replay::new(snapshot, window.clone());
    let mut progress = Progress::new();
    let mut unreadable: u64 = 0;
    // From the first record: who a session belongs to stands at its beginning.
    for (count, line) in (1..).zip(audit::open(source, None, false)?) {
        let AuditLine::Record(bytes) = line? else {
            break;
        };
        match Record::decode(&bytes).map(|record| record.event()) {
            Ok(Ok(event)) => replay.take(event),
            _ => unreadable += 1,
        }
        progress.records(count);
    }
    drop(progress);
    let totals = replay.totals;
    let changes = by_count(&totals);
    let shown = changes.get(..arguments.limit.min(changes.len()));
    let shown = shown.unwrap_or_default();
    if source.common.json {
        let mut value = as_json(&totals, shown, unreadable);
        if let Value::Object(object) = &mut value {
            object.insert("policy".into(), files.label.as_str().into());
            object.insert("since".into(), time(window.start).into());
            object.insert("until".into(), time(window.end).into());
        }
        output::json(out, &value)?;
    } else {
        print(&totals, shown, changes.len(), unreadable, out)?;
    }
    match totals.changed > 0 && arguments.exit_code {
        true => Err(CliError::Answered),
        false => Ok(()),
    }
}

/// The most frequent first.
fn by_count(totals: &Totals) -> Vec<(&Change, &Changed)> {
    let mut changes: Vec<_> = totals.changes.iter().collect();
    changes.sort_by_key(|(_, changed)| std::cmp::Reverse(changed.count));
    changes
}

fn print(
    totals: &Totals,
    shown: &[(&Change, &Changed)],
    different: usize,
    unreadable: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    if !shown.is_empty() {
        let rows: Vec<[String; 6]> = shown.iter().map(|(change, it)| row(change, it)).collect();
        let titles = ["COUNT", "DECISION", "RULE", "PERSON", "TARGET", "EXAMPLE"];
        output::table(out, titles, &rows)?;
    }
    let hidden = different.saturating_sub(shown.len());
    if hidden > 0 {
        writeln!(
            out,
            "… and {hidden} more kinds of change; --limit shows them"
        )?;
    }
    if totals.untold > 0 {
        writeln!(
            out,
            "… and {} commands in further kinds of change",
            totals.untold
        )?;
    }
    writeln!(
        out,
        "{} commands: {} decided as before, {} not",
        totals.commands, totals.unchanged, totals.changed
    )?;
    if totals.approximate > 0 {
        writeln!(
            out,
            "{} of them approximate: the record has no facts, or not the exact text that a rule asks for",
            totals.approximate
        )?;
    }
    for (skipped, count) in &totals.skipped {
        writeln!(out, "{count} not decided again: {}", skipped.words())?;
    }
    if unreadable > 0 {
        writeln!(
            out,
            "{unreadable} records cannot be read; run `interceptor audit verify`"
        )?;
    }
    Ok(())
}

fn row(change: &Change, changed: &Changed) -> [String; 6] {
    let Change {
        before,
        after,
        person,
        target,
    } = change;
    let count = match changed.approximate {
        0 => changed.count.to_string(),
        _ => format!("≈{}", changed.count),
    };
    [
        count,
        arrow(&before.outcome, &after.outcome),
        arrow(rule(before), rule(after)),
        person.clone(),
        target.clone(),
        output::cut(&changed.example.text, TEXT_CHARS_MAX),
    ]
}

fn arrow(before: &str, after: &str) -> String {
    match before == after {
        true => before.to_owned(),
        false => format!("{before} → {after}"),
    }
}

fn rule(said: &Said) -> &str {
    match said.rule.as_str() {
        "" => "default",
        name => name,
    }
}

fn as_json(totals: &Totals, shown: &[(&Change, &Changed)], unreadable: u64) -> Value {
    let said = |said: &Said| json!({ "outcome": said.outcome, "rule": said.rule });
    let changes = shown.iter().map(|(change, changed)| {
        let example = &changed.example;
        json!({
            "before": said(&change.before),
            "after": said(&change.after),
            "person": change.person,
            "target": change.target,
            "count": changed.count,
            "approximate": changed.approximate,
            "example": {
                "time": time(example.time_unix_ns),
                "session": session(&example.session),
                "command": example.number,
                "text": Escaped(&example.text).to_string(),
            },
        })
    });
    let skipped = totals.skipped.iter();
    let skipped = skipped.map(|(why, count)| json!({ "count": count, "why": why.words() }));
    json!({
        "commands": totals.commands,
        "unchanged": totals.unchanged,
        "changed": totals.changed,
        "approximate": totals.approximate,
        "not_decided": skipped.collect::<Vec<_>>(),
        "unreadable": unreadable,
        "changes": changes.collect::<Vec<_>>(),
    })
}

/// A time as it can be typed: so long ago, or a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before now.
    Ago(Duration),
    /// Nanoseconds since the Unix epoch.
    At(u64),
}

impl Moment {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| {
            "write a duration such as 7d or 12h, or a time such as 2026-11-20T10:00:00Z".to_owned()
        })?;
        Ok(Self::At(u64::try_from(time.as_nanosecond()).unwrap_or(0)))
    }

    fn unix_ns(self, now: u64) -> u64 {
        match self {
            Self::Ago(ago) => now.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)),
            Self::At(time) => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_duration_or_a_time() {
        assert_eq!(
            Moment::parse("7d").unwrap().unix_ns(u64::MAX),
            u64::MAX - 604_800_000_000_000
        );
        assert_eq!(Moment::parse("1h").unwrap().unix_ns(5), 0);
        let at = Moment::parse("1970-01-01T00:00:01Z").unwrap();
        assert_eq!(at.unix_ns(5), 1_000_000_000);
        assert!(Moment::parse("yesterday").unwrap_err().contains("7d"));
    }
}
