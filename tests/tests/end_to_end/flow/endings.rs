//! Ends that nobody asked for, and rows that no buffer holds.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::policies::{OPEN, SHOP};
use interceptor_tests::wire::{Reply, Wire, query};
use interceptor_tests::world::{TARGET_V4, UNNAMED_V4};
use interceptor_tests::{World, wait_until, with_gateway};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a gateway may hold above what it holds without work, for a row of a gigabyte.
const ABOVE_IDLE_KIB_MAX: u64 = 16 << 10;

fn backend(hello: &[Reply]) -> Result<i32> {
    let key = hello.iter().find(|reply| reply.tag == b'K');
    let id = key.and_then(|key| key.body.first_chunk::<4>());
    Ok(i32::from_be_bytes(*id.context("no key")?))
}

/// Sends a query, waits until the server works on it, ends the server's process, and gives what the
/// client reads from then on.
fn ended(world: &World, host: std::net::Ipv4Addr, signal: Signal) -> Result<Vec<Reply>> {
    let mut wire = Wire::new(world.connect(host)?)?;
    wire.limit(Duration::from_secs(20))?;
    let process = backend(&wire.log_in()?)?;
    let mark = format!("SELECT pg_sleep(100), '{host} {signal}'");
    wire.send(&query(&mark))?;
    wait_until("the query runs", Duration::from_secs(20), || {
        world.postgres.has_seen(&mark)
    })?;
    kill(Pid::from_raw(process), signal)?;
    wire.until_closed()
}

#[test]
fn a_session_that_the_server_ends() -> Result<()> {
    with_gateway("end-terminated", OPEN, |world, gateway| {
        // SIGTERM is pg_terminate_backend.
        let ours = ended(world, TARGET_V4, Signal::SIGTERM)?;
        let theirs = ended(world, UNNAMED_V4, Signal::SIGTERM)?;
        assert_eq!(ours, theirs);
        let last = ours.last().and_then(|reply| reply.field(b'C'));
        assert_eq!(last.as_deref(), Some("57P01"), "{ours:?}");
        gateway.event("outcome", |event| event["error_code"] == "57P01")?;
        // A crash says nothing at all.
        let ours = ended(world, TARGET_V4, Signal::SIGKILL)?;
        assert!(ours.iter().all(|reply| reply.tag == b'T'), "{ours:?}");
        gateway.event("close", |event| {
            event["reason"] == "the target closed the connection"
        })?;
        Ok(())
    })
}

/// In the middle of a row nothing may be said: it would be read as the row's bytes.
#[test]
fn a_server_that_crashes_in_the_middle_of_a_row() -> Result<()> {
    with_gateway("end-crash", OPEN, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        let process = backend(&wire.log_in()?)?;
        wire.send(&query("SELECT repeat('r', 300000000)"))?;
        wire.until(b'T')?;
        let mut rest = Vec::new();
        let mut piece = vec![0; 1 << 16];
        while rest.len() < 1 << 20 {
            let read = std::io::Read::read(wire.stream(), &mut piece)?;
            rest.extend_from_slice(&piece[..read]);
        }
        kill(Pid::from_raw(process), Signal::SIGKILL)?;
        loop {
            match std::io::Read::read(wire.stream(), &mut piece) {
                Ok(0) | Err(_) => break,
                Ok(read) => rest.extend_from_slice(&piece[..read]),
            }
        }
        assert!(rest.len() < 300_000_000, "the whole row came");
        assert!(rest.split_off(11).iter().all(|byte| *byte == b'r'));
        gateway.event("close", |_| true)?;
        Ok(())
    })
}

/// One row of a gigabyte streams past masks on other columns and is refused by what would have to
/// read it whole.
#[test]
fn a_row_of_a_gigabyte() -> Result<()> {
    const BYTES: usize = 1_000_000_000;
    with_gateway("end-gigabyte", OPEN, |world, gateway| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(Duration::from_secs(120))?;
        wire.log_in()?;
        wire.query("SELECT 1")?;
        let idle = gateway.memory_peak_kib()?;
        let row = format!("SELECT repeat('x', {BYTES})");
        let counted = wire.count(&row)?;
        assert_eq!(counted.rows, 1);
        assert!(counted.bytes > BYTES);
        let copied = wire.count(&format!("COPY ({row}) TO STDOUT"))?;
        assert!(copied.rows == 1 && copied.bytes > BYTES);
        let peak = gateway.memory_peak_kib()?;
        assert!(peak < idle + ABOVE_IDLE_KIB_MAX, "{idle} KiB, then {peak}");
        Ok(())
    })
}

#[test]
fn a_row_that_is_too_large_to_be_masked() -> Result<()> {
    with_gateway("end-too-large", SHOP, |world, _| {
        let mut wire = Wire::new(world.connect(TARGET_V4)?)?;
        wire.limit(Duration::from_secs(60))?;
        wire.log_in()?;
        wire.send(&query("SELECT repeat('x', 70000000)"))?;
        let replies = wire.until_closed()?;
        let error = replies.last().context("no reply")?;
        assert_eq!(error.field(b'C').as_deref(), Some("42501"), "{error:?}");
        assert!(error.text().contains("67108864"), "{}", error.text());
        Ok(())
    })
}
