//! What several test files share: a driver's connection, and the secrets of the sample database.
#![allow(
    clippy::indexing_slicing,
    reason = "a test's helpers may fail by panicking"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream as StdStream};
use std::os::fd::AsFd as _;

use anyhow::{Result, ensure};
use interceptor_tests::postgres::{DATABASE, password};
use interceptor_tests::{Gateway, World};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, NoTls};

/// Runs an async test.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// A connection of tokio-postgres from the client's namespace: it prepares every statement and
/// asks for binary results, as most drivers do.
pub(crate) async fn driver(world: &World, host: impl Into<IpAddr>, user: &str) -> Result<Client> {
    let stream = socket(world, host)?;
    let mut config = Config::new();
    config
        .user(user)
        .password(password(user))
        .dbname(DATABASE)
        .application_name("driver");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    // It ends with the client; an error also reaches the query that waits for the answer.
    tokio::spawn(connection);
    Ok(client)
}

/// A TCP connection from the client's namespace, for tokio.
pub(crate) fn socket(world: &World, host: impl Into<IpAddr>) -> Result<TcpStream> {
    let stream = world.connect(host)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// Fails if `text` holds an address, a social security number or a card number of anybody.
pub(crate) fn hides_everything(world: &World, text: &str) -> Result<()> {
    for column in ["email", "ssn", "card"] {
        let values = world
            .postgres
            .directly(&format!("SELECT {column} FROM customers"))?;
        for value in values.lines() {
            ensure!(!text.contains(value), "{column} {value} is in\n{text}");
            // A part of it under another letter case is a leak as well.
            let start: String = value.chars().take(10).collect();
            ensure!(
                !text.to_lowercase().contains(&start.to_lowercase()),
                "{start}, the start of {column} {value}, is in\n{text}"
            );
        }
    }
    Ok(())
}

/// A stream of bytes that tells every one that is lost, doubled or moved: it repeats, but with a
/// length that no buffer has.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    at: usize,
}

impl Pattern {
    const PERIOD: usize = 65_521;
    const STEP: usize = 1 << 20;

    /// Sends so many bytes, from where the last call stopped.
    pub(crate) fn send(&mut self, to: &mut impl Write, count: u64) -> Result<()> {
        let mut left = usize::try_from(count)?;
        while left > 0 {
            let step = left.min(Self::STEP);
            to.write_all(&self.bytes[self.at..self.at + step])?;
            self.at = (self.at + step) % Self::PERIOD;
            left -= step;
        }
        Ok(())
    }

    /// Receives up to the end and gives the number of bytes.
    pub(crate) fn receive(&mut self, from: &mut impl Read) -> Result<u64> {
        let mut buffer = vec![0; Self::STEP];
        let mut received = 0_u64;
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(received);
            }
            ensure!(
                buffer[..count] == self.bytes[self.at..self.at + count],
                "other bytes than were sent, after {received}"
            );
            self.at = (self.at + count) % Self::PERIOD;
            received += u64::try_from(count)?;
        }
    }
}

impl Default for Pattern {
    fn default() -> Self {
        let mut state = 1_u32;
        let period: Vec<u8> = (0..Self::PERIOD)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        let bytes = period
            .iter()
            .copied()
            .cycle()
            .take(Self::PERIOD + Self::STEP)
            .collect();
        Self { bytes, at: 0 }
    }
}

/// From now on closing the socket resets the connection.
pub(crate) fn reset_on_drop(stream: &StdStream) -> Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(&stream.as_fd(), sockopt::Linger, &linger)?)
}

/// How often the record has each text as a command.
pub(crate) fn recorded_commands(gateway: &Gateway<'_>) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for event in gateway.events(u32::MAX)? {
        let is_command = event.get("kind").is_some_and(|kind| kind == "command");
        if let Some(text) = event.get("text").and_then(serde_json::Value::as_str)
            && is_command
        {
            *counts.entry(text.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The chain of the record holds together.
pub(crate) fn is_clean(gateway: &Gateway<'_>) -> Result<()> {
    let verdict = gateway.cli(&["audit", "verify"])?.success()?;
    ensure!(verdict.contains("intact"), "{verdict}");
    Ok(())
}
