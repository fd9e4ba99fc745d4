//! The gateway's own certificate authority: it certifies targets towards clients.
//!
//! It owns two files in a directory that only the gateway's user can enter, and what is signed with
//! them. The key is of P-256, which every client of PostgreSQL takes.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;

use super::files::{TlsError, certificates, private_key};
use super::provider;

/// The authority's certificate, in its directory.
const CERTIFICATE: &str = "ca.pem";
/// Its private key.
const KEY: &str = "ca.key";
/// Clocks differ: certificates begin so long before they are issued.
const BEFORE: Duration = Duration::from_secs(60 * 60);

/// What went wrong with the authority. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or the directory.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is one already.
    #[error(
        "there is a certificate authority in {} already; clients trust it, so it is not replaced: move its files away first if you want another",
        directory.display()
    )]
    Exists {
        /// Its directory.
        directory: PathBuf,
    },
    /// There is none.
    #[error("there is no certificate authority in {}; make one with `interceptor ca init`", directory.display())]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A file of it cannot be read as what it is.
    #[error("the certificate authority cannot be used: {0}")]
    Files(String),
    /// Its certificate is over.
    #[error("the certificate of the authority in {} has expired; make another with `interceptor ca init`, and have clients trust it", directory.display())]
    Expired {
        /// Its directory.
        directory: PathBuf,
    },
    /// Signing failed.
    #[error("a certificate cannot be issued: {0}")]
    Issue(String),
}

/// What a new authority is to be.
#[derive(Debug, Clone)]
pub struct NewAuthority {
    /// Its name in certificates.
    pub name: String,
    /// How long it is valid.
    pub valid: Duration,
}

/// An authority with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    end: SystemTime,
}

// By hand: it holds a private key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// The files of the authority in a directory: its certificate and its key.
    pub fn files(directory: &Path) -> (PathBuf, PathBuf) {
        (directory.join(CERTIFICATE), directory.join(KEY))
    }

    /// Makes an authority.
    ///
    /// # Errors
    /// If there is one in this directory, or the files cannot be written.
    pub fn create(directory: &Path, new: &NewAuthority) -> Result<Self, AuthorityError> {
        let (certificate_file, key_file) = Self::files(directory);
        if [&certificate_file, &key_file]
            .iter()
            .any(|path| path.symlink_metadata().is_ok())
        {
            return Err(AuthorityError::Exists {
                directory: directory.to_owned(),
            });
        }
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(directory);
        made.map_err(|source| failed("create", directory, source))?;
        // It may have been there, for others to enter.
        let closed = fs::set_permissions(
            directory,
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        );
        closed.map_err(|source| failed("close to others", directory, source))?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(issue)?;
        let now = SystemTime::now();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, new.name.as_str());
        // It certifies servers, and no other authority.
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut parameters, now - BEFORE, now + new.valid);
        parameters.serial_number = Some(serial()?);
        let certificate = parameters.self_signed(&key).map_err(issue)?;
        let written = zeroize::Zeroizing::new(key.serialize_pem());
        write_new(&key_file, 0o600, written.as_bytes())?;
        write_new(&certificate_file, 0o644, certificate.pem().as_bytes())?;
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|source| failed("write", directory, source))?;
        Ok(Self {
            certificate: certificate.der().clone(),
            end: now + new.valid,
            issuer: Issuer::new(parameters, key),
        })
    }

    /// Reads an authority; `None` if there is none in this directory.
    ///
    /// # Errors
    /// If there is one that cannot be used.
    pub fn open(directory: &Path) -> Result<Option<Self>, AuthorityError> {
        let (certificate_file, key_file) = Self::files(directory);
        match certificate_file.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &certificate_file, source)),
            Ok(_) => {}
        }
        let unusable = |error: TlsError| AuthorityError::Files(error.to_string());
        let wrong =
            |what: &str| AuthorityError::Files(format!("{}: {what}", certificate_file.display()));
        let mut found = certificates(&certificate_file).map_err(unusable)?;
        let certificate = found.swap_remove(0);
        let key: PrivateKeyDer<'_> = private_key(&key_file).map_err(unusable)?;
        let key =
            KeyPair::try_from(&key).map_err(|error| AuthorityError::Files(error.to_string()))?;
        let parsed = parse(&certificate).ok_or_else(|| wrong("no certificate of X.509"))?;
        if !parsed.is_ca() {
            return Err(wrong("no certificate of an authority"));
        }
        if parsed.public_key().subject_public_key.data != rcgen::PublicKeyData::der_bytes(&key) {
            return Err(wrong("its key is another than the one beside it"));
        }
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let end = UNIX_EPOCH + Duration::from_secs(end);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(issue)?;
        if end < SystemTime::now() {
            return Err(AuthorityError::Expired {
                directory: directory.to_owned(),
            });
        }
        Ok(Some(Self {
            certificate,
            issuer,
            end,
        }))
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.certificate)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        parse(&self.certificate)
            .map(|parsed| parsed.subject().to_string())
            .unwrap_or_default()
    }

    /// When it is over.
    #[must_use]
    pub const fn end(&self) -> SystemTime {
        self.end
    }

    /// The SHA-256 of its certificate, by which people compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// Certifies a target under these names and addresses.
    pub(super) fn issue(
        &self,
        target: &str,
        names: Vec<String>,
        now: SystemTime,
        valid: Duration,
    ) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(issue)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, target);
        for name in names {
            parameters
                .subject_alt_names
                .push(match name.parse::<IpAddr>() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(name.try_into().map_err(issue)?),
                });
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        parameters.serial_number = Some(serial()?);
        // No certificate outlives its authority.
        let end = self.end.min(now + valid);
        set_validity(&mut parameters, now - BEFORE, end);
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(issue)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let chain = vec![certificate.der().clone()];
        let certified = CertifiedKey::from_der(chain, key, &provider());
        certified
            .map(Arc::new)
            .map_err(|error| AuthorityError::Issue(error.to_string()))
    }
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), AuthorityError> {
    let mut options = File::options();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|source| failed("write", path, source))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

fn issue(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Issue(error.to_string())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is of one byte a character.
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// A serial number that no other certificate of this authority has.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    let filled = provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| AuthorityError::Issue("there are no random bytes".to_owned()))?;
    // Positive, and never shorter than it is.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(parameters: &mut CertificateParams, begin: SystemTime, end: SystemTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(since.as_secs())
    };
    parameters.not_before = epoch + seconds(begin);
    parameters.not_after = epoch + seconds(end);
}
