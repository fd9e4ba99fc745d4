//! `cargo xtask bench`: of the kernel plane in [`kernel`], of decisions in [`policy`], and here `postgres`: the same work over four paths that cross the same cables.
//!
//! Direct, HAProxy (TCP mode), PgBouncer (session mode) and the gateway with policy, masks and
//! log take turns, round after round, so that whatever else the machine does falls on all of
//! them. Absolute figures mean little elsewhere; the ratios are the result.

mod kernel;
mod load;
mod paths;
mod policy;
mod report;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum as _};
use interceptor_tests::World;

use crate::{cargo, setup, show};
use load::Work;
use paths::{Path, Paths};
use report::{Report, Sample, Series};

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Measure with pgbench, COPY and SELECT
    Postgres(Options),
    /// Measure what the kernel plane costs
    Kernel(kernel::Options),
    /// Measure what a decision costs
    Policy(policy::Options),
}

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the measures to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One short round on little data: shows that the bench works, and measures nothing
    #[arg(long)]
    quick: bool,
    /// Measure these paths only
    #[arg(long, value_delimiter = ',', value_enum)]
    paths: Vec<Path>,
}

/// How much work is done.
struct Scale {
    rounds: u32,
    seconds: u32,
    rows: u64,
}

const FULL: Scale = Scale {
    rounds: 5,
    seconds: 2,
    rows: 2_000_000,
};

const QUICK: Scale = Scale {
    rounds: 1,
    // A busy machine needs one for 64 logins.
    seconds: 3,
    rows: 50_000,
};

/// pgbench's clients.
const CLIENTS: [u32; 3] = [1, 8, 64];

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Postgres(options) => postgres(options),
        Bench::Kernel(options) => kernel::run(options),
        Bench::Policy(options) => policy::run(options),
    }
}

fn postgres(options: &Options) -> Result<()> {
    let scale = if options.quick { QUICK } else { FULL };
    let mut chosen = options.paths.clone();
    if chosen.is_empty() {
        chosen = Path::value_variants().to_vec();
    }
    chosen.sort();
    chosen.dedup();

    setup::run()?;
    let mut world = World::new("bench")?;
    if chosen.contains(&Path::Interceptor) {
        show::progress("building the gateway");
        world.use_binary(&cargo::build_gateway(cargo::Profile::Release)?);
    }
    show::progress(&format!("filling the database with {} rows", scale.rows));
    load::prepare(&world, scale.rows)?;
    let paths = Paths::start(&world, &chosen)?;

    let mut report = Report::new(&chosen);
    for work in everything(&scale) {
        report.add(measure(&world, &paths, &work, &scale)?);
    }
    for path in &chosen {
        if let Some(kib) = paths.memory_peak_kib(*path)? {
            report.memory(*path, kib);
        }
    }
    report.print();
    if let Some(file) = &options.json {
        report.write(file)?;
    }
    Ok(())
}

fn everything(scale: &Scale) -> Vec<Work> {
    let mut list = Vec::new();
    for prepared in [false, true] {
        for clients in CLIENTS {
            list.push(Work::Pgbench {
                prepared,
                clients,
                seconds: scale.seconds,
            });
        }
    }
    for copy in [true, false] {
        for masked in [false, true] {
            list.push(Work::Bulk {
                copy,
                masked,
                rows: scale.rows,
            });
        }
    }
    list
}

/// All rounds of one kind of work: A B C D, A B C D, …
fn measure(world: &World, paths: &Paths<'_>, work: &Work, scale: &Scale) -> Result<Series> {
    let mut series = Series::new(work.name(), work.unit());
    for round in 1..=scale.rounds {
        for path in paths.all() {
            let cpu = paths.cpu_seconds(path)?;
            let done = work.run(world, path)?;
            ensure!(done.items > 0, "{} did nothing over {path}", work.name());
            let items = done.items as f64;
            let spent = match (cpu, paths.cpu_seconds(path)?) {
                (Some(before), Some(after)) => Some((after - before) / items * 1e6),
                _ => None,
            };
            series.add(
                path,
                Sample {
                    rate: items / done.elapsed.as_secs_f64(),
                    cpu_us_per_item: spent,
                },
            );
        }
        show::progress(&format!(
            "{}: round {round} of {}",
            work.name(),
            scale.rounds
        ));
    }
    Ok(series)
}
