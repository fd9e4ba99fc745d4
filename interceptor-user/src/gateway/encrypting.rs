//! The client's leg becomes encrypted.
//!
//! It owns when the handshake begins and what its end has to be. What the machine permits and what a
//! certificate says is theirs.

use std::net::SocketAddr;

use interceptor_core::session::postgres::{Session, Tls as Leg};

use super::stream::{self, Stream};
use crate::tls::{self, ALPN, Shown, Tls};

/// A handshake that is under way.
pub(super) struct Encrypting {
    shown: std::sync::Arc<Shown>,
    /// The client did not ask before, so that it has to say which protocol it means.
    is_direct: bool,
}

/// Begins it, as the machine asked. `None`: it could not, and the session is over.
pub(super) fn begin(
    session: &mut Session,
    client: &mut Stream,
    tls: &Tls,
    dialled: SocketAddr,
) -> Option<Encrypting> {
    let shown = match tls.shown(session.target(), dialled.ip()) {
        Ok(shown) => shown,
        Err(error) => {
            tracing::error!(target_name = session.target().name, %error, "a client cannot be shown a certificate");
            session.handle_broken("there is no certificate to show to the client");
            return None;
        }
    };
    let answer = session.to_client().to_vec();
    session.sent_to_client(answer.len());
    let received = session.client_in().split();
    let is_direct = answer.is_empty();
    let config = std::sync::Arc::clone(&shown.config);
    if let Err(error) = client.accept_tls(config, &answer, received) {
        session.handle_broken(&broken(&error));
        return None;
    }
    Some(Encrypting { shown, is_direct })
}

/// Tells the machine when it is over. Returns whether it is.
pub(super) fn advance(
    encrypting: &mut Option<Encrypting>,
    session: &mut Session,
    client: &mut Stream,
) -> bool {
    let Some(agreed) = encrypting.as_ref().and_then(|_| client.take_agreed()) else {
        return false;
    };
    let Some(over) = encrypting.take() else {
        return false;
    };
    if over.is_direct && agreed.protocol.as_deref() != Some(ALPN) {
        // Something else may have been tricked into speaking to a database.
        session.handle_broken("the client began with TLS and did not say that it means PostgreSQL");
        return true;
    }
    session.handle_client_encrypted(Leg {
        version: agreed.version,
        end_point: over.shown.end_point.clone(),
        lacks_certificate: false,
    });
    true
}

/// Why the client's leg broke.
pub(super) fn broken(error: &std::io::Error) -> String {
    format!("the client's connection broke: {}", stream::reason(error))
}

/// Why the target's leg broke. Before the session runs, the client is told what to change.
pub(super) fn server_broke(session: &mut Session, error: &std::io::Error) {
    let alert = error.get_ref().and_then(|cause| cause.downcast_ref());
    if let (Some(alert), "starting" | "authenticating") = (alert, session.state()) {
        return session.handle_unreachable(tls::reason(alert));
    }
    session.handle_broken(&format!(
        "the target's connection broke: {}",
        stream::reason(error)
    ));
}
