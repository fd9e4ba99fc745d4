//! What a path adds to the time of one query, where nothing else waits: one client, one query after the
//! other, the median of many.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::World;
use interceptor_tests::wire::{self, Wire};

use super::paths::{Path, Paths};
use super::report::Latencies;
use crate::show;

/// Queries that are not measured: caches fill, sockets grow.
const WARM_UP: usize = 100;

/// Rounds over all paths: A B C D, A B C D, …
pub(super) fn measure(
    world: &World,
    paths: &Paths<'_>,
    rounds: u32,
    queries: usize,
) -> Result<Latencies> {
    let mut clients = Vec::new();
    for path in paths.all() {
        clients.push((path, log_in(world, path)?));
    }
    let mut latencies = Latencies::default();
    for round in 1..=rounds {
        for (path, client) in &mut clients {
            latencies.add(*path, p50_us(client, queries)?);
        }
        show::progress(&format!("latency: round {round} of {rounds}"));
    }
    Ok(latencies)
}

fn log_in(world: &World, path: Path) -> Result<Wire> {
    let address = path.address();
    let stream = world
        .client
        .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(10)))?
        .with_context(|| format!("no connection over {path}"))?;
    let mut wire = Wire::new(stream)?;
    wire.log_in()?;
    Ok(wire)
}

/// The median of so many queries, in microseconds.
fn p50_us(client: &mut Wire, queries: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(queries);
    for number in 0..WARM_UP + queries {
        let id = number % 100_000 + 1;
        let sql = format!("SELECT abalance FROM pgbench_accounts WHERE aid = {id}");
        let query = wire::query(&sql);
        let start = Instant::now();
        client.send(&query)?;
        let counted = client.count_rest()?;
        let elapsed = start.elapsed();
        ensure!(counted.rows == 1, "{sql} gave {} rows", counted.rows);
        if number >= WARM_UP {
            times.push(elapsed);
        }
    }
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(middle.as_secs_f64() * 1e6)
}
