//! Replication connections: refused unless a rule names them, and passed on without being looked at.
//!
//! On such a connection a Query carries either SQL, which is judged as anywhere, or a command of the
//! replication protocol, which has a grammar of its own
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>). The server tells them apart
//! by the first word; so does the gateway.

use alloc::string::String;
use alloc::sync::Arc;

use bytes::Bytes;

use super::judge::{self, Judged};
use super::submit::Form;
use super::{Session, backend::Stop};
use crate::audit::event::Kind;
use crate::command::{Facts, REPLICATION};
use crate::policy::{Decision, Outcome};
use crate::sql::Analysis;
use crate::wire::postgres::backend::kind;

/// First words of the replication protocol's commands.
const WORDS: &[&str] = &[
    "ALTER_REPLICATION_SLOT",
    "BASE_BACKUP",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "IDENTIFY_SYSTEM",
    "READ_REPLICATION_SLOT",
    "SHOW",
    "START_REPLICATION",
    "TIMELINE_HISTORY",
    "UPLOAD_MANIFEST",
];

/// Said before the command goes, as [`BINARY_COPY`](judge::BINARY_COPY) is.
pub(super) const UNNAMED: &str =
    "a replication connection passes only if a rule with `statements: [REPLICATION]` allows it";
pub(super) const UNMASKABLE: &str = "what is replicated cannot be masked, and masks are in force";

/// The text is a command of the replication protocol.
fn is_command(text: &[u8]) -> bool {
    let start = text.trim_ascii_start();
    let end = start
        .iter()
        .position(|byte| !byte.is_ascii_alphabetic() && *byte != b'_')
        .unwrap_or(start.len());
    let word = start.get(..end).unwrap_or_default();
    WORDS
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

impl Session {
    /// Whether the client may have a replication connection. Nobody can be asked yet, so that a hold
    /// is a refusal here.
    pub(super) fn may_replicate(&mut self) -> bool {
        let text = "a replication connection";
        let mut judged = self.judge_replication(text);
        if matches!(judged.decision.outcome, Outcome::Hold(_)) {
            judged.decision.outcome = Outcome::Deny;
        }
        let allowed = judged.decision.outcome == Outcome::Allow;
        let digest = judge::digest(&[&self.startup_packet]);
        let event = self.command_event(&judged, text, digest, 0);
        self.record_before(Kind::Command(event));
        self.replicates = allowed;
        if !allowed {
            let error = judge::refusal(&judged);
            self.close_with("the client may not replicate", false, &error);
        }
        allowed
    }

    /// Takes a Query's text if it is a command of the replication protocol.
    pub(super) fn replicate(&mut self, text: &[u8], message: &Bytes) -> bool {
        if !self.replicates || !is_command(text) {
            return false;
        }
        let read = String::from_utf8_lossy(text);
        let judged = self.judge_replication(&read);
        self.submit(judged, Form::Query, &read, &[text], &[], message.clone());
        true
    }

    fn judge_replication(&mut self, text: &str) -> Judged {
        let mut analysis = Analysis {
            facts: Facts {
                kinds: alloc::vec![REPLICATION],
                ..Facts::default()
            },
            // Both sides send COPY data.
            copies_in: true,
            ..Analysis::default()
        };
        analysis.lineage.opaque = true;
        let mut judged = self.judge(&Arc::new(analysis), text);
        let masks = judged.masks.has_columns() || judged.masks.has_patterns();
        if !judged.decision.outcome.refuses() {
            if judged.decision.rule.is_none() {
                judged.decision = Decision::refusal(UNNAMED);
            } else if masks {
                judged.decision = Decision::refusal(UNMASKABLE);
            }
        }
        judged
    }

    /// CopyBothResponse: from now on both sides send.
    pub(super) fn copy_both(&mut self) -> Result<(), Stop> {
        match self.replicating() {
            Some(running) => {
                running.copying_in = true;
                Ok(())
            }
            None => Err(Stop::unexpected(kind::COPY_BOTH_RESPONSE)),
        }
    }

    /// The command of the replication protocol that the server works on.
    pub(super) fn replicating(&mut self) -> Option<&mut super::queue::Running> {
        let running = self.expected.front_mut()?.running()?;
        (running.judged.facts().kinds == [REPLICATION] && running.refusal.is_none())
            .then_some(running)
    }
}
