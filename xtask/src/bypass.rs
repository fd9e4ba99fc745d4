//! `cargo xtask bypass`: every known way past the gateway, tried.
//!
//! Each row of the [catalogue](catalogue) is tried twice in a world of its own. First without a
//! gateway, where it must reach the target: an attempt that never works shows nothing. Then with the
//! gateway, where a witness at the target says what arrived. What the attempt itself believes is shown,
//! and decides nothing.

mod catalogue;
mod judge;
mod place;
mod rows;
mod stage;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use interceptor_tests::{Gateway, World, process};

use crate::{cargo, setup, show};
use judge::Finding;
use place::Ground;
use rows::Row;
use stage::Trial;

/// What to try.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the findings to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Try only the rows whose name contains NAME
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut rows = catalogue::all();
    if let Some(part) = &options.only {
        rows.retain(|row| row.name.contains(part.as_str()));
        ensure!(!rows.is_empty(), "no row's name contains {part:?}");
    }
    setup::run()?;
    let mut world = World::new("bypass")?;
    show::progress("building the gateway and the attempts");
    world.use_binary(&cargo::build_gateway(cargo::Profile::Tests)?);
    let program = cargo::build_beside_tests("bypass-attempt")?;
    let findings = try_all(&world, &rows, &program)?;
    judge::print(&findings);
    if let Some(file) = &options.json {
        judge::write(&findings, file)?;
    }
    let failed = findings.iter().filter(|finding| !finding.is_ok()).count();
    if failed > 0 {
        bail!("{failed} of {} rows are not as expected", findings.len());
    }
    Ok(())
}

fn try_all(world: &World, rows: &[Row], program: &std::path::Path) -> Result<Vec<Finding>> {
    let ground = Ground::build(world, program)?;
    let mut trial = Trial::new(&ground, rows)?;
    trial.without_gateway()?;
    trial.begin_held()?;
    let policies = policies(world, rows, &ground)?;
    let mut gateway = Gateway::start(world, &policies)?;
    trial.with_gateway(&mut gateway)?;
    Ok(trial.findings())
}

/// The policy, with the unix socket where the gateway knows such endpoints.
fn policies(world: &World, rows: &[Row], ground: &Ground<'_>) -> Result<PathBuf> {
    let socket = ground.unix_socket();
    let policies = world.write_policy(&catalogue::policy(rows, Some(&socket)))?;
    let mut check = world.gateway_command(&world.binary()?, None)?;
    check.args(["policy", "check"]).arg(&policies);
    if process::run(check, Duration::from_secs(20))?
        .status
        .success()
    {
        return Ok(policies);
    }
    show::progress(
        "this gateway's policies know no unix sockets: their row will not be as expected",
    );
    world.write_policy(&catalogue::policy(rows, None))
}
