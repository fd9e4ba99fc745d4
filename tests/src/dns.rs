//! A real DNS server on the gateway host: dnsmasq, whose records a test changes while it runs.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::process::{Running, wait_until};
use crate::world::{GATEWAY_V4, World};

/// The TTL of its answers.
pub const TTL: Duration = Duration::from_secs(1);

/// A running server. It knows the names below `internal` that it is told, and no other.
#[derive(Debug)]
pub struct Dns<'w> {
    world: &'w World,
    process: Option<Running>,
}

impl<'w> Dns<'w> {
    /// Starts it with these records: names, and the addresses of each.
    pub fn start(world: &'w World, records: &[(&str, &[&str])]) -> Result<Self> {
        let mut dns = Self {
            world,
            process: None,
        };
        fs::write(dns.records_file(), lines(records))?;
        dns.restart()?;
        Ok(dns)
    }

    /// Starts it again, with the records that it had.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.world.gateway_command("dnsmasq", None)?;
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null"])
            .args([
                "--user=root",
                "--group=root",
                "--pid-file=",
                "--log-facility=-",
            ])
            .args(["--no-resolv", "--no-hosts", "--local=/internal/"])
            .args(["--bind-interfaces", "--except-interface=lo"])
            .arg(format!("--listen-address={GATEWAY_V4}"))
            .arg(format!("--local-ttl={}", TTL.as_secs()))
            .arg(format!("--addn-hosts={}", self.records_file().display()));
        let log = self.world.directory().join("dns.log");
        let mut process = Running::spawn_logged(command, &log)?;
        wait_until("the DNS server answers", Duration::from_secs(10), || {
            anyhow::ensure!(
                !process.has_ended()?,
                "dnsmasq did not start; is it installed? `cargo xtask setup`\n{}",
                process.stderr()?
            );
            self.answers()
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Exchanges all records.
    pub fn set(&self, records: &[(&str, &[&str])]) -> Result<()> {
        fs::write(self.records_file(), lines(records))?;
        let process = self.process.as_ref().context("the DNS server is down")?;
        // It reads its hosts files again, and forgets what it keeps.
        process.signal(Signal::SIGHUP)
    }

    /// Ends it: whoever asks gets an ICMP error.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(Signal::SIGTERM)?;
            process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// Its address for `--dns-server`.
    pub fn address(&self) -> String {
        GATEWAY_V4.to_string()
    }

    fn records_file(&self) -> PathBuf {
        records_in(&self.world.directory())
    }

    /// Whether it answers anything to a question for the root.
    fn answers(&self) -> Result<bool> {
        /// Number 1, recursion desired, one question: `.`, NS, IN.
        const QUESTION: &[u8] = &[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let asked = self.world.gateway.enter(|| -> std::io::Result<usize> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            socket.connect(SocketAddr::from((GATEWAY_V4, 53)))?;
            socket.send(QUESTION)?;
            socket.recv(&mut [0; 512])
        })?;
        Ok(asked.is_ok())
    }
}

fn records_in(directory: &Path) -> PathBuf {
    directory.join("dns-records")
}

fn lines(records: &[(&str, &[&str])]) -> String {
    let mut text = String::new();
    for (name, addresses) in records {
        for address in *addresses {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{address} {name}");
        }
    }
    text
}
