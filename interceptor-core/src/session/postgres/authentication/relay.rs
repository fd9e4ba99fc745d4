//! A login that is relayed: the server asks, the client answers, the gateway keeps nothing.
//!
//! It owns what may be relayed. SCRAM can bind a proof to the TLS connection that it is made on. Where
//! the gateway stands between two of them, that holds only if both show the same certificate:
//!
//! | client's leg | server's leg | relayed |
//! |---|---|---|
//! | plain | plain | all |
//! | plain | TLS | all but `-PLUS`, which the client could not use |
//! | TLS | plain | all: the server offers no `-PLUS` |
//! | TLS | TLS, the same certificate | all |
//! | TLS | TLS, another one | all but `-PLUS`; and a client that could have used that says so in its first message, by which the server would see a downgrade |

use alloc::format;
use alloc::vec::Vec;

use super::{Session, Stage};
use crate::wire::postgres::sasl::Request;
use crate::wire::postgres::{frame, sasl};
use crate::wire::scram::{self, ChannelBinding};

/// Where a relayed login stands.
#[derive(Default)]
pub(super) struct Relay {
    due: Due,
    /// `-PLUS` was kept from the client.
    is_stripped: bool,
    /// The client was offered `-PLUS`.
    binds: bool,
}

/// What the server waits for.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Due {
    #[default]
    Nothing,
    /// A password, a hash of it, or a message of a mechanism.
    Answer,
    /// The choice of a mechanism.
    Choice,
}

impl Relay {
    pub(super) fn awaits_client(&self) -> bool {
        self.due != Due::Nothing
    }

    /// A client that insists on channel binding leaves without a word when it is not offered.
    pub(super) fn why_left(&self) -> Option<&'static str> {
        (self.due == Due::Choice && !self.binds).then_some(
            "the client left when it was offered no channel binding; if it has channel_binding=require: \
             give the gateway the target's certificate and key, or the target a login of its own",
        )
    }
}

const NO_BINDING: &str =
    "interceptor cannot relay SCRAM between two TLS connections with different certificates";
const NO_BINDING_HINT: &str = "Set channel_binding=disable in the client; or give the gateway the target's own certificate and key, or its policy a `login` that the gateway carries out.";

impl Session {
    pub(super) fn relay_request(&mut self, mut relay: Relay, request: Request<'_>, message: &[u8]) {
        let method = &mut self.authentication.method;
        relay.due = match request {
            Request::Ok => {
                if method.is_empty() {
                    *method = "trust";
                }
                self.let_in();
                self.to_client.extend_from_slice(message);
                return;
            }
            Request::Cleartext => {
                *method = "password";
                Due::Answer
            }
            Request::Md5(_) => {
                *method = "md5";
                Due::Answer
            }
            Request::Sasl(names) => return self.relay_mechanisms(relay, &names, message),
            Request::SaslContinue(_) => Due::Answer,
            Request::SaslFinal(_) => Due::Nothing,
            Request::Gss => return self.refuse_gss(),
        };
        self.authentication.stage = Stage::Relay(relay);
        self.to_client.extend_from_slice(message);
    }

    pub(super) fn refuse_gss(&mut self) {
        let message = format!(
            "target \"{}\" asks for GSSAPI or SSPI, which interceptor does not carry",
            self.target.name
        );
        let hint = "Let the server ask for scram-sha-256 (pg_hba.conf).";
        self.refuse_login("28000", &message, hint);
    }

    fn relay_mechanisms(&mut self, mut relay: Relay, names: &[&[u8]], message: &[u8]) {
        relay.due = Due::Choice;
        let keeps = self.legs.server.is_none() || self.legs.same_certificate();
        let is_plus = |name: &&&[u8]| name.ends_with(b"-PLUS");
        relay.is_stripped = !keeps && names.iter().any(|name| is_plus(&name));
        relay.binds = keeps && names.iter().any(|name| is_plus(&name));
        if !relay.is_stripped {
            self.to_client.extend_from_slice(message);
        } else {
            let left: Vec<&[u8]> = names
                .iter()
                .filter(|name| !is_plus(name))
                .copied()
                .collect();
            if left.is_empty() {
                return self.refuse_login("28000", NO_BINDING, NO_BINDING_HINT);
            }
            sasl::encode_mechanisms(&mut self.to_client, left);
        }
        self.authentication.stage = Stage::Relay(relay);
    }

    pub(super) fn relay_credentials(&mut self, mut relay: Relay, message: &[u8]) {
        if relay.due == Due::Choice {
            let body = message.get(frame::HEADER_BYTES..).unwrap_or_default();
            let choice = match sasl::initial_response(body) {
                Ok(choice) => choice,
                Err(error) => return self.violate("the client", error),
            };
            if is_cut_off(&relay, &choice) {
                return self.refuse_login("28000", NO_BINDING, NO_BINDING_HINT);
            }
            self.authentication.method = method(choice.mechanism);
        }
        relay.due = Due::Nothing;
        self.authentication.stage = Stage::Relay(relay);
        self.to_server.extend_from_slice(message);
    }
}

/// The client chose what it was not offered, or tells the server that it was offered less than the
/// server did.
fn is_cut_off(relay: &Relay, choice: &sasl::InitialResponse<'_>) -> bool {
    if !relay.is_stripped {
        return false;
    }
    let says = choice.message.map(scram::channel_binding);
    let could = !matches!(says, None | Some(Ok(ChannelBinding::Unable)));
    choice.mechanism.ends_with(b"-PLUS") || (choice.mechanism == sasl::SCRAM && could)
}

pub(super) fn method(mechanism: &[u8]) -> &'static str {
    match mechanism {
        sasl::SCRAM => "scram-sha-256",
        sasl::SCRAM_PLUS => "scram-sha-256-plus",
        _ => "sasl",
    }
}
