//! The ends of a session: who may end it, what is said, and what is written down.

use alloc::string::String;

use super::{Action, Phase, Session};
use crate::audit::event::{self, Kind};
use crate::wire::postgres::encode::{self, ErrorText, Severity};
use crate::wire::postgres::frontend::kind as frontend_kind;

impl Session {
    /// The gateway is going down: the session ends as soon as nothing is under way.
    pub fn drain(&mut self) {
        self.draining = true;
        self.drain_if_idle();
    }

    /// The gateway's patience is over: the session ends now.
    pub fn terminate(&mut self, reason: &str) {
        self.close_with(reason, false, &ErrorText::new("57P01", reason));
    }

    /// Somebody ends the session: what the target is doing for it is cancelled.
    /// `words` say who and why.
    pub fn kill(&mut self, words: &str) {
        if self.phase == Phase::Closed {
            return;
        }
        if let Some(key) = &self.cancel_key {
            self.actions.push_back(Action::ForwardCancel(key.clone()));
        }
        let message = alloc::format!("terminating connection: {words}");
        self.close_with(words, false, &ErrorText::new("57P01", &message));
    }

    /// The client ended the session itself, and closes its side next.
    pub fn is_terminated(&self) -> bool {
        self.terminated
    }

    pub(super) fn drain_if_idle(&mut self) {
        let idle = self.expected.is_empty()
            && self.held.is_none()
            && self.client_in.is_empty()
            && self.gates.is_empty()
            && self.reply_gates.is_empty()
            && self.settings.idle;
        if self.draining && (self.phase < Phase::Running || idle) {
            self.terminate("terminating connection because interceptor is shutting down");
        }
    }

    /// The client closed its side.
    pub fn handle_client_closed(&mut self) {
        self.client_gone = true;
        if self.held.is_some() {
            self.end_hold("client_gone");
        }
        self.close_if_gone();
    }

    /// Ends the session of a client that is gone, once what it had sent is on its way.
    pub(super) fn close_if_gone(&mut self) {
        if !self.client_gone || !self.gates.is_empty() || !self.to_server().is_empty() {
            return;
        }
        if self.client_in.is_empty() && self.pass_up == 0 {
            let reason = self.why_left();
            self.close(reason.unwrap_or("the client closed the connection"), false);
        } else {
            self.close("the client left in the middle of a message", true);
        }
    }

    /// The server closed its side.
    pub fn handle_server_closed(&mut self) {
        if self.held.is_some() {
            self.end_hold("target_gone");
        }
        let said_why = self.authentication.is_refused || !self.to_client.is_empty();
        if self.phase < Phase::Running && !said_why {
            return self.handle_unreachable("it closed the connection");
        }
        self.server_gone = true;
        self.close_if_server_gone();
    }

    /// Ends the session of a server that is gone, once what it had said may be read.
    pub(super) fn close_if_server_gone(&mut self) {
        if self.server_gone && self.reply_gates.is_empty() {
            let reason = self.why_left();
            self.close(reason.unwrap_or("the target closed the connection"), false);
        }
    }

    /// A connection failed.
    pub fn handle_broken(&mut self, reason: &str) {
        if self.held.is_some() {
            self.end_hold("client_gone");
        }
        self.close(reason, false);
    }

    pub(super) fn close_with(&mut self, reason: &str, violation: bool, error: &ErrorText) {
        if self.phase == Phase::Closed {
            return;
        }
        // In the middle of a message that passes, an error would be read as its bytes.
        if self.drop_unrecorded_replies() && self.phase >= Phase::Startup {
            encode::error(&mut self.to_client, Severity::Fatal, error);
        }
        self.close(reason, violation);
    }

    pub(super) fn close(&mut self, reason: &str, violation: bool) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.held.is_some() {
            self.end_hold("session_ended");
        }
        self.drop_unrecorded_replies();
        for expected in core::mem::take(&mut self.expected) {
            self.not_run(expected, "session_ended");
        }
        // A server that is not in the middle of a message is told, or it logs a lost client.
        let tells =
            self.phase >= Phase::Preparing && self.to_server.is_empty() && self.pass_up == 0;
        self.phase = Phase::Closed;
        self.gates.clear();
        self.to_server.clear();
        if tells {
            encode::message(&mut self.to_server, frontend_kind::TERMINATE, |_| {});
        }
        self.client_in.clear();
        self.server_in.clear();
        self.record(Kind::Close(event::Close {
            reason: String::from(reason),
            violation,
            commands: self.commands,
            bytes_up: self.sent_up,
            bytes_down: self.sent_down + self.to_client.len() as u64,
        }));
    }

    /// A peer broke the protocol or a limit.
    pub(super) fn violate(&mut self, side: &str, what: impl core::fmt::Display) {
        let message = alloc::format!("{side} broke the protocol: {what}");
        self.close_with(&message, true, &ErrorText::new("08P01", &message));
    }
}
