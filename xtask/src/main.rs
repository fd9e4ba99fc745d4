//! Everything a developer runs: `cargo xtask setup | test | demo | bypass | bench | fuzz | kernels`.
//!
//! It drives other programs and reports; it knows nothing that the gateway's own crates know.

mod bench;
mod bypass;
mod cargo;
mod check;
mod demo;
mod fuzz;
mod kernels;
mod setup;
mod show;
mod tamper;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};

/// Everything a developer runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need (Debian 12 and later; elsewhere says what is missing)
    Setup,
    /// Check everything: formatting, lints, tests, end-to-end tests
    Test(check::Options),
    /// Show the gateway at work between a real psql and a real PostgreSQL, and check each claim
    Demo(demo::Options),
    /// Try every known way past the gateway, and say what arrived
    Bypass(bypass::Options),
    /// Measure the gateway beside other proxies
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Feed hostile bytes to decoders, analysis, masks and sessions
    Fuzz(fuzz::Options),
    /// Run the gateway on Debian's kernels in QEMU, and show what each kernel has
    Kernels(kernels::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show::failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    interceptor_tests::interrupt::install()?;
    match task {
        Task::Setup => setup::run(),
        Task::Test(options) => check::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Bypass(options) => bypass::run(&options),
        Task::Bench { what } => bench::run(&what),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Kernels(options) => kernels::run(&options),
    }
}

/// The root of the workspace.
fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .ok_or_else(|| anyhow!("xtask has no workspace around it"))
}
