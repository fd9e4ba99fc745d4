//! Which version of the protocol is spoken, and which extensions of it.
//!
//! The gateway has to understand all that passes. It asks the server for no later version than that,
//! and for no extension (`_pq_.…`); what it took out of the client's request it reports to the
//! client itself, in one NegotiateProtocolVersion with what the server has to say.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::Session;
use crate::wire::DecodeError;
use crate::wire::postgres::startup::{self, Startup};
use crate::wire::postgres::{backend, encode};

/// What the client has yet to hear of.
#[derive(Default)]
pub(super) struct Negotiation {
    /// Minor version that the server was asked for.
    minor: u16,
    /// The client asked for a later one.
    lowered: bool,
    /// Extensions that the client asked for, by name.
    extensions: Vec<Vec<u8>>,
    /// The server has answered.
    answered: bool,
    /// The client has its answer.
    reported: bool,
}

impl Session {
    /// The client's request as it goes to the server.
    pub(super) fn negotiate(&mut self, packet: BytesMut, startup: &Startup) -> BytesMut {
        let minor = startup.minor.min(startup::MINOR_MAX);
        let lowered = minor < startup.minor;
        self.negotiation = Negotiation {
            minor,
            lowered,
            extensions: startup.extensions.clone(),
            answered: false,
            reported: false,
        };
        if !lowered && startup.extensions.is_empty() {
            return packet;
        }
        startup::understood(&packet, minor)
    }

    /// The server's NegotiateProtocolVersion.
    pub(super) fn negotiated(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let negotiation = &mut self.negotiation;
        let answer = backend::negotiate_protocol_version(body)?;
        if negotiation.answered || answer.minor > negotiation.minor {
            return Err(DecodeError::Unknown("negotiation"));
        }
        negotiation.answered = true;
        // A client that logged in at the gateway has its answer. What 3.2 changed is the length of
        // cancel keys alone, and a key of 3.0 is one of 3.2 too.
        if core::mem::replace(&mut negotiation.reported, true) {
            return Ok(());
        }
        let own = negotiation.extensions.iter().map(Vec::as_slice);
        let names: Vec<&[u8]> = own.chain(answer.extensions).collect();
        encode::negotiate_protocol_version(&mut self.to_client, answer.minor, &names);
        Ok(())
    }

    /// The server said something else first: it has nothing to report, the gateway may have.
    pub(super) fn report_negotiation(&mut self) {
        self.negotiation.answered = true;
        self.report_own_negotiation();
    }

    /// Tells the client what the gateway took out of its request, if it has not heard of it.
    pub(super) fn report_own_negotiation(&mut self) {
        let negotiation = &mut self.negotiation;
        if core::mem::replace(&mut negotiation.reported, true) {
            return;
        }
        if negotiation.lowered || !negotiation.extensions.is_empty() {
            let names: Vec<&[u8]> = negotiation.extensions.iter().map(Vec::as_slice).collect();
            encode::negotiate_protocol_version(&mut self.to_client, negotiation.minor, &names);
        }
    }
}
