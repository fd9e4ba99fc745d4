//! `cargo xtask bench`: of the kernel plane in [`kernel`], of decisions in [`policy`], and here `postgres`: the same work over four paths that cross the same cables.
//!
//! Direct, HAProxy (TCP mode), PgBouncer (session mode) and the gateway with policy, masks and
//! log take turns, round after round, so that whatever else the machine does falls on all of
//! them. Absolute figures mean little elsewhere; the ratios are the result.

mod kernel;
mod latency;
mod load;
mod memory;
mod paths;
mod pii;
mod policy;
mod report;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum as _};
use interceptor_tests::World;

use crate::{cargo, setup, show};
use load::Work;
use paths::{Laxness, Path, Paths};
use report::{Report, Sample, Series};

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Measure with pgbench, COPY and SELECT
    Postgres(Options),
    /// Measure what the kernel plane costs
    Kernel(kernel::Options),
    /// Measure what a decision costs
    Policy(policy::Options),
    /// Measure what patterns find and what they cost, beside Presidio's
    Pii(pii::Options),
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
    /// Measure only what begins with one of these: simple, prepared, latency, copy, select, memory, large, idle
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure prepared statements again with a gateway that is less strict, in rows of their own
    #[arg(long, value_delimiter = ',', value_enum)]
    also: Vec<Laxness>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|begin| name.starts_with(begin))
    }
}

/// How much work is done.
struct Scale {
    rounds: u32,
    seconds: u32,
    rows: u64,
    /// Queries of a round of `latency`.
    queries: usize,
    /// Idle sessions, with the stand-in and with the real server.
    idle: (usize, usize),
    /// Rows of a thousand bytes.
    large_rows: u64,
}

const FULL: Scale = Scale {
    rounds: 5,
    seconds: 2,
    rows: 2_000_000,
    queries: 1_000,
    idle: (10_000, 60),
    large_rows: 1_000_000,
};

const QUICK: Scale = Scale {
    rounds: 1,
    // A busy machine needs one for 64 logins.
    seconds: 3,
    rows: 50_000,
    queries: 200,
    idle: (200, 10),
    large_rows: 50_000,
};

/// pgbench's clients.
const CLIENTS: [u32; 3] = [1, 8, 64];

pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Postgres(options) => postgres(options),
        Bench::Kernel(options) => kernel::run(options),
        Bench::Policy(options) => policy::run(options),
        Bench::Pii(options) => pii::run(options),
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
    let sessions_max = memory::raise_descriptors()?;
    let mut world = World::new("bench")?;
    if chosen.contains(&Path::Interceptor) {
        show::progress("building the gateway");
        world.use_binary(&cargo::gateway_to_measure()?);
    }
    show::progress(&format!("filling the database with {} rows", scale.rows));
    load::prepare(&world, scale.rows)?;
    let mut paths = Paths::start(&world, &chosen)?;

    let mut report = Report::new(&chosen);
    let work = everything(&scale);
    for work in work.iter().filter(|work| options.wants(&work.name())) {
        report.add(measure(&world, &paths, work, &scale, "")?);
    }
    if options.wants("latency") {
        let rounds = scale.rounds;
        report.latencies(latency::measure(&world, &paths, rounds, scale.queries)?);
    }
    for path in &chosen {
        if let Some(kib) = paths.memory_peak_kib(*path)? {
            report.memory(*path, kib);
        }
    }
    let rest = of_gateway(
        &world,
        &mut paths,
        options,
        &scale,
        sessions_max,
        &mut report,
    );
    // What took minutes to measure is not lost with what failed.
    report.print();
    if let Some(file) = &options.json {
        report.write(file)?;
    }
    rest
}

/// What only the gateway is measured by.
fn of_gateway(
    world: &World,
    paths: &mut Paths<'_>,
    options: &Options,
    scale: &Scale,
    sessions_max: usize,
    report: &mut Report,
) -> Result<()> {
    if !paths.all().any(|path| path == Path::Interceptor) {
        ensure!(
            options.also.is_empty(),
            "--also is about the gateway: add interceptor to --paths"
        );
        return Ok(());
    }
    sizes(world, paths, options, scale, sessions_max, report)?;
    if options.wants("memory") {
        in_memory(world, paths, scale, report)?;
    }
    for laxness in &options.also {
        paths.gateway_less_strict(*laxness)?;
        prepared(world, paths, scale, report, report::less_strict(*laxness))?;
    }
    Ok(())
}

/// What sessions of the gateway take.
fn sizes(
    world: &World,
    paths: &Paths<'_>,
    options: &Options,
    scale: &Scale,
    sessions_max: usize,
    report: &mut Report,
) -> Result<()> {
    let gateway = paths.gateway_pid()?;
    if options.wants("large") {
        let kib = memory::large(world, gateway, scale.large_rows)?;
        report.figure("large.above_idle", kib as f64 / 1024.0, "MiB", Some(16.0));
    }
    if options.wants("idle") {
        let (stand_in, server) = scale.idle;
        let stand_in = stand_in.min(sessions_max);
        report.figure("idle.sessions", stand_in as f64, "sessions", None);
        let kib = memory::idle_on_server(world, gateway, server)?;
        report.figure("idle.with_postgresql", kib, "KiB a session", None);
        let kib = memory::idle_on_stand_in(world, gateway, stand_in)?;
        report.figure("idle.with_stand_in", kib, "KiB a session", Some(20.0));
    }
    Ok(())
}

/// pgbench again, with the gateway's log in memory: what the disk costs is the difference.
fn in_memory(
    world: &World,
    paths: &mut Paths<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    let guard = paths.gateway_in_memory()?;
    prepared(world, paths, scale, report, report::IN_MEMORY)?;
    paths.stop_gateway()?;
    drop(guard);
    Ok(())
}

/// pgbench with prepared statements; its rows are named by the variant of the gateway.
fn prepared(
    world: &World,
    paths: &Paths<'_>,
    scale: &Scale,
    report: &mut Report,
    variant: &str,
) -> Result<()> {
    for clients in CLIENTS {
        let work = Work::Pgbench {
            prepared: true,
            clients,
            seconds: scale.seconds,
        };
        report.add(measure(world, paths, &work, scale, variant)?);
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
fn measure(
    world: &World,
    paths: &Paths<'_>,
    work: &Work,
    scale: &Scale,
    variant: &str,
) -> Result<Series> {
    let name = format!("{variant}{}", work.name());
    let mut series = Series::new(name, work.unit());
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
