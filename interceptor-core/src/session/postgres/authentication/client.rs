//! The client proves to the gateway who it is: by SCRAM, by its password, or by what the kernel knows of
//! its process.
//!
//! It owns that nobody gets further without a proof. A wrong one looks as the server's own refusal.

use alloc::format;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::relay::method;
use super::{Secret, Session, Stage};
use crate::policy::{ClientProof, Login};
use crate::session::postgres::login::{NONCE_BYTES, PASSWORD_BYTES_MAX, Question};
use crate::session::postgres::scram::{Challenged, Challenger, Proven, ScramError, Verifier};
use crate::wire::postgres::{frame, sasl};

/// What the client has to send.
pub(super) enum Proving {
    Password,
    /// SCRAM's first message.
    First(Challenger, Verifier),
    /// Its last one.
    Last(Challenged, Verifier),
}

impl Session {
    /// Asks the client for its proof.
    pub(super) fn begin_proof(&mut self, random: &[u8; NONCE_BYTES], verifier: Option<Verifier>) {
        // It comes before all else that a server says.
        self.report_own_negotiation();
        let proving = match (&self.authentication.how, verifier) {
            (Login::Password, _) => {
                sasl::encode_cleartext(&mut self.to_client);
                Proving::Password
            }
            (Login::Gateway(gateway), _) if gateway.proof == ClientProof::Process => {
                self.authentication.method = "process";
                return self.proven(None);
            }
            (_, Some(verifier)) => {
                let tls = self.legs.client.as_ref();
                let end_point = tls.map(|tls| tls.end_point.clone());
                let end_point = end_point.filter(|bytes| !bytes.is_empty());
                let challenger = Challenger::new(verifier.clone(), random, end_point);
                let plus = challenger.binds().then_some(sasl::SCRAM_PLUS);
                let names = plus.into_iter().chain([sasl::SCRAM]);
                sasl::encode_mechanisms(&mut self.to_client, names);
                Proving::First(challenger, verifier)
            }
            (_, None) => return self.handle_no_login("there is no verifier"),
        };
        self.authentication.stage = Stage::Proving(proving);
    }

    /// Takes one message of the proof.
    pub(super) fn prove(&mut self, proving: Proving, message: &[u8]) {
        let body = message.get(frame::HEADER_BYTES..).unwrap_or_default();
        match proving {
            Proving::Password => self.prove_by_password(body),
            Proving::First(challenger, verifier) => {
                let choice = match sasl::initial_response(body) {
                    Ok(choice) => choice,
                    Err(error) => return self.violate("the client", error),
                };
                let bound = choice.mechanism == sasl::SCRAM_PLUS;
                if !bound && choice.mechanism != sasl::SCRAM {
                    return self.unproven(ScramError::Mechanism);
                }
                let first = choice.message.unwrap_or_default();
                match challenger.first(bound, first) {
                    Ok((challenged, reply)) => {
                        self.authentication.method = method(choice.mechanism);
                        sasl::encode_continue(&mut self.to_client, reply.as_bytes());
                        let last = Proving::Last(challenged, verifier);
                        self.authentication.stage = Stage::Proving(last);
                    }
                    Err(error) => self.unproven(error),
                }
            }
            Proving::Last(challenged, verifier) => match challenged.last(body) {
                Ok(Proven { keys, server_final }) => {
                    let words = &mut self.authentication.last_words;
                    sasl::encode_final(words, server_final.as_bytes());
                    self.proven(Some(Secret::Keys(keys, verifier)));
                }
                Err(error) => self.unproven(error),
            },
        }
    }

    fn prove_by_password(&mut self, body: &[u8]) {
        let password = match sasl::password(body) {
            Ok(password) => password,
            Err(error) => return self.violate("the client", error),
        };
        self.authentication.method = "password";
        // PostgreSQL knows no empty password either.
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return self.unproven(ScramError::Proof);
        }
        let password = Zeroizing::new(Vec::from(password));
        self.proven(Some(Secret::Password(password)));
    }

    /// The client is who it says, as far as the gateway can tell; with `password` the server has to tell.
    fn proven(&mut self, secret: Option<Secret>) {
        let Login::Gateway(gateway) = &self.authentication.how else {
            self.authentication.secret = secret;
            return self.dial();
        };
        let who = self.view.as_ref().map(|view| view.who());
        let credential = who.and_then(|who| gateway.credential(&self.subject.user, who));
        let Some(credential) = credential else {
            let message = format!(
                "interceptor has no credential of target \"{}\" for user \"{}\"",
                self.target.name, self.subject.user
            );
            let hint = "The `credentials` of the target's login say who may log in.";
            return self.refuse_login("28000", &message, hint);
        };
        let source = credential.source.clone();
        let other = credential.log_in_as.clone();
        self.authentication.server_user = other.filter(|user| *user != self.subject.user);
        let user = self.server_user().into();
        self.find_out(Question::Password { source, user });
    }

    /// The proof does not hold.
    fn unproven(&mut self, error: ScramError) {
        match error {
            ScramError::Proof => {
                let user = &self.subject.user;
                let message = format!("password authentication failed for user \"{user}\"");
                self.refuse_login("28P01", &message, "");
            }
            ScramError::Malformed(error) => self.violate("the client", error),
            error => self.refuse_login("28000", &format!("interceptor: {error}"), ""),
        }
    }
}
