//! What sessions cost in memory: many that are idle, and one with a large answer.
//!
//! No PostgreSQL here can have 10,000 backends. For that many a *stand-in* answers: a server of this
//! program that knows the start of the protocol and one query, and keeps the connection. A small number
//! of sessions with the real server is measured as a check.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::World;
use interceptor_tests::gateway::memory_peak_kib;
use interceptor_tests::wire::{self, Wire};
use interceptor_tests::world::TARGET_V4;

use super::paths::Path;
use crate::show;

/// Where the stand-in listens; the policy has a target for it.
pub(super) const STAND_IN_PORT: u16 = 5499;
/// Descriptors that are needed for something else than sessions.
const DESCRIPTORS_OTHERWISE: u64 = 400;
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The large answer: 1 GB in rows of a thousand bytes.
const LARGE_ROW_BYTES: usize = 1_000;

/// Raises the limit on open files to the host's, for this process and those that it starts. Gives how many
/// sessions fit below it: this process has both ends of each, the gateway likewise.
pub(super) fn raise_descriptors() -> Result<usize> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let sessions = hard.saturating_sub(DESCRIPTORS_OTHERWISE) / 2;
    Ok(usize::try_from(sessions).unwrap_or(usize::MAX))
}

/// KiB that the gateway takes for each of so many idle sessions with the stand-in, which have run one
/// query each.
pub(super) fn idle_on_stand_in(world: &World, gateway: u32, sessions: usize) -> Result<f64> {
    let address = SocketAddr::new(IpAddr::V4(TARGET_V4), STAND_IN_PORT);
    let listener = world.target.enter(|| TcpListener::bind(address))??;
    let server = std::thread::spawn(move || stand_in(&listener, sessions));
    let cost = idle(world, address, gateway, sessions)?;
    let served = server
        .join()
        .map_err(|_| anyhow!("the stand-in failed"))??;
    ensure!(
        served.len() == sessions,
        "the stand-in served {}",
        served.len()
    );
    Ok(cost)
}

/// The same with the real server.
pub(super) fn idle_on_server(world: &World, gateway: u32, sessions: usize) -> Result<f64> {
    idle(world, Path::Interceptor.address(), gateway, sessions)
}

fn idle(world: &World, address: SocketAddr, gateway: u32, sessions: usize) -> Result<f64> {
    let before = proportional_kib(gateway)?;
    let clients = world.client.enter(|| -> Result<Vec<Wire>> {
        let mut clients = Vec::with_capacity(sessions);
        for number in 1..=sessions {
            let stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
            let mut wire = Wire::new(stream)?;
            wire.limit(WAIT_MAX)?;
            wire.log_in()
                .with_context(|| format!("session {number} of {sessions}"))?;
            wire.query("SELECT 1")?;
            clients.push(wire);
            if number % 1_000 == 0 {
                show::progress(&format!("idle: {number} of {sessions} sessions"));
            }
        }
        Ok(clients)
    })??;
    let after = proportional_kib(gateway)?;
    drop(clients);
    Ok(after.saturating_sub(before) as f64 / sessions as f64)
}

/// Serves one connection after the other up to the answer of its first query, and keeps them.
fn stand_in(listener: &TcpListener, sessions: usize) -> Result<Vec<TcpStream>> {
    let mut kept = Vec::with_capacity(sessions);
    let settings = [
        wire::message(b'R', &0_u32.to_be_bytes()),
        wire::message(b'S', b"client_encoding\0UTF8\0"),
        wire::message(b'S', b"standard_conforming_strings\0on\0"),
        wire::message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        wire::message(b'Z', b"I"),
    ];
    let reply = [
        wire::message(b'C', b"SELECT 0\0"),
        wire::message(b'Z', b"I"),
    ];
    while kept.len() < sessions {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_nodelay(true)?;
        read_packet(&mut stream, 0)?;
        stream.write_all(&settings.concat())?;
        read_packet(&mut stream, 1)?;
        stream.write_all(&reply.concat())?;
        kept.push(stream);
    }
    Ok(kept)
}

/// Reads a packet with its length behind so many bytes.
fn read_packet(stream: &mut TcpStream, before: usize) -> Result<()> {
    let mut head = [0; 5];
    let head = head.get_mut(..before + 4).unwrap_or_default();
    stream.read_exact(head)?;
    let length: [u8; 4] = head.get(before..).unwrap_or_default().try_into()?;
    let body = u32::from_be_bytes(length).saturating_sub(4);
    let mut body = vec![0; usize::try_from(body)?];
    Ok(stream.read_exact(&mut body)?)
}

/// KiB above idle that the gateway takes at most while an answer of so many rows passes.
pub(super) fn large(world: &World, gateway: u32, rows: u64) -> Result<u64> {
    let stream = world.connect(TARGET_V4)?;
    let mut wire = Wire::new(stream)?;
    wire.limit(WAIT_MAX)?;
    wire.log_in()?;
    // Writing 5 makes the peak begin anew.
    fs::write(format!("/proc/{gateway}/clear_refs"), "5")?;
    let before = memory_peak_kib(gateway)?;
    let counted = wire.count(&format!(
        "SELECT repeat('x', {LARGE_ROW_BYTES}) FROM generate_series(1, {rows})"
    ))?;
    ensure!(counted.rows == rows, "{} of {rows} rows came", counted.rows);
    Ok(memory_peak_kib(gateway)?.saturating_sub(before))
}

/// A process's share of the memory that it has mapped.
fn proportional_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| anyhow!("no Pss of process {pid}"))
}
