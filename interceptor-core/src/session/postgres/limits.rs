//! Limits that rules set on commands: how many in a time, how long one may run, how much it may show.
//!
//! It owns counting, and what becomes of a command that meets its limit: from there on its rows are
//! thrown away, the target is told to stop, and the client reads an error that names rule and limit in
//! place of whatever the target says. A client must never take the rows that it got for all of them.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::backend::Stop;
use super::judge::Judged;
use super::queue::{Expected, Running};
use super::{Action, Session};
use crate::command::Facts;
use crate::policy::{Limits, RuleReference};
use crate::session::Now;
use crate::session::duties::{self, duration_text, limit_reached};
use crate::wire::postgres::encode::ErrorText;

/// How long a target may take to stop a command that met its limit; then the session ends.
const STOP_NS_MAX: u64 = 10_000_000_000;

/// SQLSTATE program_limit_exceeded.
pub(super) const LIMIT_CODE: &str = "54000";

/// Kinds of statement after which nothing stays: one that ran to its end although its rows were cut
/// can be called failed.
const READING: &[&str] = &[
    "COPY TO",
    "EXECUTE",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "FETCH",
    "SELECT",
    "SHOW",
];

/// What a command used up, over all the times that its portal is executed.
#[derive(Debug, Default)]
pub(super) struct Used {
    rows: AtomicU64,
    bytes: AtomicU64,
}

/// A command that met its limit, and has not ended.
pub(super) struct Cut {
    pub(super) error: ErrorText,
    since_ns: u64,
    /// Rows were thrown away: what the client has is not all.
    dropped: bool,
}

impl Judged {
    /// The limits on it, if there are any.
    pub(super) fn limits(&self) -> Option<&Limits> {
        let obligations = self.decision.obligations.as_ref()?;
        (!obligations.limits.is_empty()).then_some(&obligations.limits)
    }

    /// How long it may run is limited.
    pub(super) fn is_timed(&self) -> bool {
        self.limits()
            .is_some_and(|limits| limits.duration.is_some())
    }
}

impl Running {
    /// It may be cut: it is no stand-in for a refused command.
    fn limits(&self) -> Option<&Limits> {
        self.refusal.is_none().then(|| self.judged.limits())?
    }
}

impl Session {
    /// Counts the command under every limit on rates; one too many is refused.
    pub(super) fn keep_rates(&self, judged: &mut Judged) {
        let who = self.view.as_ref().map(|view| view.who());
        let now = Now {
            monotonic_ns: self.now_ns,
            unix_ns: self.now_unix_ns,
        };
        if judged.limits().is_some() {
            let who = duties::counted_as(who, &self.subject, &self.target.name);
            judged.reached = duties::keep_rates(&mut judged.decision, &*self.rates, &who, now);
        }
    }

    fn running(&mut self) -> Option<&mut Running> {
        match self.expected.front_mut() {
            Some(Expected::Query(running) | Expected::Execute(running)) => Some(running),
            _ => None,
        }
    }

    /// What the server works on, as far as it can be timed: while it prepares a command whose Execute
    /// it has, it computes that command's constants.
    fn timed(&self) -> Option<usize> {
        let is_prepared = |expected: &Expected| {
            matches!(
                expected,
                Expected::Parse | Expected::Bind | Expected::Close | Expected::Describe { .. }
            )
        };
        self.expected.iter().position(|it| !is_prepared(it))
    }

    fn timed_running(&mut self) -> Option<&mut Running> {
        let index = self.timed()?;
        match self.expected.get_mut(index) {
            Some(Expected::Query(running) | Expected::Execute(running)) => Some(running),
            _ => None,
        }
    }

    /// Why what was being prepared was stopped, if a limit is why.
    pub(super) fn cut_in_preparation(&mut self) -> Option<ErrorText> {
        let cut = self.timed_running()?.cut.take();
        cut.map(|cut| cut.error)
    }

    /// What the server sends of rows now is thrown away.
    pub(super) fn is_cut(&mut self) -> bool {
        self.running().is_some_and(|running| running.cut.is_some())
    }

    /// Rows or bytes of what runs are limited.
    pub(super) fn is_counted(&mut self) -> bool {
        let limits = self.running().and_then(|running| running.limits());
        limits.is_some_and(|limits| limits.rows.is_some() || limits.bytes.is_some())
    }

    /// Counts rows and bytes that are about to go to the client. `false`: they must not, as they are
    /// beyond the limit.
    pub(super) fn admits(&mut self, rows: u64, bytes: usize) -> bool {
        let Some(running) = self.running() else {
            return true;
        };
        if let Some(cut) = &mut running.cut {
            cut.dropped = true;
            return false;
        }
        let Some(limits) = running.limits() else {
            return true;
        };
        let count = |used: &AtomicU64, more: u64| used.fetch_add(more, Ordering::Relaxed) + more;
        let used = &running.judged.used;
        let rows = count(&used.rows, rows);
        let bytes = count(&used.bytes, bytes as u64);
        let rows = limits.rows.as_ref().filter(|limit| rows > limit.at);
        let bytes = limits.bytes.as_ref().filter(|limit| bytes > limit.at);
        let met = match (rows, bytes) {
            (Some(limit), _) => (limit.rule.clone(), format!("{} rows", limit.at)),
            (None, Some(limit)) => (limit.rule.clone(), format!("{} bytes", limit.at)),
            (None, None) => return true,
        };
        self.cut(&met.0, &met.1, true);
        false
    }

    /// Stops what runs, as it met a limit.
    fn cut(&mut self, rule: &Arc<RuleReference>, limit: &str, dropped: bool) {
        let since_ns = self.now_ns;
        let Some(running) = self.timed_running() else {
            return;
        };
        let message = format!(
            "stopped by interceptor rule \"{}\": its limit is {limit}",
            rule.name
        );
        let command = running.judged.number;
        running.cut = Some(Cut {
            error: ErrorText::new(LIMIT_CODE, &message),
            since_ns,
            dropped,
        });
        self.record(limit_reached(command, rule, limit));
        if let Some(key) = self.cancel_key.clone()
            && !self.interrupting
        {
            self.interrupting = true;
            self.actions.push_back(Action::Interrupt(key));
        }
    }

    /// The target was told to stop, or could not be told. A request that came late stopped nothing:
    /// nothing else went to the target meanwhile.
    pub fn handle_interrupted(&mut self) {
        self.interrupting = false;
    }

    /// Stops what has run for too long, and ends the session of a target that does not stop.
    pub(super) fn keep_durations(&mut self) {
        let now_ns = self.now_ns;
        let Some(running) = self.timed_running() else {
            return;
        };
        if let Some(cut) = &running.cut {
            if now_ns >= cut.since_ns.saturating_add(STOP_NS_MAX) {
                let mut error = cut.error.clone();
                error
                    .message
                    .push_str("; the target did not stop it, so the session ends");
                self.close_with(&error.message, false, &error);
            }
            return;
        }
        let since_ns = *running.front_since_ns.get_or_insert(now_ns);
        let duration = running.limits().and_then(|limits| limits.duration.clone());
        if let Some(limit) = duration
            && now_ns >= since_ns.saturating_add(nanoseconds(limit.at))
        {
            self.cut(&limit.rule, &duration_text(limit.at), false);
        }
    }

    /// When [`Self::keep_durations`] has something to do.
    pub(super) fn limit_deadline_ns(&self) -> Option<u64> {
        let Some(Expected::Query(running) | Expected::Execute(running)) =
            self.expected.get(self.timed()?)
        else {
            return None;
        };
        if let Some(cut) = &running.cut {
            return Some(cut.since_ns.saturating_add(STOP_NS_MAX));
        }
        let limit = running.limits()?.duration.as_ref()?;
        let since_ns = running.front_since_ns.unwrap_or(running.started_ns);
        Some(since_ns.saturating_add(nanoseconds(limit.at)))
    }

    /// A command ran to its end although it met a limit. The client reads the error in place of the
    /// end, where nothing of the command stays and nothing runs behind it; otherwise only the end of
    /// the session is no lie. `true`: it is dealt with.
    pub(super) fn ends_cut(&mut self) -> Result<bool, Stop> {
        let behind = self.expected.get(1);
        let alone = matches!(behind, None | Some(Expected::Sync | Expected::CopyEnd));
        let (extended, cut, harmless) = match self.expected.front() {
            Some(Expected::Query(running)) => {
                (false, &running.cut, leaves_nothing(&running.judged))
            }
            Some(Expected::Execute(running)) => {
                (true, &running.cut, alone && leaves_nothing(&running.judged))
            }
            _ => return Ok(false),
        };
        let Some(cut) = cut.as_ref().filter(|cut| cut.dropped) else {
            return Ok(false);
        };
        let mut error = cut.error.clone();
        if !harmless {
            error
                .message
                .push_str("; the target had completed it by then, so the session ends");
            return Err(Stop::Limit(error));
        }
        self.fail_running(&error, extended);
        Ok(true)
    }

    /// ReadyForQuery came for a command whose rows were cut, and no end of it before: nothing told the
    /// client so far.
    pub(super) fn refuse_cut_end(&mut self) -> Result<(), Stop> {
        let Some(Expected::Query(running)) = self.expected.front() else {
            return Ok(());
        };
        match &running.cut {
            Some(cut) if cut.dropped => Err(Stop::Limit(cut.error.clone())),
            _ => Ok(()),
        }
    }

    /// The command at the front ended without the error that the client reads.
    fn fail_running(&mut self, error: &ErrorText, extended: bool) {
        use crate::wire::postgres::encode::{self, Severity};
        encode::error(&mut self.to_client, Severity::Error, error);
        let code = String::from(error.code);
        if extended {
            // As after any error: what the client sends up to Sync does not run.
            self.discarding = self.expected.len() < 2;
            if let Some(Expected::Execute(mut running)) = self.expected.pop_front() {
                running.error_code = code;
                self.finish(running);
            }
        } else if let Some(running) = self.running() {
            running.error_code = code;
            running.cut = None;
            running.plan = None;
            running.copy = None;
        }
    }
}

/// One statement that reads: whether it is taken back or not makes no difference.
fn leaves_nothing(judged: &Judged) -> bool {
    let facts: &Facts = judged.facts();
    judged.analysis.single
        && facts.incomplete.is_none()
        && facts.writes.is_empty()
        && facts.kinds.iter().all(|kind| READING.contains(kind))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
