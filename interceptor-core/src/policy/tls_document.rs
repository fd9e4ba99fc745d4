//! The key `tls` of a Target: which of its legs are encrypted, and how far a server is believed.
//!
//! It owns that key. It must not know what is in the files that it names.

use alloc::borrow::ToOwned;
use alloc::string::String;

use super::problem::Problem;
use super::read::{Fields, Reader};
use super::target_document::absolute_path;
use super::yaml::Node;

/// How a target's connections are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetTls {
    /// Between client and gateway.
    pub client: ClientTls,
    /// The target's own certificate, for the client's leg; `None`: one that the gateway issues.
    pub certificate: Option<CertificateFiles>,
    /// Between gateway and server.
    pub upstream: UpstreamTls,
    /// Who issued the server's certificate.
    pub authority: Option<Authority>,
    /// The name in the server's certificate, where it is another than the endpoint's.
    pub server_name: Option<String>,
    /// What the gateway shows to a server that asks for a client's certificate.
    pub client_certificate: Option<CertificateFiles>,
}

/// Whether a client may encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientTls {
    /// It may not.
    Off,
    /// It may.
    #[default]
    Allow,
    /// It has to.
    Require,
}

/// Whether the gateway encrypts, in the words of libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamTls {
    /// Never.
    Disable,
    /// Where the server can.
    #[default]
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, with a server that the authority has certified.
    VerifyAuthority,
    /// The same, and the certificate is for the server's name.
    VerifyFull,
}

impl UpstreamTls {
    /// The server's certificate is checked.
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyAuthority | Self::VerifyFull)
    }
}

/// A certificate and its key: absolute paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and after it those between it and its root.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// Those that the gateway's operating system trusts.
    System,
    /// Those in this PEM file.
    File(String),
}

pub(super) const TLS_KEYS: [&str; 8] = [
    "client",
    "certificate",
    "key",
    "upstream",
    "ca",
    "serverName",
    "clientCertificate",
    "clientKey",
];

const WITHIN: &str = "`tls`";

pub(super) const CLIENT_MODES: &[(&str, ClientTls)] = &[
    ("off", ClientTls::Off),
    ("allow", ClientTls::Allow),
    ("require", ClientTls::Require),
];

pub(super) const UPSTREAM_MODES: &[(&str, UpstreamTls)] = &[
    ("disable", UpstreamTls::Disable),
    ("prefer", UpstreamTls::Prefer),
    ("require", UpstreamTls::Require),
    ("verify-ca", UpstreamTls::VerifyAuthority),
    ("verify-full", UpstreamTls::VerifyFull),
];

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<TargetTls> {
    let fields = reader.fields(node, WITHIN, TLS_KEYS)?;
    let client = match fields.optional("client") {
        Some(node) => reader.one_of(node, "mode of `client`", CLIENT_MODES),
        None => Some(ClientTls::default()),
    };
    let upstream = match fields.optional("upstream") {
        Some(node) => reader.one_of(node, "mode of `upstream`", UPSTREAM_MODES),
        None => Some(UpstreamTls::default()),
    };
    let certificate = pair(reader, &fields, "certificate", "key");
    let client_certificate = pair(reader, &fields, "clientCertificate", "clientKey");
    let authority = match fields.optional("ca") {
        Some(node) => authority(reader, node).map(Some),
        None => Some(None),
    };
    let server_name = match fields.optional("serverName") {
        Some(node) => reader.text(node).map(|name| Some(name.to_owned())),
        None => Some(None),
    };
    let upstream = upstream?;
    match fields.optional("ca") {
        Some(node) if !upstream.verifies() => {
            reader.report(node.span, Problem::TlsAuthorityUnused);
        }
        None if upstream.verifies() => {
            let node = fields.optional("upstream")?;
            reader.report(node.span, Problem::TlsWithoutAuthority);
            return None;
        }
        _ => {}
    }
    Some(TargetTls {
        client: client?,
        certificate: certificate?,
        upstream,
        authority: authority?,
        server_name: server_name?,
        client_certificate: client_certificate?,
    })
}

/// A certificate and its key, which come together or not at all.
fn pair<const N: usize>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_, N>,
    certificate: &'static str,
    key: &'static str,
) -> Option<Option<CertificateFiles>> {
    let (given, missing, node) = match (fields.optional(certificate), fields.optional(key)) {
        (None, None) => return Some(None),
        (Some(certificate), Some(key)) => {
            let certificate = absolute_path(reader, certificate);
            let key = absolute_path(reader, key);
            return Some(Some(CertificateFiles {
                certificate: certificate?,
                key: key?,
            }));
        }
        (Some(node), None) => (certificate, key, node),
        (None, Some(node)) => (key, certificate, node),
    };
    reader.report(node.span, Problem::TlsHalfPair { given, missing });
    None
}

fn authority(reader: &mut Reader<'_>, node: &Node) -> Option<Authority> {
    match reader.text(node)? {
        "system" => Some(Authority::System),
        _ => absolute_path(reader, node).map(Authority::File),
    }
}
