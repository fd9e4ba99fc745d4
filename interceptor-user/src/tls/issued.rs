//! What clients are shown: a target's own certificate, or one that the gateway issues for it.
//!
//! It owns the certificates that were issued. They live in memory, and their keys with them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use interceptor_core::policy::Target;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, version};

use super::end_point::end_point;
use super::files::TlsError;
use super::{ALPN, Authority, provider};

/// How long an issued certificate is valid.
pub(super) const VALID: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// When another is issued: so long before its end.
const RENEWED_BEFORE: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// Certificates that are kept; more, and all are issued anew.
const ISSUED_MAX: usize = 4096;
/// Names and addresses in one certificate.
pub(super) const NAMES_MAX: usize = 100;

/// A certificate that clients are shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// For the handshake.
    pub(crate) config: Arc<ServerConfig>,
    /// What channel binding says of it.
    pub(crate) end_point: Vec<u8>,
}

impl Shown {
    /// A target's own.
    pub(super) fn own(certified: Arc<CertifiedKey>) -> Result<Self, TlsError> {
        let certificate = certified.end_entity_cert().map_err(TlsError::Setup)?;
        let end_point = end_point(certificate);
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(TlsError::Setup)?;
        // Whatever name the client asks for: there is one certificate, and the client judges it.
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // As PostgreSQL does: connections are long, so that resuming saves little and keeps much.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            end_point,
        })
    }
}

/// The certificates that were issued, by target and address.
#[derive(Debug, Default)]
pub(super) struct Issued {
    kept: Mutex<HashMap<(String, IpAddr), Kept>>,
}

#[derive(Debug)]
struct Kept {
    shown: Arc<Shown>,
    renewed_at: SystemTime,
}

impl Issued {
    /// The certificate for clients that dialled this address.
    pub(super) fn shown(
        &self,
        authority: &Authority,
        target: &Target,
        dialled: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<Shown>, TlsError> {
        let place = (target.name.clone(), dialled);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.get(&place).filter(|kept| now < kept.renewed_at) {
            return Ok(Arc::clone(&kept.shown));
        }
        if kept.len() >= ISSUED_MAX {
            kept.clear();
        }
        let certified = authority.issue(&target.name, names(target, dialled), now, VALID)?;
        let shown = Arc::new(Shown::own(certified)?);
        let renewed_at = now + VALID.saturating_sub(RENEWED_BEFORE);
        let entry = Kept {
            shown: Arc::clone(&shown),
            renewed_at,
        };
        kept.insert(place, entry);
        Ok(shown)
    }
}

/// What a client may have dialled: the address first, for that is certain.
fn names(target: &Target, dialled: IpAddr) -> Vec<String> {
    let mut names = vec![dialled.to_string()];
    let of_names = target.names.iter().map(|endpoint| endpoint.name.clone());
    let single = target
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.network.prefix_len() == endpoint.network.max_prefix_len());
    let of_addresses = single.map(|endpoint| endpoint.network.addr().to_string());
    for name in of_names.chain(of_addresses) {
        if !names.contains(&name) && names.len() < NAMES_MAX {
            names.push(name);
        }
    }
    names
}
