//! TLS of the legs: certificates to show, certificates to believe.
//!
//! It owns the files that the policy names for it, the gateway's own authority, and what follows from
//! them for each target. It must not know sessions or sockets: who carries bytes asks here for a
//! configuration.

mod authority;
mod digest;
mod end_point;
mod files;
mod issued;
#[cfg(test)]
mod tests;
mod upstream;
mod verify;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use interceptor_core::policy::{ClientTls, Protocol, Snapshot, Target, TargetTls};
use rustls::crypto::CryptoProvider;

pub use authority::{Authority, AuthorityError, NewAuthority};
pub(crate) use digest::FilesDigest;
use files::Files;
pub(crate) use files::TlsError;
use issued::Issued;
pub(crate) use issued::Shown;
pub(crate) use upstream::{Handshake, Upstream, reason};

/// The protocol's name in ALPN.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// What is in force. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authority: PathBuf,
    current: RwLock<Arc<Material>>,
    /// The files that were looked at last, to see when they change.
    watched: Mutex<Vec<PathBuf>>,
}

/// What the files gave, for the targets of one policy.
#[derive(Debug, Default)]
pub(crate) struct Material {
    authority: Option<Authority>,
    issued: Issued,
    targets: HashMap<String, TargetMaterial>,
}

#[derive(Debug)]
struct TargetMaterial {
    client: ClientTls,
    own: Option<Arc<Shown>>,
    upstream: Arc<Upstream>,
}

impl Tls {
    /// Nothing is in force yet; the gateway's authority, if there is one, is in this directory.
    pub(crate) fn new(authority: &Path) -> Self {
        Self {
            inner: Arc::new(Inner {
                authority: authority.to_owned(),
                current: RwLock::default(),
                watched: Mutex::default(),
            }),
        }
    }

    /// Reads what a policy needs. It blocks.
    ///
    /// # Errors
    /// If a file cannot be read or used, and which.
    pub(crate) fn read(&self, policy: &Snapshot) -> Result<Material, TlsError> {
        let mut files = Files::default();
        let material = self.read_files(policy, &mut files);
        *self.watched() = files.into_paths();
        material
    }

    fn read_files(&self, policy: &Snapshot, files: &mut Files) -> Result<Material, TlsError> {
        let (certificate, key) = Authority::files(&self.inner.authority);
        files.watch(&certificate);
        files.watch(&key);
        let understood = |target: &&Arc<Target>| target.protocol == Protocol::Postgres;
        // All of them first, so that one that is wrong does not hide changes of the others.
        for target in policy.targets.iter().filter(understood) {
            files.watch_target(&target.tls);
        }
        let mut material = Material {
            authority: Authority::open(&self.inner.authority)?,
            ..Material::default()
        };
        for target in policy.targets.iter().filter(understood) {
            let entry = TargetMaterial::read(&target.name, &target.tls, files)?;
            material.targets.insert(target.name.clone(), entry);
        }
        Ok(material)
    }

    /// Tells the files as they are now from what they were.
    pub(crate) fn digest(&self) -> FilesDigest {
        FilesDigest::of(&self.watched())
    }

    /// Puts it in force, and gives what was.
    pub(crate) fn replace(&self, material: Arc<Material>) -> Arc<Material> {
        let current = self.inner.current.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, material)
    }

    /// Whether a client of a target can be shown a certificate.
    pub(crate) fn has_certificate(&self, target: &str) -> bool {
        let material = self.material();
        let entry = material.targets.get(target);
        entry.is_some_and(|entry| {
            entry.client != ClientTls::Off && (entry.own.is_some() || material.authority.is_some())
        })
    }

    /// The certificate to show to a client that dialled this address.
    ///
    /// # Errors
    /// If none can be issued.
    pub(crate) fn shown(&self, target: &Target, dialled: IpAddr) -> Result<Arc<Shown>, TlsError> {
        let material = self.material();
        let own = material.targets.get(&target.name);
        if let Some(own) = own.and_then(|entry| entry.own.as_ref()) {
            return Ok(Arc::clone(own));
        }
        let authority = material.authority.as_ref().ok_or(TlsError::NoAuthority)?;
        material
            .issued
            .shown(authority, target, dialled, SystemTime::now())
    }

    /// How to encrypt towards a target; `None` for one that is not in the policy any more.
    pub(crate) fn upstream(&self, target: &str) -> Option<Arc<Upstream>> {
        let material = self.material();
        let entry = material.targets.get(target)?;
        Some(Arc::clone(&entry.upstream))
    }

    fn material(&self) -> Arc<Material> {
        let current = self.inner.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        let watched = self.inner.watched.lock();
        watched.unwrap_or_else(PoisonError::into_inner)
    }
}

impl TargetMaterial {
    fn read(name: &str, tls: &TargetTls, files: &Files) -> Result<Self, TlsError> {
        let own = match &tls.certificate {
            Some(pair) => Some(Arc::new(Shown::own(files.pair(name, pair)?)?)),
            None => None,
        };
        Ok(Self {
            client: tls.client,
            own,
            upstream: Arc::new(Upstream::read(name, tls, files)?),
        })
    }
}

/// The cryptography of every leg.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}
