//! Who a client is: relayed to the server, or proven to the gateway, which then logs in by itself.
//!
//! It owns which of them it is, by the target's `login`, and the order of the steps. [`relay`] is the one
//! way; [`client`] and [`server`] are the two ends of the other. It must not know where secrets are kept:
//! it asks ([`Question`]).
//!
//! ```text
//!  relay      client ⇄ server                                        the gateway only listens
//!  others     client ⇄ gateway (prove), then gateway ⇄ server (answer)
//!             the client hears that it is in when the server has let the gateway in, and not before
//! ```

mod client;
mod relay;
mod server;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::BytesMut;
use zeroize::{Zeroize as _, Zeroizing};

use self::client::Proving;
use self::relay::Relay;
use self::server::Answering;
use super::login::{Answer, Keys, NONCE_BYTES, Question};
use super::scram::Verifier;
use super::{AUTHENTICATION_BYTES_MAX, Action, Phase, Session};
use crate::policy::{ClientProof, Login};
use crate::wire::postgres::encode::ErrorText;
use crate::wire::postgres::frame::{self, FrameError};
use crate::wire::postgres::{frontend, sasl};

/// What a session knows of its login.
#[derive(Default)]
pub(super) struct Authentication {
    how: Login,
    stage: Stage,
    /// What the gateway proves to the server that it knows.
    secret: Option<Secret>,
    /// For the server's leg.
    random: [u8; NONCE_BYTES],
    /// How the client proved who it is, for the record.
    method: &'static str,
    /// The server's user, where it is not the one that the client named.
    server_user: Option<String>,
    /// The server ended the start with an error, and closes next.
    pub(super) is_refused: bool,
    /// What the client is told of its own proof once the server lets the gateway in.
    last_words: BytesMut,
}

/// What proves to the server who a user is.
enum Secret {
    Password(Zeroizing<Vec<u8>>),
    /// Recovered from a proof against this verifier.
    Keys(Keys, Verifier),
}

#[derive(Default)]
enum Stage {
    /// It has not begun, or is over.
    #[default]
    None,
    /// The driver finds something out.
    Asking,
    Relay(Relay),
    Proving(Proving),
    Answering(Answering),
}

/// A login, as the record has it.
pub(super) struct Recorded {
    pub(super) login: &'static str,
    pub(super) method: &'static str,
    pub(super) server_user: String,
}

impl Session {
    /// The client said who it is, and may go on.
    pub(super) fn begin_login(&mut self) {
        self.authentication.how = self.target.login.clone();
        let verifier_file = match &self.authentication.how {
            Login::Relay => {
                self.authentication.stage = Stage::Relay(Relay::default());
                return self.dial();
            }
            Login::Password if self.legs.client.is_none() => {
                let message = format!(
                    "target \"{}\" takes the password in clear, and interceptor takes that in TLS only",
                    self.target.name
                );
                let hint = "Connect with sslmode=require or stricter.";
                return self.refuse_login("28000", &message, hint);
            }
            Login::Password => None,
            Login::Recover { verifier_file } => Some(verifier_file.clone()),
            Login::Gateway(gateway) => match &gateway.proof {
                ClientProof::Verifier(file) => Some(file.clone()),
                ClientProof::Process if self.is_person_certain() => None,
                ClientProof::Process => {
                    let message = format!(
                        "interceptor does not know for certain who uses target \"{}\"",
                        self.target.name
                    );
                    let hint = "Its policy wants exactly one Identity that fits the client's process on the gateway's host.";
                    return self.refuse_login("28000", &message, hint);
                }
            },
        };
        let user = self.subject.user.clone();
        self.phase = Phase::Proving;
        self.find_out(Question::Begin {
            verifier_file,
            user,
        });
    }

    fn is_person_certain(&self) -> bool {
        let view = self.view.as_ref();
        view.is_some_and(|view| view.is_person_certain_by_process())
    }

    fn find_out(&mut self, question: Question) {
        self.actions.push_back(Action::Login(question));
    }

    fn dial(&mut self) {
        self.phase = Phase::Connecting;
        self.actions.push_back(Action::Connect);
    }

    /// The driver found out what [`Action::Login`] asked for.
    pub fn handle_login(&mut self, answer: Answer) {
        match (answer, self.phase) {
            (Answer::Begun { random, verifier }, Phase::Proving) => {
                let [client, server] = random;
                self.authentication.random = server;
                self.begin_proof(&client, verifier);
            }
            (Answer::Password(password), Phase::Proving) => {
                self.authentication.secret = Some(Secret::Password(password));
                self.dial();
            }
            (Answer::Derived(keys), Phase::Authenticating) => self.derived(&keys),
            // The session ended meanwhile.
            _ => {}
        }
    }

    /// The driver could not find it out. `reason` is a few words without secrets, for the record.
    pub fn handle_no_login(&mut self, reason: &str) {
        if self.phase == Phase::Closed {
            return;
        }
        self.record_identity("58000");
        let message = format!(
            "interceptor cannot get at what logging in to target \"{}\" needs",
            self.target.name
        );
        let mut error = ErrorText::new("58000", &message);
        error.hint = "The gateway's log says why: ask who runs it.".into();
        self.close_with(&format!("{message}: {reason}"), false, &error);
    }

    /// Ends a login that cannot be.
    fn refuse_login(&mut self, code: &'static str, message: &str, hint: &str) {
        self.record_identity(code);
        let mut error = ErrorText::new(code, message);
        error.hint = hint.into();
        self.close_with(message, false, &error);
    }

    /// The next message of the client that holds credentials. `None`: not all of it is there, or the
    /// session is over.
    fn take_credentials(&mut self) -> Option<BytesMut> {
        let header = match frame::header(&self.client_in) {
            Ok(Some(header)) if header.kind != frontend::kind::PASSWORD => {
                let what = "another message came where credentials were due";
                self.violate("the client", what);
                return None;
            }
            Ok(Some(header)) if header.size > AUTHENTICATION_BYTES_MAX => {
                let error = FrameError::TooLarge {
                    kind: header.kind,
                    size: header.size,
                    limit: AUTHENTICATION_BYTES_MAX,
                };
                self.violate("the client", error);
                return None;
            }
            Ok(Some(header)) if self.client_in.len() >= header.size => header,
            Ok(_) => return None,
            Err(error) => {
                self.violate("the client", error);
                return None;
            }
        };
        Some(self.client_in.split_to(header.size))
    }

    /// Works on credentials of the client. Returns whether it made progress.
    pub(super) fn advance_credentials(&mut self) -> bool {
        let awaits = match &self.authentication.stage {
            Stage::Relay(relay) => relay.awaits_client(),
            Stage::Proving(_) => true,
            Stage::None | Stage::Asking | Stage::Answering(_) => false,
        };
        if !awaits {
            // What it sent ahead waits, as it would at the server.
            if let Err(error) = frame::header(&self.client_in) {
                self.violate("the client", error);
            }
            return false;
        }
        let Some(mut message) = self.take_credentials() else {
            return false;
        };
        match core::mem::replace(&mut self.authentication.stage, Stage::Asking) {
            Stage::Relay(relay) => self.relay_credentials(relay, &message),
            Stage::Proving(proving) => self.prove(proving, &message),
            stage => self.authentication.stage = stage,
        }
        message.as_mut().zeroize();
        true
    }

    /// The server asks who the client is, or says that it is in.
    pub(super) fn server_asks(&mut self, message: &[u8]) {
        let body = message.get(frame::HEADER_BYTES..).unwrap_or_default();
        let request = match sasl::request(body) {
            Ok(request) => request,
            Err(error) => return self.violate("the target", error),
        };
        match core::mem::replace(&mut self.authentication.stage, Stage::Asking) {
            Stage::Relay(relay) => self.relay_request(relay, request, message),
            Stage::Answering(answering) => self.answer(answering, request),
            _ => self.violate("the target", "authentication came where none was due"),
        }
    }

    /// The server let the session in: the client hears it.
    fn let_in(&mut self) {
        self.authentication.stage = Stage::None;
        self.authentication.secret = None;
        self.authenticated();
    }

    /// The connection to the server is there.
    pub(super) fn begin_answering(&mut self) {
        if !matches!(self.authentication.stage, Stage::Relay(_)) {
            self.authentication.stage = Stage::Answering(Answering::Waiting);
        }
    }

    /// The server's user.
    pub(super) fn server_user(&self) -> &str {
        let other = self.authentication.server_user.as_deref();
        other.unwrap_or(&self.subject.user)
    }

    /// What the record says of it.
    pub(super) fn recorded_login(&self) -> Recorded {
        Recorded {
            login: self.authentication.how.name(),
            method: self.authentication.method,
            server_user: self.authentication.server_user.clone().unwrap_or_default(),
        }
    }

    /// What the record says of a session that a peer ends now, beside which peer.
    pub(super) fn why_left(&self) -> Option<&'static str> {
        match &self.authentication.stage {
            Stage::Relay(relay) => relay.why_left(),
            Stage::Answering(answering) => answering.why_left(),
            _ => None,
        }
    }
}
