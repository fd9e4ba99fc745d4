//! PEM files of certificates and keys.
//!
//! It owns how they are read, and who may be able to read a key.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use interceptor_core::policy::{Authority as Believed, CertificateFiles, TargetTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::{AuthorityError, provider};

/// Bytes of a file that are read.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a target's encryption cannot be set up. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} holds no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds no private key in PEM form without a passphrase", path.display())]
    NoKey { path: PathBuf },
    #[error(
        "the private key {} can be read by others; it needs the mode 0600 or less if it belongs to the gateway's user, 0640 or less if it belongs to root",
        path.display()
    )]
    KeyExposed { path: PathBuf },
    #[error("the private key {} belongs neither to the gateway's user nor to root", path.display())]
    KeyOfOthers { path: PathBuf },
    #[error("the private key {} cannot be used: {source}", path.display())]
    UnusableKey {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("the certificate {} is not one of the key {}", certificate.display(), key.display())]
    OtherKey { certificate: PathBuf, key: PathBuf },
    #[error("`serverName` of target \"{target}\" is neither a host name nor an address: {name}")]
    ServerName { target: String, name: String },
    #[error("the certificates that the system trusts cannot be read: {0}; name a file in `ca`")]
    System(String),
    #[error("{} holds a certificate that cannot be believed: {source}", path.display())]
    Anchor {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(
        "the gateway has no certificate authority of its own; make one with `interceptor ca init`"
    )]
    NoAuthority,
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What reads the files, and remembers which it was asked for.
#[derive(Default)]
pub(super) struct Files {
    paths: BTreeSet<PathBuf>,
}

impl Files {
    pub(super) fn watch(&mut self, path: &Path) {
        self.paths.insert(path.to_owned());
    }

    pub(super) fn watch_target(&mut self, tls: &TargetTls) {
        for pair in [&tls.certificate, &tls.client_certificate]
            .into_iter()
            .flatten()
        {
            self.watch(Path::new(&pair.certificate));
            self.watch(Path::new(&pair.key));
        }
        if let Some(Believed::File(path)) = &tls.authority {
            self.watch(Path::new(path));
        }
    }

    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        self.paths.into_iter().collect()
    }

    /// A certificate with its key.
    pub(super) fn pair(
        &self,
        target: &str,
        pair: &CertificateFiles,
    ) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates(Path::new(&pair.certificate))?;
        let key = private_key(Path::new(&pair.key))?;
        if let Some(end) = chain.first().and_then(not_after)
            && end < SystemTime::now()
        {
            let path = &pair.certificate;
            tracing::warn!(
                target_name = target,
                path,
                "a certificate has expired: renew it"
            );
        }
        let loaded = provider().key_provider.load_private_key(key);
        let key = loaded.map_err(|source| TlsError::UnusableKey {
            path: PathBuf::from(&pair.key),
            source,
        })?;
        let fits = match (chain.first().and_then(public_key), key.public_key()) {
            (Some(shown), Some(held)) => shown == held.as_ref(),
            (shown, _) => shown.is_some(),
        };
        if !fits {
            return Err(TlsError::OtherKey {
                certificate: PathBuf::from(&pair.certificate),
                key: PathBuf::from(&pair.key),
            });
        }
        Ok(Arc::new(CertifiedKey::new(chain, key)))
    }
}

/// The certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = content(
        path,
        &File::open(path).map_err(|source| failed(path, source))?,
    )?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::NoCertificate {
        path: path.to_owned(),
    })
}

/// The private key of a file that nobody else can read.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    // Not blocking: a pipe in its place would stop the gateway.
    let mut options = File::options();
    let options = options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let file = options.open(path).map_err(|source| failed(path, source))?;
    let metadata = file.metadata().map_err(|source| failed(path, source))?;
    check_owner(path, &metadata)?;
    let content = content(path, &file)?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|_| TlsError::NoKey {
        path: path.to_owned(),
    })
}

/// Who may read a key, by the rules that PostgreSQL has for its own.
fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), TlsError> {
    let (mode, uid) = (metadata.mode(), metadata.uid());
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(TlsError::KeyOfOthers {
            path: path.to_owned(),
        });
    }
    let forbidden = if uid == 0 { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(TlsError::KeyExposed {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn content(path: &Path, file: &File) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let mut content = Zeroizing::new(Vec::new());
    let mut limited = file.take(FILE_BYTES_MAX + 1);
    limited
        .read_to_end(&mut content)
        .map_err(|source| failed(path, source))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(content)
}

fn failed(path: &Path, source: io::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        source,
    }
}

/// When a certificate ends.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))
}

/// The public key in a certificate, in DER.
fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}
