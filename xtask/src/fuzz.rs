//! `cargo xtask fuzz`: libFuzzer on the decoders, the analysis, the masks and the session machine.
//!
//! Built with coverage counters of stable rustc. What is found goes to `target/fuzz/artifacts`, a
//! corpus that grows to `target/fuzz/corpus`; a small one to begin with is in `fuzz/corpus`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{root, show};

const TARGETS: &[&str] = &["wire", "sql", "mask", "session"];

/// What libFuzzer asks of the compiler: a counter for each edge, and what is compared.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Bytes of one input; seconds that one may take; MiB of memory.
const LIMITS: &[&str] = &["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"];

#[derive(Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Only this one: wire, sql, mask or session
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

/// Builds the targets and runs them one after the other; the first finding ends it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen: Vec<&str> = match &options.target {
        None => TARGETS.to_vec(),
        Some(name) => match TARGETS.iter().find(|known| *known == name) {
            Some(known) => vec![*known],
            None => bail!(
                "there is no target {name}; there are {}",
                TARGETS.join(", ")
            ),
        },
    };
    let root = root()?;
    let place = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => root.join("target"),
    }
    .join("fuzz");
    let host = host()?;
    show::progress("building the targets with coverage counters");
    build(&root, &place, &host, &chosen)?;
    for target in chosen {
        fuzz(&root, &place, &host, target, options.seconds)?;
    }
    Ok(())
}

/// The machine's own target: named, so that build scripts and macros stay without counters.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_owned())
}

fn build(root: &Path, place: &Path, host: &str, targets: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", host, "--target-dir"])
        .arg(place)
        .arg("--manifest-path")
        .arg(root.join("fuzz/Cargo.toml"))
        .env("RUSTFLAGS", FLAGS.join(" "));
    for target in targets {
        cargo.args(["--bin", target]);
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the fuzz targets did not build");
    Ok(())
}

fn fuzz(root: &Path, place: &Path, host: &str, target: &str, seconds: u32) -> Result<()> {
    let grown = place.join("corpus").join(target);
    let artifacts = place.join("artifacts").join(target);
    for directory in [&grown, &artifacts] {
        fs::create_dir_all(directory)?;
    }
    show::progress(&format!("{target} for {seconds} s"));
    let mut program = Command::new(place.join(host).join("release").join(target));
    program
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(LIMITS)
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(&grown)
        .arg(root.join("fuzz/corpus").join(target));
    let status = program
        .status()
        .with_context(|| format!("cannot run {target}"))?;
    ensure!(
        status.success(),
        "{target} found something: the input is in {}, and the same program with its path runs it again",
        artifacts.display()
    );
    Ok(())
}
