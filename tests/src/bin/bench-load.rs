//! Calls `connect` in a loop for `cargo xtask bench kernel`, in a cgroup that the bench chooses.
//!
//! Each line of the standard input is `udp N` or `tcp N`; the answer is nanoseconds a call. The address
//! is one of this host, at a port where nobody listens and that no policy names: what is measured is the
//! system call, with whatever programs the cgroup has on it.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, SockAddr, Socket, Type};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let (kind, count) = line
            .split_once(' ')
            .context("a line is a kind and a number")?;
        let count: u32 = count.parse()?;
        let call_ns = match kind {
            "udp" => udp(count)?,
            "tcp" => tcp(count)?,
            other => bail!("no kind {other:?}"),
        };
        let mut out = std::io::stdout();
        writeln!(out, "{call_ns:.1}")?;
        out.flush()?;
    }
    Ok(())
}

fn nobody() -> SockAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9)).into()
}

/// Calls in one measurement of a time that the clock itself would blur.
const BATCH: u32 = 100;

/// One socket that is connected again and again: no packet is sent.
fn udp(count: u32) -> Result<f64> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let to = nobody();
    let mut times = Vec::new();
    for _ in 0..count / BATCH {
        let start = Instant::now();
        for _ in 0..BATCH {
            socket.connect(&to)?;
        }
        times.push(start.elapsed() / BATCH);
    }
    median(times)
}

/// A new socket each time, which a reset answers at once. Only `connect` is on the clock.
fn tcp(count: u32) -> Result<f64> {
    let to = nobody();
    let mut times = Vec::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        let start = Instant::now();
        let result = socket.connect(&to);
        times.push(start.elapsed());
        // Over loopback the reset is there before the call returns, or shortly after.
        match result.map_err(|error| error.raw_os_error()) {
            Err(Some(libc::ECONNREFUSED | libc::EINPROGRESS)) => {}
            other => bail!("somebody listens on port 9: {other:?}"),
        }
    }
    median(times)
}

/// In nanoseconds. The mean would be that of the scheduler.
fn median(mut times: Vec<Duration>) -> Result<f64> {
    times.sort();
    let middle = times.get(times.len() / 2).context("no calls")?;
    Ok(middle.as_nanos() as f64)
}
