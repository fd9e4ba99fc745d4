//! `cargo xtask bench kernel`: what the kernel plane costs those whom it does not concern, and what it
//! costs those whom it does, beside HAProxy with TPROXY.
//!
//! Two worlds of the same cables stand side by side: one with the plane and 10,000 targets, one without
//! a gateway. Rounds are short and alternate, so that what else the machine does falls on both; a ratio
//! is taken within a round.

mod load;
mod tally;
mod worlds;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use interceptor_tests::process;
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};

use crate::{cargo, setup, show};
use load::{Connector, Flow};
use tally::{Goal, Series, Tally};
use worlds::{HAPROXY_PORT, PASS_PORT, SERVER_PORT, SPLICE_PORT, Worlds};

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the measures to FILE as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only this part
    #[arg(long, value_name = "PART", value_parser = ["routed", "connect", "set_up", "pass"])]
    only: Option<String>,
    /// A few short rounds: shows that the bench works, and measures nothing
    #[arg(long)]
    quick: bool,
}

/// How much is done in a round, and how many rounds there are.
struct Scale {
    rounds: u32,
    /// Rounds of throughput, which varies more than all else.
    flow_rounds: u32,
    slice: Duration,
    round_trips: u32,
    udp_calls: u32,
    tcp_calls: u32,
    connections: u32,
}

const FULL: Scale = Scale {
    rounds: 60,
    flow_rounds: 300,
    slice: Duration::from_millis(40),
    round_trips: 2000,
    udp_calls: 20_000,
    tcp_calls: 1000,
    connections: 160,
};

const QUICK: Scale = Scale {
    rounds: 3,
    flow_rounds: 5,
    slice: Duration::from_millis(40),
    round_trips: 200,
    udp_calls: 1000,
    tcp_calls: 100,
    connections: 32,
};

pub(crate) fn run(options: &Options) -> Result<()> {
    let scale = if options.quick { QUICK } else { FULL };
    setup::run()?;
    show::progress("building the gateway");
    let binary = cargo::gateway_to_measure()?;
    let connector = cargo::build_beside_tests("bench-load")?;
    come_first()?;
    show::progress("building two worlds");
    let [mut on, off] = worlds::build()?;
    on.use_binary(&binary);
    let worlds = Worlds::start(&on, &off)?;
    let mut tally = Tally::default();
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| only == name);
    if wanted("routed") {
        routed(&worlds, &scale, &mut tally)?;
    }
    if wanted("connect") {
        connects(&worlds, &connector, &scale, &mut tally)?;
    }
    if wanted("set_up") {
        set_up(&worlds, &scale, &mut tally)?;
    }
    if wanted("pass") {
        passed(&worlds, &scale, &mut tally)?;
    }
    tally.print();
    if let Some(file) = &options.json {
        tally.write(file)?;
    }
    Ok(())
}

/// Whatever else the machine does should not decide between two sides: this process, and with it the load
/// and all proxies, get the processors before others.
fn come_first() -> Result<()> {
    let mut renice = Command::new("renice");
    renice.args(["-n", "-15", "-p", &std::process::id().to_string()]);
    process::run(renice, Duration::from_secs(5))?
        .success()
        .map(drop)
}

/// One kind of work, all rounds; `work` is told which of the two sides, ours first.
fn measure(
    mut series: Series,
    rounds: u32,
    tally: &mut Tally,
    mut work: impl FnMut(bool) -> Result<f64>,
) -> Result<()> {
    show::progress(series.name);
    for ours in [true, false] {
        work(ours)?; // Warm caches, windows and neighbours.
    }
    for round in 0..rounds {
        // Whoever is first in a round is second in the next.
        let (ours, other) = if round % 2 == 0 {
            let ours = work(true)?;
            (ours, work(false)?)
        } else {
            let other = work(false)?;
            (work(true)?, other)
        };
        series.add(ours, other);
    }
    tally.add(series);
    Ok(())
}

/// Traffic that is routed through the gateway host and bound for no target.
fn routed(worlds: &Worlds<'_>, scale: &Scale, tally: &mut Tally) -> Result<()> {
    let mut flows = Vec::new();
    for (world, server) in worlds.both() {
        flows.push(Flow::open(world, UNNAMED_V4, SERVER_PORT, server)?);
    }
    let mut near = Vec::new();
    for (world, server) in worlds.both() {
        near.push(Flow::open(world, TARGET_V4, SERVER_PORT, server)?);
    }
    let side = |ours: bool| usize::from(!ours);
    measure(
        Series::ratio("routed.throughput", "MB/s", Some(Goal::AtLeast(0.99))),
        scale.flow_rounds,
        tally,
        |ours| load::of(&mut flows, side(ours))?.upload(scale.slice),
    )?;
    measure(
        Series::ratio("routed.round_trip", "ns", Some(Goal::AtMost(1.02))),
        scale.rounds,
        tally,
        |ours| load::of(&mut flows, side(ours))?.round_trip(scale.round_trips),
    )?;
    measure(
        Series::ratio(
            "routed.round_trip.target_host",
            "ns",
            Some(Goal::AtMost(1.02)),
        ),
        scale.rounds,
        tally,
        |ours| load::of(&mut near, side(ours))?.round_trip(scale.round_trips),
    )
}

/// `connect` of local processes to what is no target.
fn connects(
    worlds: &Worlds<'_>,
    program: &std::path::Path,
    scale: &Scale,
    tally: &mut Tally,
) -> Result<()> {
    let mut sides = Vec::new();
    for (world, _) in worlds.both() {
        sides.push(Connector::start(world, program)?);
    }
    for (name, kind, calls) in [
        ("connect.udp", "udp", scale.udp_calls),
        ("connect.tcp", "tcp", scale.tcp_calls),
    ] {
        measure(
            Series::difference(name, "ns", Some(Goal::AtMost(200.0))),
            scale.rounds,
            tally,
            |ours| load::of(&mut sides, usize::from(!ours))?.connect(kind, calls),
        )?;
    }
    Ok(())
}

/// From `connect` on, through the gateway and through HAProxy.
fn set_up(worlds: &Worlds<'_>, scale: &Scale, tally: &mut Tally) -> Result<()> {
    for (name, first_byte, clients) in [
        ("set_up.connect.clients_1", false, 1),
        ("set_up.connect.clients_16", false, 16),
        ("set_up.first_byte.clients_1", true, 1),
        ("set_up.first_byte.clients_16", true, 16),
    ] {
        if first_byte && !worlds.passes {
            show::progress(&format!("{name}: this gateway has no `protocol: tcp`"));
            continue;
        }
        let port = if worlds.passes { PASS_PORT } else { 5432 };
        measure(
            Series::ratio(name, "µs", Some(Goal::AtMost(1.0))),
            scale.rounds,
            tally,
            |ours| {
                let (world, port) = if ours {
                    (worlds.on, port)
                } else {
                    (worlds.off, HAPROXY_PORT)
                };
                load::set_up(world, port, clients, scale.connections, first_byte)
            },
        )?;
    }
    Ok(())
}

/// Bytes that the gateway carries without understanding them.
fn passed(worlds: &Worlds<'_>, scale: &Scale, tally: &mut Tally) -> Result<()> {
    if !worlds.passes {
        show::progress("pass: this gateway has no `protocol: tcp`");
        return Ok(());
    }
    for (up, down, port) in [
        ("pass.up.to_haproxy", "pass.down.to_haproxy", HAPROXY_PORT),
        (
            "pass.up.to_haproxy_splice",
            "pass.down.to_haproxy_splice",
            SPLICE_PORT,
        ),
    ] {
        let mut flows = vec![
            Flow::open(worlds.on, TARGET_V4, PASS_PORT, &worlds.servers.0)?,
            Flow::open(worlds.off, TARGET_V4, port, &worlds.servers.1)?,
        ];
        for (name, is_up) in [(up, true), (down, false)] {
            let before = worlds.cpu_seconds(port)?;
            let mut moved = [0.0, 0.0];
            measure(
                Series::ratio(name, "MB/s", Some(Goal::AtLeast(1.0))),
                scale.flow_rounds,
                tally,
                |ours| {
                    let side = usize::from(!ours);
                    let flow = load::of(&mut flows, side)?;
                    let before = flow.bytes();
                    let rate = if is_up {
                        flow.upload(scale.slice)
                    } else {
                        flow.download(scale.slice)
                    }?;
                    if let Some(sum) = moved.get_mut(side) {
                        *sum += (flow.bytes() - before) as f64;
                    }
                    Ok(rate)
                },
            )?;
            let after = worlds.cpu_seconds(port)?;
            let per_gb = |side: usize| -> Option<f64> {
                let spent = after.get(side)? - before.get(side)?;
                Some(spent / (moved.get(side)? / 1e9))
            };
            if let (Some(ours), Some(other)) = (per_gb(0), per_gb(1)) {
                tally.add_processor(name, ours, other);
            }
        }
    }
    Ok(())
}
