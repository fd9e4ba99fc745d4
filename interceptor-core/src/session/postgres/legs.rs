//! The two legs of a session, between client and gateway and between gateway and server, as far as
//! encryption goes.
//!
//! It owns who may have an encrypted leg, and what authentication needs to know of it. It must not know
//! how TLS works: the machine sees plain bytes only.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Action, Phase, Session};
use crate::policy::ClientTls;
use crate::wire::postgres::backend::kind;
use crate::wire::postgres::encode::{self, ErrorText};

/// The first byte of a TLS handshake. As the first of a startup packet's length it is far too much.
const TLS_HANDSHAKE: u8 = 0x16;

/// A leg that is encrypted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The protocol's version, such as `TLSv1.3`.
    pub version: &'static str,
    /// `tls-server-end-point` (RFC 5929) of the certificate shown on this leg; empty if its signature
    /// has no hash for that.
    pub end_point: Vec<u8>,
    /// The server asked for a client's certificate, and the gateway had none to show.
    pub lacks_certificate: bool,
}

/// Both legs. `None`: plain.
#[derive(Default)]
pub(super) struct Legs {
    /// Between client and gateway.
    pub(super) client: Option<Tls>,
    /// Between gateway and server.
    pub(super) server: Option<Tls>,
    asked: Asked,
    /// The gateway has a certificate to show to the client.
    has_certificate: bool,
}

/// What the client asked for before its startup packet.
#[derive(Default)]
struct Asked {
    /// Anything at all.
    any: bool,
    tls: bool,
    gss: bool,
    /// The answer was yes, and the handshake is not over.
    handshake: bool,
}

impl Legs {
    /// Both are encrypted with the same certificate: channel binding holds from end to end.
    pub(super) fn same_certificate(&self) -> bool {
        match (&self.client, &self.server) {
            (Some(client), Some(server)) => {
                !client.end_point.is_empty() && client.end_point == server.end_point
            }
            _ => false,
        }
    }
}

impl Legs {
    /// The version of TLS on the client's leg, for the record; empty if it is plain.
    pub(super) fn client_version(&self) -> String {
        version(self.client.as_ref())
    }

    /// The same of the server's leg.
    pub(super) fn server_version(&self) -> String {
        version(self.server.as_ref())
    }
}

fn version(leg: Option<&Tls>) -> String {
    leg.map(|tls| tls.version.into()).unwrap_or_default()
}

impl Session {
    /// The gateway has a certificate for the client, so that a request for TLS can be granted.
    pub fn offer_tls(&mut self) {
        self.legs.has_certificate = true;
    }

    /// The handshake that [`Action::EncryptClient`] asked for is over: what comes from now on was
    /// encrypted.
    pub fn handle_client_encrypted(&mut self, tls: Tls) {
        if self.phase == Phase::Startup && self.legs.asked.handshake {
            self.legs.asked.handshake = false;
            self.legs.client = Some(tls);
        }
    }

    /// The driver is at the handshake: what is in `client_in` is not for the machine.
    pub(super) fn is_encrypting(&self) -> bool {
        self.legs.asked.handshake
    }

    /// The client speaks TLS without having asked (PostgreSQL 17 and later, `sslnegotiation=direct`).
    /// Returns whether it does.
    pub(super) fn begin_direct_tls(&mut self) -> bool {
        let direct = self.client_in.first() == Some(&TLS_HANDSHAKE);
        if !direct || self.legs.asked.any || self.legs.client.is_some() {
            return false;
        }
        if self.may_encrypt() {
            self.begin_handshake();
        } else {
            // It could not read an error.
            self.close("the client began with TLS, which is not offered", true);
        }
        true
    }

    fn may_encrypt(&self) -> bool {
        self.legs.has_certificate && self.target.tls.client != ClientTls::Off
    }

    /// Lets a client on that encrypts, or need not. Returns whether it may go on.
    pub(super) fn check_encryption(&mut self) -> bool {
        let required = self.target.tls.client == ClientTls::Require;
        if !required || self.legs.client.is_some() {
            return true;
        }
        let message = alloc::format!(
            "target \"{}\" takes encrypted connections only: use sslmode=require or stricter",
            self.target.name
        );
        self.record_identity("28000");
        let error = ErrorText::new("28000", &message);
        self.close_with("the client did not encrypt", false, &error);
        false
    }

    fn begin_handshake(&mut self) {
        (self.legs.asked.any, self.legs.asked.tls) = (true, true);
        self.legs.asked.handshake = true;
        self.actions.push_back(Action::EncryptClient);
    }

    /// The client asks for TLS.
    pub(super) fn answer_tls_request(&mut self) {
        if core::mem::replace(&mut self.legs.asked.tls, true) || !self.is_waiting_for_answer() {
            return self.refuse_request();
        }
        if self.may_encrypt() {
            self.to_client.extend_from_slice(b"S");
            self.begin_handshake();
        } else {
            self.legs.asked.any = true;
            self.to_client.extend_from_slice(b"N");
        }
    }

    /// The client asks for GSSAPI encryption, which the gateway does not have.
    pub(super) fn answer_gss_request(&mut self) {
        if core::mem::replace(&mut self.legs.asked.gss, true) || !self.is_waiting_for_answer() {
            return self.refuse_request();
        }
        self.legs.asked.any = true;
        self.to_client.extend_from_slice(b"N");
    }

    /// Says with the server's refusal what may be behind it: a client's certificate ends at the gateway.
    /// Returns whether it did; `body` is the refusal's.
    pub(super) fn hint_at_certificate(&mut self, code: &str, body: &[u8]) -> bool {
        let lacks = self
            .legs
            .server
            .as_ref()
            .is_some_and(|tls| tls.lacks_certificate);
        let Some((0, fields)) = body.split_last().filter(|_| lacks && code == "28000") else {
            return false;
        };
        // Fields follow each other, each with a zero behind it; a hint of the server's own is better.
        if fields
            .split(|&byte| byte == 0)
            .any(|field| field.first() == Some(&b'H'))
        {
            return false;
        }
        let hint = alloc::format!(
            "The server asked for a client's certificate, which cannot be passed on: set clientCertificate and clientKey in the tls of target \"{}\".",
            self.target.name
        );
        encode::message(&mut self.to_client, kind::ERROR_RESPONSE, |out| {
            out.extend_from_slice(fields);
            out.extend_from_slice(b"H");
            encode::cstr(out, hint.as_bytes());
            out.extend_from_slice(b"\0");
        });
        true
    }

    /// Bytes that came before the answer could be taken for encrypted ones later (CVE-2021-23222).
    fn is_waiting_for_answer(&self) -> bool {
        self.client_in.is_empty()
    }

    fn refuse_request(&mut self) {
        let what = if self.is_waiting_for_answer() {
            "a request for encryption came again"
        } else {
            "bytes follow a request for encryption before its answer"
        };
        self.violate("the client", what);
    }
}
