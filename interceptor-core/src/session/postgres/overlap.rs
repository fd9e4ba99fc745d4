//! Reads that go upstream while their intent is on its way to the disk.
//!
//! It owns which commands may, and that nothing which came of one reaches the client before its intent
//! is durable. It must not know how long that takes. Why: `docs/adr/0032-reads-overlap-their-record.md`.

use alloc::boxed::Box;

use super::judge::Judged;
use super::{Action, Session, Ticket};
use crate::audit::event::Kind;

/// A point in `to_client` behind which nothing goes before an event is durable.
///
/// It stands at the end of what the server had said when the command was let go: whatever comes after
/// may come of it, whichever message it belongs to.
pub(super) struct ReplyGate {
    ticket: Ticket,
    /// Bytes sent and queued before it, since the start.
    offset: u64,
    /// It stands between two messages, not within one that passes.
    between_messages: bool,
}

impl Session {
    /// What only reads need not wait for its record: its reply does.
    pub fn let_reads_overlap(&mut self) {
        self.reads_overlap = true;
    }

    /// Records what must be durable before anything that the server says from now on reaches the client.
    pub(super) fn record_beside(&mut self, kind: Kind) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.reply_gates.push_back(ReplyGate {
            ticket,
            offset: self.sent_down + self.to_client.len() as u64,
            between_messages: self.pass_down == 0,
        });
        let kind = Box::new(kind);
        self.actions.push_back(Action::Record(kind, Some(ticket)));
    }

    /// How much of `to_client` lies before a gate.
    pub(super) fn open_to_client(&self, gate: &ReplyGate) -> usize {
        usize::try_from(gate.offset.saturating_sub(self.sent_down)).unwrap_or(0)
    }

    /// An event is durable: what it gates may be read.
    pub(super) fn open_replies(&mut self, ticket: Ticket) {
        while self
            .reply_gates
            .front()
            .is_some_and(|gate| gate.ticket <= ticket)
        {
            self.reply_gates.pop_front();
        }
        self.close_if_server_gone();
    }

    /// Something waits for an event to be durable: until then nothing needs to be known of it.
    pub fn awaits_record(&self) -> bool {
        let reply = self
            .reply_gates
            .front()
            .is_some_and(|gate| self.to_client.len() > self.open_to_client(gate));
        let ends = self.server_gone || self.client_gone || self.draining;
        reply || !self.gates.is_empty() || (ends && !self.reply_gates.is_empty())
    }

    /// The session ends: what still waits for its record is never read. True if what is left ends with a
    /// whole message.
    pub(super) fn drop_unrecorded_replies(&mut self) -> bool {
        let whole = self.pass_down == 0;
        let Some(gate) = self.reply_gates.pop_front() else {
            return whole;
        };
        let open = self.open_to_client(&gate);
        self.to_client.truncate(open);
        self.reply_gates.clear();
        // The message that was passing is cut away, or goes on up to the gate.
        if gate.between_messages {
            self.pass_down = 0;
        }
        gate.between_messages
    }
}

impl Session {
    /// A command goes while its record is on its way.
    pub(super) fn may_overlap(&self, judged: &Judged) -> bool {
        self.reads_overlap && only_reads(judged)
    }
}

/// The command can only read, and its own text says so: nothing runs by name.
fn only_reads(judged: &Judged) -> bool {
    let analysis = &judged.analysis;
    let by_name = !analysis.executes.is_empty() || !analysis.fetches.is_empty();
    !by_name && judged.facts().only_reads()
}
