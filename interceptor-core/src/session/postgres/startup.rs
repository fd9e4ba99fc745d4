//! From the first byte to the first ReadyForQuery: what kind of connection it is, who the client
//! says it is. Whether it is, [`super::authentication`] finds out.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Buf;

use super::{Action, Phase, Session, judge};
use crate::audit::event::{self, Kind};
use crate::command::Facts;
use crate::policy::Outcome;
use crate::sql::Analysis;
use crate::wire::postgres::backend;
use crate::wire::postgres::frame;
use crate::wire::postgres::startup::{self, FirstPacket, Startup};

/// What the server last said of the session, as far as reading statements depends on it.
pub(super) struct Settings {
    /// `client_encoding`, upper case.
    pub(super) encoding: Vec<u8>,
    /// `standard_conforming_strings` is on.
    pub(super) conforming: bool,
    /// A command may have changed how texts are read, and the report is outstanding.
    pub(super) unsettled: bool,
    /// No transaction is open.
    pub(super) idle: bool,
    /// The client was let in.
    pub(super) authenticated: bool,
    application: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            encoding: Vec::new(),
            conforming: true,
            unsettled: false,
            idle: false,
            authenticated: false,
            application: String::new(),
        }
    }
}

impl Session {
    /// Reads first packets until a session starts. Returns whether it made progress.
    pub(super) fn advance_startup(&mut self) -> bool {
        if self.is_encrypting() || self.begin_direct_tls() {
            return false;
        }
        let size = match startup::packet_size(&self.client_in) {
            Ok(Some(size)) if self.client_in.len() >= size => size,
            Ok(_) => return false,
            Err(error) => {
                self.violate("the client", error);
                return false;
            }
        };
        let packet = self.client_in.split_to(size);
        match startup::decode(&packet) {
            Ok(FirstPacket::SslRequest) => self.answer_tls_request(),
            Ok(FirstPacket::GssEncRequest) => self.answer_gss_request(),
            Ok(FirstPacket::CancelRequest(key)) => {
                self.actions.push_back(Action::Cancel(key));
                self.close("the connection carried a cancel request", false);
            }
            Ok(FirstPacket::Startup(startup)) => {
                self.startup_packet = self.negotiate(packet, &startup);
                self.start(startup);
            }
            Err(error) => self.violate("the client", error),
        }
        true
    }

    fn start(&mut self, startup: Startup) {
        self.subject.user = startup.user;
        self.subject.database = startup.database;
        self.settings.application = startup.application;
        self.search_path
            .begin(&startup.search_path, startup.sets_role);
        self.look();
        if !self.check_encryption() {
            return;
        }
        if startup.replication && !self.may_replicate() {
            return;
        }
        if startup.sets_role && !self.may_set_role() {
            return;
        }
        if !self.begin_read_only() {
            return;
        }
        self.begin_login();
    }

    /// A role set at the start is judged as `SET ROLE` is. Nobody can be asked yet, so that a hold
    /// is a refusal here.
    fn may_set_role(&mut self) -> bool {
        let facts = Facts {
            kinds: alloc::vec!["SET ROLE"],
            ..Facts::default()
        };
        let analysis = Arc::new(Analysis {
            facts,
            ..Analysis::default()
        });
        let text = "SET ROLE in the startup packet";
        let mut judged = self.judge(&analysis, text);
        let allowed = judged.decision.outcome == Outcome::Allow;
        if !judged.decision.outcome.refuses() && !allowed {
            judged.decision.outcome = Outcome::Deny;
        }
        let digest = judge::digest(&[&self.startup_packet]);
        let event = self.command_event(&judged, text, digest, 0);
        self.record_before(Kind::Command(event));
        if !allowed {
            let error = judge::refusal(&judged);
            self.close_with("the client may not set a role", false, &error);
        }
        allowed
    }

    pub(super) fn record_identity(&mut self, error_code: &str) {
        let login = self.recorded_login();
        self.record(Kind::Identity(event::Identity {
            user: self.subject.user.clone(),
            database: self.subject.database.clone(),
            application: self.settings.application.clone(),
            authenticated: self.settings.authenticated,
            error_code: String::from(error_code),
            login: login.login.into(),
            method: login.method.into(),
            server_user: login.server_user,
            client_tls: self.legs.client_version(),
            target_tls: self.legs.server_version(),
        }));
    }

    /// One message of the server before the first ReadyForQuery.
    pub(super) fn starting_reply(&mut self, kind: u8, size: usize) {
        let message = self.server_in.split_to(size);
        let mut body = message.clone();
        body.advance(frame::HEADER_BYTES);
        if kind == backend::kind::NEGOTIATE_PROTOCOL_VERSION {
            return match self.negotiated(&body) {
                Ok(()) => {}
                Err(error) => self.violate("the target", error),
            };
        }
        self.report_negotiation();
        match kind {
            backend::kind::AUTHENTICATION if self.phase == Phase::Authenticating => {
                return self.server_asks(&message);
            }
            backend::kind::ERROR_RESPONSE => {
                let code = super::replies::code(&body);
                self.authentication.is_refused = true;
                if !self.settings.authenticated {
                    self.record_identity(&code);
                    if self.blames_gateway(&body, &code) || self.hint_at_certificate(&code, &body) {
                        return;
                    }
                }
            }
            backend::kind::PARAMETER_STATUS => self.parameter_status(&body),
            backend::kind::BACKEND_KEY_DATA => match backend::backend_key_data(&body) {
                Ok(key) => {
                    self.cancel_key = Some(key.clone());
                    self.actions.push_back(Action::Register(key));
                }
                Err(error) => return self.violate("the target", error),
            },
            backend::kind::NOTICE_RESPONSE => {}
            backend::kind::READY_FOR_QUERY if self.phase == Phase::Preparing => {
                self.phase = Phase::Running;
                self.settings.idle = true;
                self.require_read_only();
            }
            _ => {
                return self.violate(
                    "the target",
                    "a message came that has no place in the start of a session",
                );
            }
        }
        if self.phase != Phase::Closed {
            self.to_client.extend_from_slice(&message);
        }
    }

    pub(super) fn authenticated(&mut self) {
        self.phase = Phase::Preparing;
        self.settings.authenticated = true;
        self.record_identity("");
        self.foresee_catalog();
    }

    /// Remembers a setting that the reading of statements depends on.
    pub(super) fn parameter_status(&mut self, body: &[u8]) {
        let status = backend::parameter_status(body);
        if let Ok((name, value)) = status {
            self.note_setting(name, value);
        }
        match status {
            Ok((b"client_encoding", value)) => self.settings.encoding = value.to_ascii_uppercase(),
            Ok((b"search_path", value)) => self.note_search_path(value),
            Ok((b"standard_conforming_strings", value)) => {
                self.settings.conforming = value == b"on"
            }
            Ok(_) => {}
            Err(error) => self.violate("the target", error),
        }
    }
}
