//! `interceptor ca`: the gateway's own certificate authority.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::CliError;
use super::arguments::{CaCommand, CaPlace};
use crate::tls::{Authority, AuthorityError, NewAuthority};

/// How clients trust it; for a person, and so not among the output that goes into a file.
const TRUST: &str = "Have clients trust this certificate, or add it to what they trust already:
  psql, libpq     sslmode=verify-full sslrootcert=FILE, or PGSSLROOTCERT=FILE
  psycopg, asyncpg, ODBC   as libpq
  Node.js         NODE_EXTRA_CA_CERTS=FILE
  pgjdbc          sslmode=verify-full&sslrootcert=FILE, or keytool -importcert into its truststore
  Go, Rust        sslrootcert=FILE in the connection string
  the system      cp FILE /usr/local/share/ca-certificates/interceptor.crt && update-ca-certificates
";

pub(super) fn run(command: CaCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        CaCommand::Init { name, days, place } => {
            let new = NewAuthority {
                name: name.unwrap_or_else(default_name),
                valid: Duration::from_secs(u64::from(days) * 24 * 60 * 60),
            };
            let authority = Authority::create(&place.ca, &new)?;
            if !place.json {
                writeln!(
                    out,
                    "made a certificate authority in {}",
                    place.ca.display()
                )?;
            }
            show(&authority, &place, out)
        }
        CaCommand::Show { place } => show(&open(&place.ca)?, &place, out),
        CaCommand::Export { place } => {
            let authority = open(&place.ca)?;
            if place.json {
                let mut shown = described(&authority, &place.ca);
                if let Some(shown) = shown.as_object_mut() {
                    shown.insert("pem".to_owned(), authority.pem().into());
                }
                return Ok(writeln!(out, "{shown}")?);
            }
            // Into a terminal both are seen, into a file the certificate alone goes.
            eprint!("{TRUST}");
            Ok(write!(out, "{}", authority.pem())?)
        }
    }
}

fn open(directory: &Path) -> Result<Authority, AuthorityError> {
    Authority::open(directory)?.ok_or_else(|| AuthorityError::Missing {
        directory: directory.to_owned(),
    })
}

fn show(authority: &Authority, place: &CaPlace, out: &mut impl Write) -> Result<(), CliError> {
    if place.json {
        return Ok(writeln!(out, "{}", described(authority, &place.ca))?);
    }
    writeln!(out, "name         {}", authority.name())?;
    writeln!(
        out,
        "until        {}",
        humantime::format_rfc3339_seconds(authority.end())
    )?;
    writeln!(out, "fingerprint  SHA-256 {}", authority.fingerprint())?;
    let (certificate, key) = Authority::files(&place.ca);
    writeln!(out, "certificate  {}", certificate.display())?;
    writeln!(out, "key          {}", key.display())?;
    Ok(())
}

fn described(authority: &Authority, directory: &Path) -> Value {
    let (certificate, key) = Authority::files(directory);
    let until: SystemTime = authority.end();
    let seconds = until
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    json!({
        "name": authority.name(),
        "until": humantime::format_rfc3339_seconds(until).to_string(),
        "until_unix_seconds": seconds,
        "sha256": authority.fingerprint(),
        "certificate": certificate.display().to_string(),
        "key": key.display().to_string(),
    })
}

fn default_name() -> String {
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|host| host.into_string().ok());
    host.map_or_else(
        || "interceptor CA".to_owned(),
        |host| format!("interceptor CA {host}"),
    )
}
