//! Sessions in which nothing is written, whatever runs: where a rule says so of a client, the server is
//! told when the session begins, so that functions cannot write either.
//!
//! It owns that the server stays told. Three things could undo it. A text that says so is refused. A
//! function that says so is seen by what the server reports before the next transaction, so that no
//! transaction begins before that report is there. A server that does not report it is not used.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use super::Session;
use super::judge::Judged;
use super::queue::Expected;
use crate::command::Facts;
use crate::policy::{Outcome, RuleReference};
use crate::sql;
use crate::wire::postgres::encode::ErrorText;
use crate::wire::postgres::startup::STARTUP_BYTES_MAX;

/// The setting. The server reports it from PostgreSQL 14 on.
const SETTING: &str = "default_transaction_read_only";

/// How a session is kept read-only.
pub(super) struct ReadOnly {
    rule: Arc<RuleReference>,
    /// The server said that it is.
    confirmed: bool,
    /// A transaction ended in the middle of what is sent up to the next Sync.
    ended: bool,
}

impl Session {
    /// Adds the setting to the startup packet, if a rule says so of this client. It is the last there,
    /// so that it wins over what the client sets. `false`: the session is over.
    pub(super) fn begin_read_only(&mut self) -> bool {
        let Some(rule) = self.view.as_ref().and_then(|view| view.read_only_session()) else {
            return true;
        };
        self.read_only = Some(ReadOnly {
            rule,
            confirmed: false,
            ended: false,
        });
        let end = self.startup_packet.len().saturating_sub(1);
        let mut packet = BytesMut::from(self.startup_packet.get(4..end).unwrap_or_default());
        for text in [SETTING, "on"] {
            packet.extend_from_slice(text.as_bytes());
            packet.put_u8(0);
        }
        packet.put_u8(0);
        let size = packet.len() + 4;
        if size > STARTUP_BYTES_MAX {
            let message = "the startup packet has no room for what keeps the session read-only";
            self.close_with(message, false, &ErrorText::new("54000", message));
            return false;
        }
        self.startup_packet.clear();
        self.startup_packet
            .put_u32(u32::try_from(size).unwrap_or(u32::MAX));
        self.startup_packet.extend_from_slice(&packet);
        true
    }

    /// Another policy is in force. A session that begins to be read-only under it has to begin anew.
    pub(super) fn review_read_only(&mut self) {
        let rule = self.view.as_ref().and_then(|view| view.read_only_session());
        match (rule, &mut self.read_only) {
            (Some(rule), Some(read_only)) => read_only.rule = rule,
            (Some(rule), None) => {
                let name = &rule.name;
                let words = format!(
                    "terminating connection because rule \"{name}\" keeps this client read-only from now on: connect again"
                );
                self.terminate(&words);
            }
            (None, _) => self.read_only = None,
        }
    }

    /// The server reports a setting.
    pub(super) fn note_setting(&mut self, name: &[u8], value: &[u8]) {
        let Some(read_only) = &mut self.read_only else {
            return;
        };
        if name != SETTING.as_bytes() {
            return;
        }
        if value == b"on" {
            read_only.confirmed = true;
        } else {
            self.end_unkept("the session would not stay read-only");
        }
    }

    /// The server is ready for the first command.
    pub(super) fn require_read_only(&mut self) {
        if self.read_only.as_ref().is_some_and(|it| !it.confirmed) {
            self.end_unkept("the target does not say that the session is read-only");
        }
    }

    fn end_unkept(&mut self, what: &str) {
        let Some(read_only) = &self.read_only else {
            return;
        };
        let message = format!(
            "refused by interceptor rule \"{}\": {what}",
            read_only.rule.name
        );
        self.close_with(&message, false, &ErrorText::new("42501", &message));
    }

    /// A transaction may begin whose predecessor's report is outstanding: what runs next waits.
    pub(super) fn awaits_report(&self) -> bool {
        let reported =
            |expected: &Expected| matches!(expected, Expected::Sync | Expected::Query(_));
        self.read_only.is_some() && self.expected.iter().any(reported)
    }

    /// Refuses what could let a read-only session write.
    pub(super) fn keep_read_only(&mut self, judged: &mut Judged, text: &str) {
        let Some(read_only) = &mut self.read_only else {
            return;
        };
        if judged.decision.outcome.refuses() {
            return;
        }
        let facts = judged.facts();
        let ends = ends_transaction(facts);
        let reason = if lifts(judged, text) {
            "the session is kept read-only: this could let it write"
        } else if ends && !judged.analysis.single {
            "the session is kept read-only: send what comes after the end of a transaction by itself"
        } else if read_only.ended {
            "the session is kept read-only: send Sync after the end of a transaction"
        } else {
            read_only.ended |= ends;
            return;
        };
        judged.decision.outcome = Outcome::Deny;
        judged.decision.rule = Some(Arc::clone(&read_only.rule));
        judged.decision.reason = reason.into();
    }

    /// A portal runs: it may end the transaction.
    pub(super) fn note_execution(&mut self, judged: &Judged) {
        if let Some(read_only) = &mut self.read_only {
            read_only.ended |= ends_transaction(judged.facts());
        }
    }

    /// ReadyForQuery came, and the report before it.
    pub(super) fn reported(&mut self) {
        if let Some(read_only) = &mut self.read_only {
            read_only.ended = false;
        }
    }
}

fn ends_transaction(facts: &Facts) -> bool {
    let ends = |kind: &&'static str| matches!(*kind, "COMMIT" | "ROLLBACK");
    facts.kinds.iter().any(ends)
}

fn lifts(judged: &Judged, text: &str) -> bool {
    // What runs by name has another text, which is not at hand.
    let by_name = !judged.analysis.executes.is_empty();
    let facts = judged.facts();
    let may_set = facts
        .kinds
        .iter()
        .any(|kind| matches!(*kind, "SET" | "RESET" | "BEGIN"))
        || facts
            .functions
            .iter()
            .any(|name| name.to_string().ends_with("set_config"));
    // What another session has prepared takes effect, even in a transaction that is read-only.
    let settles = |kind: &&'static str| matches!(*kind, "COMMIT PREPARED" | "ROLLBACK PREPARED");
    facts.kinds.iter().any(settles)
        || (by_name && may_set)
        || (!judged.is_function_call() && sql::lifts_read_only(text))
}
