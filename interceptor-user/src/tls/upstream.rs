//! How the gateway encrypts towards a target, and what it shows and believes there.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use interceptor_core::policy::{Authority as Believed, TargetTls, UpstreamTls};
use interceptor_core::session::postgres::Tls as Leg;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, SignatureScheme,
    version,
};

use super::end_point::end_point;
use super::files::{Files, TlsError, certificates};
use super::verify::{Anchors, Verifier};
use super::{ALPN, provider};

/// One target's settings.
#[derive(Debug)]
pub(crate) struct Upstream {
    mode: UpstreamTls,
    anchors: Arc<Anchors>,
    /// The name that the policy gives the server.
    name: Option<ServerName<'static>>,
    certified: Option<Arc<CertifiedKey>>,
}

/// One connection's.
pub(crate) struct Handshake {
    pub(crate) config: Arc<ClientConfig>,
    /// What the server is told it is called.
    pub(crate) name: ServerName<'static>,
    shows: Arc<Shows>,
}

impl Upstream {
    pub(super) fn read(target: &str, tls: &TargetTls, files: &Files) -> Result<Self, TlsError> {
        let name = match &tls.server_name {
            Some(name) => {
                let parsed = ServerName::try_from(name.clone());
                Some(parsed.map_err(|_| TlsError::ServerName {
                    target: target.to_owned(),
                    name: name.clone(),
                })?)
            }
            None => None,
        };
        let anchors = match &tls.authority {
            Some(Believed::System) => system()?,
            Some(Believed::File(path)) => anchors_of(Path::new(path))?,
            None => Anchors {
                roots: RootCertStore::empty(),
                certificates: Vec::new(),
            },
        };
        let certified = match &tls.client_certificate {
            Some(pair) => Some(files.pair(target, pair)?),
            None => None,
        };
        Ok(Self {
            mode: tls.upstream,
            anchors: Arc::new(anchors),
            name,
            certified,
        })
    }

    pub(crate) const fn mode(&self) -> UpstreamTls {
        self.mode
    }

    /// Prepares a connection to an address, which has these names in the policy.
    pub(crate) fn handshake(&self, address: IpAddr, names: &[String]) -> Result<Handshake, Error> {
        let mut all: Vec<ServerName<'static>> = match &self.name {
            Some(name) => vec![name.clone()],
            None => {
                let names = names.iter().filter_map(|name| name.clone().try_into().ok());
                names.collect()
            }
        };
        if self.name.is_none() {
            all.push(ServerName::IpAddress(address.into()));
        }
        // The first is shown; an address is shown by not showing anything.
        let name = all.first().cloned();
        let provider = provider();
        let shows = Arc::new(Shows {
            certified: self.certified.clone(),
            lacks: AtomicBool::new(false),
        });
        let verifier = Verifier {
            mode: self.mode,
            anchors: Arc::clone(&self.anchors),
            names: all,
            provider: Arc::clone(&provider),
        };
        let builder = ClientConfig::builder_with_provider(provider);
        let resolver: Arc<dyn ResolvesClientCert> = Arc::clone(&shows) as _;
        let mut config = builder
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Servers of PostgreSQL resume nothing.
        config.resumption = Resumption::disabled();
        Ok(Handshake {
            config: Arc::new(config),
            name: name.unwrap_or_else(|| ServerName::IpAddress(address.into())),
            shows,
        })
    }
}

impl Handshake {
    /// What authentication needs to know, once it is over.
    pub(crate) fn leg(
        &self,
        version: &'static str,
        certificate: Option<&CertificateDer<'_>>,
    ) -> Leg {
        Leg {
            version,
            end_point: certificate.map(end_point).unwrap_or_default(),
            lacks_certificate: self.shows.lacks.load(Ordering::Relaxed),
        }
    }
}

/// Why a handshake with a server failed, in words for its client: what to change. No addresses, and
/// nothing of what the server sent.
pub(crate) const fn reason(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name; `serverName` in its `tls` can say which"
            }
            CertificateError::UnknownIssuer => {
                "its certificate is not from the authority that `ca` in its `tls` names"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; it has to be renewed"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; look at the clocks"
            }
            _ => "its certificate cannot be verified; the gateway's log says why",
        },
        Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        ) => {
            "it asks for a client's certificate; set `clientCertificate` and `clientKey` in its `tls`"
        }
        _ => "TLS with it failed; the gateway's log says why",
    }
}

/// Shows the gateway's certificate, and remembers if there was none to show.
#[derive(Debug)]
struct Shows {
    certified: Option<Arc<CertifiedKey>>,
    lacks: AtomicBool,
}

impl ResolvesClientCert for Shows {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.lacks
            .store(self.certified.is_none(), Ordering::Relaxed);
        self.certified.clone()
    }

    // Also without one: only who has certificates is told that one is wanted.
    fn has_certs(&self) -> bool {
        true
    }
}

fn system() -> Result<Anchors, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let error = found.errors.first().map(ToString::to_string);
        return Err(TlsError::System(
            error.unwrap_or_else(|| "there are none".to_owned()),
        ));
    }
    Ok(Anchors {
        roots,
        certificates: Vec::new(),
    })
}

fn anchors_of(path: &Path) -> Result<Anchors, TlsError> {
    let certificates = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|source| TlsError::Anchor {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(Anchors {
        roots,
        certificates,
    })
}
