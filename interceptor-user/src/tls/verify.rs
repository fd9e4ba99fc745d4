//! How far a server is believed, as libpq's `sslmode` has it.
//!
//! It owns three things in which that is more than a chain of certificates: a certificate that is
//! itself among those believed needs no authority; the name may be in the common name of a certificate
//! without any other; and a signature by a certificate of X.509 version 1 is as good as another.

use std::sync::Arc;

use interceptor_core::policy::UpstreamTls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// Who is believed.
#[derive(Debug)]
pub(super) struct Anchors {
    pub(super) roots: RootCertStore,
    /// The same certificates, byte by byte.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Believes a server for one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) mode: UpstreamTls,
    pub(super) anchors: Arc<Anchors>,
    /// What the server may be called; one is enough.
    pub(super) names: Vec<ServerName<'static>>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.mode.verifies() {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = parse(end_entity)?;
        if self.anchors.certificates.contains(end_entity) {
            check_time(&parsed, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                &self.anchors.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        if self.mode == UpstreamTls::VerifyFull {
            self.check_name(end_entity, &parsed)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let parsed = parse(certificate)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl Verifier {
    fn check_name(
        &self,
        end_entity: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
    ) -> Result<(), Error> {
        let common = common_name(parsed);
        let is_named = self.names.iter().any(|name| match (&common, name) {
            (Some(common), ServerName::DnsName(name)) => name.as_ref().eq_ignore_ascii_case(common),
            (Some(_), _) => false,
            (None, name) => ParsedCertificate::try_from(end_entity)
                .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok()),
        });
        match is_named {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

fn check_time(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The common name, of a certificate that has no other name.
fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    // One that cannot be read may hold names.
    if let Some(names) = certificate.subject_alternative_name().ok()? {
        let is_name = |name: &GeneralName<'_>| {
            matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
        };
        if names.value.general_names.iter().any(is_name) {
            return None;
        }
    }
    let mut common = certificate.subject().iter_common_name();
    // Of several the server could mean any.
    let (first, second) = (common.next()?, common.next());
    second
        .is_none()
        .then(|| first.as_str().ok().map(str::to_owned))?
}
