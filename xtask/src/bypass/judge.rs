//! From what was seen to a verdict, a table and a JSON array.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::rows::{Expected, Row};
use crate::show;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target's witness saw it, or it got hold of the proxy: this is what it says.
    Reached(String),
    /// Nothing arrived, and somebody took the connection: the gateway.
    Carried(String),
    /// Nothing arrived.
    Nothing(String),
    /// The kernel has no such thing.
    Absent(String),
}

impl Outcome {
    /// From the witness and the attempt's own report.
    pub(crate) fn judge(arrived: Option<String>, report: &Value) -> Self {
        let text = |key: &str| report.get(key).and_then(Value::as_str).map(str::to_owned);
        let is = |key: &str| report.get(key).is_some_and(|value| value == true);
        let said = text("said").unwrap_or_default();
        match arrived.or_else(|| text("effect")) {
            Some(what) => Self::Reached(what),
            None if is("connected") => Self::Carried(said),
            None if is("absent") => Self::Absent(said),
            None => Self::Nothing(said),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Reached(what) => format!("reached: {what}"),
            Self::Carried(said) => format!("carried: {said}"),
            Self::Nothing(said) if said.is_empty() => "nothing arrived".into(),
            Self::Nothing(said) => format!("nothing arrived: {said}"),
            Self::Absent(said) => format!("not in this kernel: {said}"),
        }
    }

    fn is(&self, expected: Expected) -> bool {
        matches!(
            (self, expected),
            (Self::Carried(_), Expected::Carried | Expected::Kept)
                | (Self::Nothing(_), Expected::Refused | Expected::Kept)
                | (Self::Reached(_), Expected::Passes)
        )
    }
}

/// What is said of a row at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Unexpected,
    /// Without a gateway it does not reach the target either: it shows nothing.
    Void,
    /// This kernel cannot do it.
    Absent,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unexpected => "UNEXPECTED",
            Self::Void => "VOID",
            Self::Absent => "absent",
        }
    }
}

/// A row, and what was seen.
pub(crate) struct Finding {
    row: Row,
    control: Outcome,
    seen: Outcome,
}

impl Finding {
    pub(crate) fn new(row: &Row, control: Outcome, seen: Outcome) -> Self {
        Self {
            row: row.clone(),
            control,
            seen,
        }
    }

    fn verdict(&self) -> Verdict {
        let absent = |outcome: &Outcome| matches!(outcome, Outcome::Absent(_));
        if self.row.may_be_absent && absent(&self.control) && absent(&self.seen) {
            return Verdict::Absent;
        }
        let works = matches!(self.control, Outcome::Reached(_));
        if !works && self.row.no_control.is_none() {
            Verdict::Void
        } else if self.seen.is(self.row.expected) {
            Verdict::Ok
        } else {
            Verdict::Unexpected
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.verdict(), Verdict::Ok | Verdict::Absent)
    }

    fn as_json(&self) -> Value {
        let mut value = self.row.as_json();
        if let Some(map) = value.as_object_mut() {
            map.insert("without_gateway".into(), self.control.text().into());
            map.insert("no_control".into(), json!(self.row.no_control));
            map.insert("seen".into(), self.seen.text().into());
            map.insert("verdict".into(), self.verdict().name().into());
        }
        value
    }
}

/// The table, and below it what needs words.
pub(crate) fn print(findings: &[Finding]) {
    show::heading("ways past the gateway, tried");
    println!(
        "  {:<32} {:<11} {:<15} {:<9} {:<11} seen",
        "attempt", "from", "as", "expected", ""
    );
    for finding in findings {
        let row = &finding.row;
        println!(
            "  {:<32} {:<11} {:<15} {:<9} {:<11} {}",
            row.name,
            row.place.name(),
            row.who.name(),
            row.expected.name(),
            finding.verdict().name(),
            finding.seen.text()
        );
    }
    for finding in findings.iter().filter(|finding| !finding.is_ok()) {
        println!(
            "\n{}: {}\n  {}\n  without a gateway: {}\n  with it:           {}",
            finding.verdict().name(),
            finding.row.name,
            finding.row.what,
            finding.control.text(),
            finding.seen.text()
        );
    }
    for verdict in [
        Verdict::Ok,
        Verdict::Absent,
        Verdict::Unexpected,
        Verdict::Void,
    ] {
        let count = findings
            .iter()
            .filter(|finding| finding.verdict() == verdict)
            .count();
        print!(
            "{}{count} {}",
            if verdict == Verdict::Ok { "\n" } else { ", " },
            verdict.name()
        );
    }
    println!();
}

/// The JSON array.
pub(crate) fn write(findings: &[Finding], file: &Path) -> Result<()> {
    let list: Vec<Value> = findings.iter().map(Finding::as_json).collect();
    let text = serde_json::to_string_pretty(&list)?;
    fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(expected: Expected, control: Outcome, seen: Outcome) -> Finding {
        Finding::new(&Row::new("row", "tcp", expected), control, seen)
    }

    fn reached() -> Outcome {
        Outcome::Reached("SYN".into())
    }

    #[test]
    fn the_witness_counts_more_than_the_attempt() {
        let report = json!({"connected": true, "said": "closed"});
        let outcome = Outcome::judge(Some("SYN".into()), &report);
        assert_eq!(outcome, reached());
        assert_eq!(
            Outcome::judge(None, &report),
            Outcome::Carried("closed".into())
        );
        let report = json!({"connected": false, "said": "ECONNREFUSED", "absent": false});
        assert_eq!(
            Outcome::judge(None, &report),
            Outcome::Nothing("ECONNREFUSED".into())
        );
    }

    #[test]
    fn a_row_that_never_works_is_void() {
        let nothing = Outcome::Nothing(String::new());
        let void = finding(Expected::Refused, nothing.clone(), nothing.clone());
        assert_eq!(void.verdict(), Verdict::Void);
        assert!(!void.is_ok());
        let ok = finding(Expected::Refused, reached(), nothing);
        assert!(ok.is_ok());
    }

    #[test]
    fn what_passes_unexpectedly_fails() {
        for expected in [Expected::Carried, Expected::Refused] {
            assert!(!finding(expected, reached(), reached()).is_ok());
        }
        let nothing = Outcome::Nothing(String::new());
        assert!(!finding(Expected::Passes, reached(), nothing).is_ok());
    }
}
