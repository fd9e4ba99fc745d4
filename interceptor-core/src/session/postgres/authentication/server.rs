//! The gateway proves to the server who the client is.
//!
//! It owns that a secret goes nowhere that could be listened to, and that the server has to prove itself
//! where it can.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

use super::{Secret, Session, Stage};
use crate::policy::Login;
use crate::session::postgres::login::{Derivation, Keys, Question};
use crate::session::postgres::scram::{Asked, Awaiting, Prover, ScramError};
use crate::wire::postgres::encode::ErrorText;
use crate::wire::postgres::sasl::{self, Request};
use crate::wire::postgres::{backend, startup};
use crate::wire::scram::ChannelBinding;

/// Where the login at the server stands.
pub(super) enum Answering {
    /// The server has not asked.
    Waiting,
    /// SCRAM's first message is out.
    First(Prover),
    /// The password is being hashed.
    Deriving(Asked),
    /// The last message is out: the server has to prove itself.
    Last(Awaiting),
    /// All was said.
    Said,
    /// A proof that cannot hold is out: the server has to refuse it.
    Doomed,
}

/// What the record says of a session that ended so.
const OTHER_VERIFIER: &str = "the target has another verifier of the user than the gateway's verifierFile, or does not let the user in: it asked with another salt";

impl Answering {
    pub(super) fn why_left(&self) -> Option<&'static str> {
        matches!(self, Self::Doomed).then_some(OTHER_VERIFIER)
    }
}

impl Session {
    /// The startup packet as the server shall see it. `None`: it has no room for the server's user.
    pub(in crate::session::postgres) fn packet_for_server(&mut self) -> Option<bytes::BytesMut> {
        let packet = core::mem::take(&mut self.startup_packet);
        match &self.authentication.server_user {
            None => Some(packet),
            Some(user) => startup::with_user(&packet, user, &self.subject.database),
        }
    }

    pub(super) fn answer(&mut self, answering: Answering, request: Request<'_>) {
        let next = match (answering, request) {
            // A server that asks nothing trusts the gateway's address.
            (Answering::Waiting | Answering::Said, Request::Ok) => return self.accepted(),
            (Answering::Waiting, Request::Cleartext) => self.answer_in_clear(),
            (Answering::Waiting, Request::Md5(salt)) => self.answer_md5(salt),
            (Answering::Waiting, Request::Sasl(names)) => self.answer_sasl(&names),
            (Answering::First(prover), Request::SaslContinue(message)) => {
                let asked = prover.asked(message).map_err(|error| format!("{error}"));
                asked.and_then(|asked| self.answer_scram(asked))
            }
            (Answering::Last(awaiting), Request::SaslFinal(message)) => {
                let verified = awaiting.verify(message);
                let said = verified.map(|()| Answering::Said);
                said.map_err(|error: ScramError| format!("{error}"))
            }
            // No server that knows the user lets that proof pass.
            (Answering::Doomed, _) => Err(String::from(OTHER_VERIFIER)),
            (_, Request::Gss) => return self.refuse_gss(),
            _ => return self.violate("the target", "authentication came out of order"),
        };
        match next {
            Ok(next) => self.authentication.stage = Stage::Answering(next),
            Err(reason) => self.cannot_log_in("28000", &reason),
        }
    }

    fn accepted(&mut self) {
        let mut words = core::mem::take(&mut self.authentication.last_words);
        sasl::encode_ok(&mut words);
        self.let_in();
        self.to_client.extend_from_slice(&words);
    }

    fn password(&self) -> Result<&Zeroizing<Vec<u8>>, String> {
        match &self.authentication.secret {
            Some(Secret::Password(password)) => Ok(password),
            _ => Err(String::from(
                "it asks for the password, and the gateway has only what SCRAM recovers",
            )),
        }
    }

    fn answer_in_clear(&mut self) -> Result<Answering, String> {
        if self.legs.server.is_none() {
            return Err(String::from(
                "it asks for the password in clear on a connection that is not encrypted",
            ));
        }
        let password = self.password()?.clone();
        // Whoever is in between has a certificate too, and would ask for just this.
        if !self.target.tls.upstream.verifies() {
            return Err(String::from(
                "it asks for the password in clear, and its certificate is not checked: \
                 set `tls: {upstream: verify-full}` at the target",
            ));
        }
        sasl::encode_password(&mut self.to_server, &password);
        Ok(Answering::Said)
    }

    fn answer_md5(&mut self, salt: [u8; 4]) -> Result<Answering, String> {
        let user = self.server_user().as_bytes();
        let inner = md5_hex(&[self.password()?, user]);
        let outer = md5_hex(&[inner.as_bytes(), &salt]);
        let hash = Zeroizing::new(format!("md5{}", outer.as_str()));
        sasl::encode_password(&mut self.to_server, hash.as_bytes());
        Ok(Answering::Said)
    }

    fn answer_sasl(&mut self, names: &[&[u8]]) -> Result<Answering, String> {
        let offers = |name: &[u8]| names.contains(&name);
        let tls = self.legs.server.as_ref();
        let end_point = tls.map(|tls| tls.end_point.as_slice());
        let end_point = end_point.filter(|bytes| !bytes.is_empty());
        let (mechanism, binding) = match end_point {
            Some(_) if offers(sasl::SCRAM_PLUS) => (sasl::SCRAM_PLUS, ChannelBinding::EndPoint),
            // The server sees by this whether somebody kept its offer from the gateway.
            Some(_) => (sasl::SCRAM, ChannelBinding::Unasked),
            None => (sasl::SCRAM, ChannelBinding::Unable),
        };
        if !offers(mechanism) {
            return Err(String::from(
                "it offers no mechanism that the gateway knows: SCRAM-SHA-256",
            ));
        }
        let prover = Prover::new(&self.authentication.random, binding, end_point);
        let first = prover.first();
        sasl::encode_initial_response(&mut self.to_server, mechanism, first.as_bytes());
        Ok(Answering::First(prover))
    }

    fn answer_scram(&mut self, asked: Asked) -> Result<Answering, String> {
        match self.authentication.secret.take() {
            Some(Secret::Password(password)) => {
                let derivation = Derivation {
                    password,
                    salt: asked.salt.clone(),
                    iterations: asked.iterations,
                };
                self.find_out(Question::Derive(derivation));
                Ok(Answering::Deriving(asked))
            }
            Some(Secret::Keys(keys, verifier)) => {
                if verifier.salt == asked.salt && verifier.iterations == asked.iterations {
                    return Ok(self.send_proof(asked, &keys));
                }
                // So it asks for a user whose password is another one by now, who has expired, or whom it
                // does not know. Which of them, and what to say of it, is the server's to tell.
                self.send_proof(asked, &Keys::of_nobody());
                Ok(Answering::Doomed)
            }
            None => Err(String::from("the secret was used before")),
        }
    }

    /// The password is hashed.
    pub(super) fn derived(&mut self, keys: &Keys) {
        match core::mem::replace(&mut self.authentication.stage, Stage::Asking) {
            Stage::Answering(Answering::Deriving(asked)) => {
                let next = self.send_proof(asked, keys);
                self.authentication.stage = Stage::Answering(next);
            }
            stage => self.authentication.stage = stage,
        }
    }

    fn send_proof(&mut self, asked: Asked, keys: &Keys) -> Answering {
        let (awaiting, last) = asked.prove(keys);
        sasl::encode_response(&mut self.to_server, last.as_bytes());
        Answering::Last(awaiting)
    }

    /// The gateway and the server do not come together.
    pub(in crate::session::postgres) fn cannot_log_in(&mut self, code: &'static str, reason: &str) {
        let target = &self.target.name;
        let message = format!("interceptor could not log in to target \"{target}\": {reason}");
        let hint =
            "The `login` of the target's policy, or its roles and pg_hba.conf, have to change.";
        self.refuse_login(code, &message, hint);
    }

    /// The server refused what the gateway proved. Where that was a credential of the gateway's own, the
    /// client hears whose it was. Returns whether the client has heard.
    pub(in crate::session::postgres) fn blames_gateway(&mut self, body: &[u8], code: &str) -> bool {
        if !matches!(self.authentication.how, Login::Gateway(_)) || !code.starts_with("28") {
            return false;
        }
        let code = match code {
            "28P01" => "28P01",
            _ => "28000",
        };
        let said = said(body);
        let target = &self.target.name;
        let message = format!("interceptor could not log in to target \"{target}\": {said}");
        let mut error = ErrorText::new(code, &message);
        error.hint = "The credential is the gateway's, from the target's `login`.".into();
        self.close_with(&message, false, &error);
        true
    }
}

/// The message of an ErrorResponse.
fn said(body: &[u8]) -> String {
    let fields = backend::error_fields(body).unwrap_or_default();
    let message = fields.iter().find(|(code, _)| *code == b'M');
    let message = message.map_or(&b"it gives no reason"[..], |(_, text)| text);
    String::from_utf8_lossy(message).into_owned()
}

fn md5_hex(parts: &[&[u8]]) -> Zeroizing<String> {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    Zeroizing::new(hex::encode(digest.finalize()))
}
