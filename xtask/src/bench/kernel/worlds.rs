//! The two worlds: one with the gateway and 10,000 targets, one with HAProxy and nothing else.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};
use interceptor_tests::gateway::Gateway;
use interceptor_tests::world::TARGET_V4;
use interceptor_tests::{Running, World, process, wait_until};

use super::load::Server;
use crate::bench::paths::cpu_seconds;
use crate::show;

/// Of the server that no policy names.
pub(crate) const SERVER_PORT: u16 = 9000;
/// Of the target that the gateway passes through.
pub(crate) const PASS_PORT: u16 = 9001;
/// Of the same behind HAProxy as it is, and behind one that splices.
pub(crate) const HAPROXY_PORT: u16 = 9002;
pub(crate) const SPLICE_PORT: u16 = 9003;

const TARGETS: u32 = 10_000;
/// As many as a policy's list holds.
const LIST_MAX: u32 = 1000;
const LIMIT: Duration = Duration::from_secs(60);

/// Both worlds, one gateway, two HAProxies.
pub(crate) struct Worlds<'w> {
    pub(crate) on: &'w World,
    pub(crate) off: &'w World,
    pub(crate) servers: (Server, Server),
    /// Whether this gateway knows `protocol: tcp`.
    pub(crate) passes: bool,
    gateway: Gateway<'w>,
    haproxy: Running,
    splicing: Running,
}

pub(crate) fn build() -> Result<[World; 2]> {
    Ok([World::new("bench-on")?, World::new("bench-off")?])
}

impl<'w> Worlds<'w> {
    pub(crate) fn start(on: &'w World, off: &'w World) -> Result<Self> {
        let servers = (
            Server::start(on, &[SERVER_PORT, PASS_PORT])?,
            Server::start(off, &[SERVER_PORT, HAPROXY_PORT, SPLICE_PORT])?,
        );
        let passes = knows_pass_through(on)?;
        show::progress(&format!("starting the gateway with {TARGETS} targets"));
        let gateway = Gateway::start(on, &on.write_policy(&policy(passes))?)?;
        off.gateway
            .ip("rule add fwmark 0x1 lookup 100\nroute add local 0.0.0.0/0 dev lo table 100")?;
        let mut nft = off.gateway_command("nft", None)?;
        nft.arg(tproxy_rules());
        process::run(nft, LIMIT)?.success()?;
        let worlds = Self {
            haproxy: haproxy(off, HAPROXY_PORT, "")?,
            splicing: haproxy(off, SPLICE_PORT, "option splice-auto")?,
            on,
            off,
            servers,
            passes,
            gateway,
        };
        worlds.wait()?;
        Ok(worlds)
    }

    /// Until every path carries a connection.
    fn wait(&self) -> Result<()> {
        let mut paths = vec![(self.off, HAPROXY_PORT), (self.off, SPLICE_PORT)];
        paths.extend(self.passes.then_some((self.on, PASS_PORT)));
        for (world, port) in paths {
            let to = (TARGET_V4, port).into();
            wait_until(&format!("somebody answers on {port}"), LIMIT, || {
                world
                    .client
                    .enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok())
            })?;
        }
        Ok(())
    }

    /// Ours, then the other.
    pub(crate) fn both(&self) -> [(&'w World, &Server); 2] {
        [(self.on, &self.servers.0), (self.off, &self.servers.1)]
    }

    /// Processor time of the gateway, and of the HAProxy on `port`.
    pub(crate) fn cpu_seconds(&self, port: u16) -> Result<[f64; 2]> {
        let other = match port {
            HAPROXY_PORT => &self.haproxy,
            SPLICE_PORT => &self.splicing,
            _ => bail!("no HAProxy on {port}"),
        };
        Ok([cpu_seconds(self.gateway.pid()?)?, cpu_seconds(other.pid())?])
    }
}

fn knows_pass_through(world: &World) -> Result<bool> {
    let directory = world.write_policy(&policy(true))?;
    let mut check = world.gateway_command(&world.binary()?, None)?;
    check.args(["policy", "check"]).arg(directory);
    Ok(process::run(check, LIMIT)?.status.success())
}

/// 10,000 addresses that are targets, as a large site would list them, and those that are used here.
fn policy(passes: bool) -> String {
    let mut text = "kind: Target
name: postgres
spec: {protocol: postgres, endpoints: [\"10.77.2.2:5432\"]}
"
    .to_owned();
    for group in 0..TARGETS / LIST_MAX {
        let addresses: Vec<String> = (group * LIST_MAX..(group + 1) * LIST_MAX)
            .map(|index| {
                let [_, _, high, low] = index.to_be_bytes();
                format!(r#""10.200.{high}.{low}:5432""#)
            })
            .collect();
        text += &format!(
            "---
kind: Target
name: many-{group}
spec: {{protocol: postgres, endpoints: [{}]}}
",
            addresses.join(", ")
        );
    }
    if passes {
        text += &format!(
            "---
kind: Target
name: pass
spec:
  protocol: tcp
  endpoints: [\"10.77.2.2:{PASS_PORT}\"]
---
kind: Rule
name: let-pass
spec:
  match: {{targets: [pass], statements: [CONNECT]}}
  then: allow
"
        );
    }
    text
}

/// As HAProxy's manual has it: what is bound for the server goes to the proxy on this host.
fn tproxy_rules() -> String {
    let rule = |port: u16| {
        let proxy = port.saturating_add(100);
        format!("ip daddr {TARGET_V4} tcp dport {port} tproxy to :{proxy} meta mark set 1 accept\n")
    };
    // Packets of connections that exist find their socket without the listener's help.
    format!(
        "table ip haproxy {{
  chain divert {{
    type filter hook prerouting priority mangle;
    iifname client0 {}    iifname client0 {}  }}
}}",
        rule(HAPROXY_PORT),
        rule(SPLICE_PORT)
    )
}

fn haproxy(world: &World, port: u16, option: &str) -> Result<Running> {
    let file = world.directory().join(format!("haproxy-{port}.cfg"));
    fs::write(
        &file,
        format!(
            "global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    {option}
listen target
    bind 0.0.0.0:{} transparent
    server target {TARGET_V4}:{port}
",
            port.saturating_add(100)
        ),
    )?;
    let mut command = world.gateway_command("haproxy", None)?;
    command.arg("-db").arg("-f").arg(&file);
    Running::spawn(command, "")
}
