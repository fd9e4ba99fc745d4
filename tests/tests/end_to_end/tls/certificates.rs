//! Certificates of the tests, and a server that shows them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::postgres::ACCOUNT;
use interceptor_tests::world::UNNAMED_V4;
use interceptor_tests::{From, World, wait_until};
use nix::unistd::User;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority.
pub(super) struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

/// A certificate and its key, in PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl TestAuthority {
    pub(super) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = named(name, &[])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    pub(super) fn issue(&self, common: &str, names: &[&str]) -> Result<Pair> {
        self.sign(named(common, names)?)
    }

    /// One that has expired.
    pub(super) fn issue_old(&self, common: &str, names: &[&str]) -> Result<Pair> {
        let mut parameters = named(common, names)?;
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(parameters)
    }

    fn sign(&self, parameters: CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: parameters.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn named(common: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common);
    Ok(parameters)
}

/// Writes a file into the world, for root alone.
pub(super) fn file(world: &World, name: &str, text: &str) -> Result<PathBuf> {
    let path = world.directory().join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

impl Pair {
    /// Writes both, and gives the paths.
    pub(super) fn files(&self, world: &World, name: &str) -> Result<(PathBuf, PathBuf)> {
        Ok((
            file(world, &format!("{name}.pem"), &self.certificate)?,
            file(world, &format!("{name}.key"), &self.key)?,
        ))
    }
}

/// Has the target's server encrypt with this pair.
pub(super) fn serve(world: &World, pair: &Pair) -> Result<()> {
    let data = world.directory().join("postgres/data");
    for (name, text) in [("tls.pem", &pair.certificate), ("tls.key", &pair.key)] {
        to_server(&data.join(name), text)?;
    }
    world.postgres.directly(
        "ALTER SYSTEM SET ssl_cert_file = 'tls.pem';
         ALTER SYSTEM SET ssl_key_file = 'tls.key';
         ALTER SYSTEM SET ssl = on",
    )?;
    reload(world)?;
    wait_until("the server encrypts", Duration::from_secs(20), || {
        let direct = world.psql(From::Client).user("wire").host(UNNAMED_V4);
        let tried = direct.setting("PGSSLMODE", "require").run("SELECT 1")?;
        Ok(tried.status.success())
    })
}

/// Who may connect, and how, in the words of `pg_hba.conf`.
pub(super) fn admit(world: &World, lines: &str) -> Result<()> {
    let path = world.directory().join("postgres/data/pg_hba.conf");
    fs::write(&path, format!("local all all peer\n{lines}\n"))?;
    reload(world)
}

/// Writes a file that is the server's alone.
pub(super) fn to_server(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let account = User::from_name(ACCOUNT)?.context("no account of PostgreSQL's")?;
    Ok(chown(
        path,
        Some(account.uid.as_raw()),
        Some(account.gid.as_raw()),
    )?)
}

pub(super) fn reload(world: &World) -> Result<()> {
    let loaded = "SELECT pg_conf_load_time()";
    let before = world.postgres.directly(loaded)?;
    world.postgres.directly("SELECT pg_reload_conf()")?;
    wait_until("the server has reloaded", Duration::from_secs(20), || {
        Ok(world.postgres.directly(loaded)? != before)
    })
}
