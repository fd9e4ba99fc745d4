//! The client's messages: each is read whole, judged where it runs something, and passed on.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};

use super::judge::{Judged, Readable};
use super::names::{Found, NAME_BYTES_MAX, Statement};
use super::queue::{Expected, Running};
use super::submit::Form;
use super::{BACKLOG_BYTES_MAX, CLIENT_MESSAGE_BYTES_MAX, EXPECTED_MAX, Phase, Session};
use crate::wire::DecodeError;
use crate::wire::postgres::encode::{self, ErrorText};
use crate::wire::postgres::frame::{self, FrameError, Header};
use crate::wire::postgres::frontend::{self, Object, kind};

/// What became of a message at the front of the buffer.
enum Taken {
    /// It was dealt with.
    Done,
    /// It must wait for replies.
    Waits,
}

impl Session {
    /// Works on what the client sent.
    pub(super) fn advance_client(&mut self) {
        loop {
            let progress = match self.phase {
                Phase::Startup => self.advance_startup(),
                Phase::Proving | Phase::Authenticating => self.advance_credentials(),
                Phase::Running => self.advance_message(),
                Phase::Connecting | Phase::Preparing | Phase::Closed => false,
            };
            if !progress {
                return;
            }
        }
    }

    /// Takes one message. Returns whether it made progress.
    fn advance_message(&mut self) -> bool {
        let blocked = self.held.is_some()
            || self.interrupting
            || self.server_gone
            || self.expected.len() >= EXPECTED_MAX
            || self.to_server.len() >= BACKLOG_BYTES_MAX;
        if blocked || self.client_in.is_empty() {
            return false;
        }
        if self.pass_up > 0 {
            let passing = self
                .client_in
                .split_to(self.pass_up.min(self.client_in.len()));
            self.pass_up -= passing.len();
            self.to_server.extend_from_slice(&passing);
            return true;
        }
        let header = match frame::header(&self.client_in) {
            Ok(Some(header)) => header,
            Ok(None) => return false,
            Err(error) => {
                self.violate("the client", error);
                return false;
            }
        };
        self.take_message(header)
    }

    fn take_message(&mut self, header: Header) -> bool {
        if header.kind == kind::COPY_DATA && self.takes_copy() {
            self.pass_up = header.size;
            return true;
        }
        if header.size > CLIENT_MESSAGE_BYTES_MAX {
            let limit = CLIENT_MESSAGE_BYTES_MAX;
            self.violate(
                "the client",
                FrameError::TooLarge {
                    kind: header.kind,
                    size: header.size,
                    limit,
                },
            );
            return false;
        }
        if self.client_in.len() < header.size {
            self.client_wants = header.size;
            return false;
        }
        self.client_wants = 0;
        let Some(message) = self
            .client_in
            .get(..header.size)
            .map(Bytes::copy_from_slice)
        else {
            return false;
        };
        match self.message(header.kind, message) {
            Ok(Taken::Done) => {
                // Closing clears the buffer.
                let size = header.size.min(self.client_in.len());
                self.client_in.advance(size);
                true
            }
            Ok(Taken::Waits) => false,
            Err(error) => {
                self.violate("the client", error);
                false
            }
        }
    }

    fn message(&mut self, kind: u8, message: Bytes) -> Result<Taken, DecodeError> {
        let body = message.slice(frame::HEADER_BYTES..);
        if self.copying_in()
            && !matches!(
                kind,
                kind::COPY_DONE | kind::COPY_FAIL | kind::FLUSH | kind::SYNC | kind::TERMINATE
            )
        {
            return Err(DecodeError::Unknown("message during COPY"));
        }
        match kind {
            kind::TERMINATE => {
                frontend::empty(&body)?;
                return Ok(self.end());
            }
            kind::SYNC => {
                frontend::empty(&body)?;
                self.sync(&message);
            }
            // After an error the server reads nothing up to Sync; nor does the gateway.
            _ if self.discarding => {}
            kind::QUERY | kind::PARSE | kind::BIND | kind::EXECUTE | kind::FUNCTION_CALL
                if self.awaits_report() =>
            {
                return Ok(Taken::Waits);
            }
            kind::QUERY => return self.query(&body, message),
            kind::PARSE => return self.parse(&body, &message),
            kind::BIND => return self.bind(&body, message),
            kind::DESCRIBE => return self.describe(&body, &message),
            kind::EXECUTE => return self.execute(&body, &message),
            kind::CLOSE => {
                let (object, name) = frontend::object(&body)?;
                self.names.close(object, name);
                self.pass(&message, Some(Expected::Close));
            }
            kind::FLUSH => {
                frontend::empty(&body)?;
                self.pass(&message, None);
            }
            kind::COPY_DONE => {
                frontend::empty(&body)?;
                self.end_copy(&message);
            }
            kind::COPY_FAIL => {
                frontend::copy_fail(&body)?;
                self.end_copy(&message);
            }
            // Left over from a COPY that failed: the server throws it away too.
            kind::COPY_DATA => {}
            kind::FUNCTION_CALL => self.function_call(&body, message)?,
            _ => return Err(DecodeError::Unknown("message type")),
        }
        Ok(Taken::Done)
    }

    pub(super) fn pass(&mut self, message: &[u8], expected: Option<Expected>) {
        self.to_server.extend_from_slice(message);
        self.expected.extend(expected);
    }

    fn end(&mut self) -> Taken {
        // Commands before it still go out, as they would without a gateway.
        if !self.gates.is_empty() || !self.to_server.is_empty() {
            return Taken::Waits;
        }
        self.terminated = true;
        self.close("the client ended the session", false);
        Taken::Done
    }

    fn sync(&mut self, message: &[u8]) {
        self.discarding = false;
        self.names.next_segment();
        // While it takes COPY data the server ignores Sync.
        let expected = (!self.copying_in()).then_some(Expected::Sync);
        self.pass(message, expected);
    }

    fn end_copy(&mut self, message: &[u8]) {
        if self.takes_copy() {
            if let Some(running) = self.expected.front_mut().and_then(Expected::running) {
                running.copying_in = false;
            }
            self.pass(message, Some(Expected::CopyEnd));
        }
    }

    /// The server takes COPY data now, or will once it comes to a COPY that is under way.
    fn takes_copy(&mut self) -> bool {
        !self.discarding
            && self
                .expected
                .iter_mut()
                .filter_map(Expected::running)
                .any(|running| {
                    running.judged.analysis.copies_in
                        && running.refusal.is_none()
                        && running.error_code.is_empty()
                })
    }

    /// The server said that it takes COPY data, and the client has not ended it.
    fn copying_in(&mut self) -> bool {
        self.expected
            .front_mut()
            .and_then(Expected::running)
            .is_some_and(|running| running.copying_in)
    }

    fn query(&mut self, body: &[u8], message: Bytes) -> Result<Taken, DecodeError> {
        let text = frontend::query(body)?;
        if self.replicate(text, &message) {
            return Ok(Taken::Done);
        }
        if self.readable(text) != Readable::Now {
            // ReadyForQuery cannot be in the way: within an extended query the client must Sync.
            return Ok(self.unreadable(Form::Query, text));
        }
        if self.awaits_catalog() {
            return Ok(Taken::Waits);
        }
        let read = self.decoded(text);
        match read.and_then(|read| Ok((self.analyze(&read)?, read))) {
            Ok((analysis, read)) => {
                let judged = self.judge(&analysis, &read);
                self.submit(judged, Form::Query, &read, &[text], &[], message);
            }
            Err(error) => self.refuse_unread(Form::Query, text, error),
        }
        Ok(Taken::Done)
    }

    /// A text whose reading depends on replies that are outstanding.
    fn unreadable(&mut self, form: Form, text: &[u8]) -> Taken {
        if self.readable(text) == Readable::Later {
            return Taken::Waits;
        }
        let message = "interceptor cannot read this text before the settings changed earlier in the pipeline are confirmed: send Sync between them";
        self.refuse_unread(form, text, ErrorText::new("0A000", message));
        Taken::Done
    }

    /// Parse runs nothing, so it is not a command yet: what is refused whatever its parameters is
    /// refused here; all else is judged at Bind.
    fn parse(&mut self, body: &[u8], message: &[u8]) -> Result<Taken, DecodeError> {
        let parse = frontend::parse(body)?;
        let form = Form::Parse {
            unnamed: parse.statement.is_empty(),
        };
        if self.readable(parse.text) != Readable::Now {
            return Ok(self.unreadable(form, parse.text));
        }
        if self.awaits_catalog() {
            return Ok(Taken::Waits);
        }
        let read = if parse.statement.len() > NAME_BYTES_MAX {
            Err(long_name())
        } else if self.names.is_full(parse.text.len()) {
            Err(too_many())
        } else {
            self.decoded(parse.text)
        };
        let (analysis, text) = match read.and_then(|read| Ok((self.analyze(&read)?, read))) {
            Ok(read) => read,
            Err(error) => {
                self.refuse_unread(form, parse.text, error);
                return Ok(Taken::Done);
            }
        };
        let mut judged = self.decide(&analysis, &text);
        if judged.decision.outcome.refuses() {
            self.number(&mut judged);
            self.submit(judged, form, &text, &[parse.text], &[], Bytes::new());
            return Ok(Taken::Done);
        }
        let text = text.into_owned();
        self.kept.keep_statement(parse.statement, &analysis);
        self.names
            .prepare(parse.statement, Statement { text, analysis });
        self.pass(message, Some(Expected::Parse));
        Ok(Taken::Done)
    }

    fn bind(&mut self, body: &[u8], message: Bytes) -> Result<Taken, DecodeError> {
        let bind = frontend::bind(body)?;
        let form = Form::Extended {
            portal: bind.portal.to_vec(),
        };
        if bind.portal.len() > NAME_BYTES_MAX {
            self.refuse_unread(form, b"", long_name());
            return Ok(Taken::Done);
        }
        if !bind.portal.is_empty() && self.names.is_full(0) {
            self.refuse_unread(form, b"", too_many());
            return Ok(Taken::Done);
        }
        match self.names.statement(bind.statement) {
            Found::Unsettled => return Ok(Taken::Waits),
            Found::Pending => {
                self.ask_for_replies();
                return Ok(Taken::Waits);
            }
            Found::Absent => self.refuse_unread(form, b"", no_statement(bind.statement)),
            Found::Known(statement) => {
                if self.awaits_catalog() {
                    return Ok(Taken::Waits);
                }
                let text = statement.text.as_str();
                let judged = self.judge(&statement.analysis, text);
                self.submit(
                    judged,
                    form,
                    text,
                    &[text.as_bytes(), body],
                    &bind.parameters,
                    message.clone(),
                );
            }
        }
        Ok(Taken::Done)
    }

    fn describe(&mut self, body: &[u8], message: &[u8]) -> Result<Taken, DecodeError> {
        let (object, name) = frontend::object(body)?;
        let portal = match (object, self.names.portal(name)) {
            (Object::Statement, _) => None,
            (Object::Portal, Found::Known(portal)) => Some(portal),
            (Object::Portal, Found::Unsettled | Found::Pending) => return Ok(Taken::Waits),
            // It may be a cursor that SQL declared, which drivers describe before they fetch from
            // it. The server says what its columns are, or that there is none; Execute of it is
            // refused.
            (Object::Portal, Found::Absent) => None,
        };
        self.pass(
            message,
            Some(Expected::Describe {
                portal,
                ours: false,
            }),
        );
        Ok(Taken::Done)
    }

    fn execute(&mut self, body: &[u8], message: &[u8]) -> Result<Taken, DecodeError> {
        let name = frontend::execute(body)?;
        match self.names.portal(name) {
            Found::Unsettled | Found::Pending => return Ok(Taken::Waits),
            Found::Absent => {
                self.refuse_unread(
                    Form::Extended { portal: Vec::new() },
                    b"",
                    absent("34000", "portal", name),
                );
            }
            Found::Known(judged) => {
                if self.needs_plan(&judged) {
                    encode::describe_portal(&mut self.to_server, name);
                    self.expected.push_back(Expected::Describe {
                        portal: Some(judged.clone()),
                        ours: true,
                    });
                }
                // What it was bound to do it does only now.
                self.foresee(&judged);
                self.note_execution(&judged);
                let is_timed = judged.is_timed();
                let prepares = self.begin_names(&judged);
                let mut running = Running::new(judged, self.now_ns, None);
                running.prepares = prepares;
                // The server keeps replies back until Sync: when this one begins and ends, it has
                // to say.
                if is_timed {
                    encode::flush(&mut self.to_server);
                }
                self.pass(message, Some(Expected::Execute(running)));
                if is_timed {
                    encode::flush(&mut self.to_server);
                }
            }
        }
        Ok(Taken::Done)
    }

    /// Rows of a portal can be masked only if it was described; a client need not ask for that.
    fn needs_plan(&self, judged: &Arc<Judged>) -> bool {
        let masks = &judged.masks;
        let asked = |expected: &Expected| matches!(expected, Expected::Describe { portal: Some(portal), .. } if Arc::ptr_eq(portal, judged));
        (masks.has_columns() || masks.has_patterns())
            && !self.plans.contains_key(&judged.number)
            && !self.expected.iter().any(asked)
    }
}

fn too_many() -> ErrorText {
    let message = "too many prepared statements and portals in one session for interceptor";
    ErrorText::new("54000", message)
}

fn long_name() -> ErrorText {
    ErrorText::new(
        "42602",
        "names of prepared statements and portals may have 63 bytes at most",
    )
}

fn no_statement(name: &[u8]) -> ErrorText {
    match name {
        b"" => ErrorText::new("26000", "unnamed prepared statement does not exist"),
        name => absent("26000", "prepared statement", name),
    }
}

fn absent(code: &'static str, what: &str, name: &[u8]) -> ErrorText {
    let name = String::from_utf8_lossy(name).to_string();
    ErrorText::new(code, &alloc::format!("{what} \"{name}\" does not exist"))
}
