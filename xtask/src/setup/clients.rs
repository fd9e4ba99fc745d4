//! Clients for the tests that Debian does not have, or not as new: what applications install from
//! PyPI and npm.
//!
//! Their versions and digests are in `xtask/pip` and `xtask/npm/clients`. They go where
//! `tests/src/clients.rs` expects them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::clients::CLIENTS;

use super::{find, install_if_missing};
use crate::show;

const WHEELS: &str = include_str!("../../pip/clients.txt");
const PACKAGE: &str = include_str!("../../npm/clients/package.json");
const LOCK: &str = include_str!("../../npm/clients/package-lock.json");
/// Kept beside each: what was installed.
const INSTALLED: &str = "installed";

/// Installs them, unless these very versions are there.
pub(super) fn install() -> Result<()> {
    install_python(&Path::new(CLIENTS).join("python"))?;
    install_node(&Path::new(CLIENTS).join("node"))
}

fn install_python(place: &Path) -> Result<()> {
    // Debian's own before others in PATH: they come and go.
    let python = find("/usr/bin/python3")
        .or_else(|| find("python3"))
        .context("there is no python3")?;
    // A newer Python does not read what was installed for an older one.
    let python = fs::canonicalize(python)?;
    let wanted = format!("# {}\n{WHEELS}", python.display());
    if is_installed(place, &wanted) {
        return Ok(());
    }
    show::progress(&format!("installing clients of Python in {CLIENTS}"));
    prepare(place)?;
    let mut venv = Command::new(python);
    run(venv.args(["-m", "venv", "--clear"]).arg(place))?;
    let list = place.join("clients.txt");
    fs::write(&list, WHEELS)?;
    let mut pip = Command::new(place.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes", "-r"])
        .arg(&list);
    run(&mut pip)?;
    Ok(fs::write(place.join(INSTALLED), wanted)?)
}

fn install_node(place: &Path) -> Result<()> {
    if is_installed(place, LOCK) {
        return Ok(());
    }
    install_if_missing("npm", "npm")?;
    show::progress(&format!("installing clients of node in {CLIENTS}"));
    prepare(place)?;
    fs::write(place.join("package.json"), PACKAGE)?;
    fs::write(place.join("package-lock.json"), LOCK)?;
    let scratch = tempfile::tempdir()?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(["--loglevel=error", "--cache"])
        .arg(scratch.path())
        .current_dir(place);
    run(&mut npm)?;
    Ok(fs::write(place.join(INSTALLED), LOCK)?)
}

fn is_installed(place: &Path, wanted: &str) -> bool {
    fs::read_to_string(place.join(INSTALLED)).is_ok_and(|installed| installed == wanted)
}

/// Makes the directory anew.
fn prepare(place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)
        .with_context(|| format!("cannot make {}; run setup as root", place.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} failed ({status}); see above");
    Ok(())
}
