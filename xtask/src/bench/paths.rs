//! The four paths to the server, and what the proxy on each has cost.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use interceptor_tests::gateway::{Gateway, memory_peak_kib};
use interceptor_tests::postgres::{self, password};
use interceptor_tests::world::{GATEWAY_V4, TARGET_V4, UNNAMED_V4};
use interceptor_tests::{Running, World, wait_until};

const HAPROXY_PORT: u16 = 6001;
const PGBOUNCER_PORT: u16 = 6002;

/// Masks on a column that the bulk work reads, a pattern on every cell, rules to look through, and
/// the log: what a gateway in use would do.
const POLICY: &str = r#"
kind: Target
name: bench
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5432"]
  default: allow
  catalog: {user: interceptor_catalog, passwordFile: PASSWORD_FILE}
---
kind: Target
name: stand-in
spec:
  protocol: postgres
  endpoints: ["10.77.2.2:5499"]
  default: allow
  # It knows no TLS, and does not even decline it.
  tls: {upstream: disable}
---
kind: Rule
name: no-drop
spec:
  match: {statements: [DROP, TRUNCATE]}
  then: {deny: "not here"}
---
kind: Rule
name: deletes-need-approval
spec:
  match: {statements: [DELETE]}
  then: {hold: {timeout: 60s, message: "wait"}}
---
kind: Mask
name: addresses
spec:
  targets: [bench]
  columns: [public.people_masked.email]
  with: full
---
kind: Mask
name: cards
spec:
  patterns: [payment_card]
  with: partial
"#;

/// A way from the client to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Path {
    /// Routed by the gateway host's kernel, to an address that no policy names
    Direct,
    /// HAProxy in TCP mode
    Haproxy,
    /// PgBouncer in session mode
    Pgbouncer,
    /// The gateway, with policy, masks and log
    Interceptor,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Pgbouncer => "pgbouncer",
            Self::Interceptor => "interceptor",
        })
    }
}

impl Path {
    /// What the client dials.
    pub(crate) fn address(self) -> SocketAddr {
        let (host, port) = match self {
            Self::Direct => (UNNAMED_V4, postgres::PORT),
            Self::Haproxy => (GATEWAY_V4, HAPROXY_PORT),
            Self::Pgbouncer => (GATEWAY_V4, PGBOUNCER_PORT),
            Self::Interceptor => (TARGET_V4, postgres::PORT),
        };
        SocketAddr::new(IpAddr::V4(host), port)
    }
}

/// The gateway with its record kept less strictly than by default, which shows what strictness costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Laxness {
    /// Reads go while their record is on its way: --audit-reads overlap
    ReadsOverlap,
    /// Events are on record once the kernel has them: --audit-durability process
    DurabilityProcess,
}

impl Laxness {
    fn options(self) -> [&'static str; 2] {
        match self {
            Self::ReadsOverlap => ["--audit-reads", "overlap"],
            Self::DurabilityProcess => ["--audit-durability", "process"],
        }
    }
}

/// The proxies, running.
pub(crate) struct Paths<'w> {
    world: &'w World,
    chosen: Vec<Path>,
    haproxy: Option<Running>,
    pgbouncer: Option<Running>,
    gateway: Option<Gateway<'w>>,
}

impl<'w> Paths<'w> {
    /// Starts what the chosen paths need.
    pub(crate) fn start(world: &'w World, chosen: &[Path]) -> Result<Self> {
        let wanted = |path| chosen.contains(&path);
        let haproxy = wanted(Path::Haproxy).then(|| haproxy(world)).transpose()?;
        let pgbouncer = wanted(Path::Pgbouncer)
            .then(|| pgbouncer(world))
            .transpose()?;
        let gateway = wanted(Path::Interceptor)
            .then(|| Gateway::start(world, &world.write_policy(POLICY)?))
            .transpose()?;
        Ok(Self {
            world,
            chosen: chosen.to_vec(),
            haproxy,
            pgbouncer,
            gateway,
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Path> {
        self.chosen.iter().copied()
    }

    fn pid(&self, path: Path) -> Result<Option<u32>> {
        let proxy = match path {
            Path::Direct => return Ok(None),
            Path::Haproxy => self.haproxy.as_ref().map(Running::pid),
            Path::Pgbouncer => self.pgbouncer.as_ref().map(Running::pid),
            Path::Interceptor => self.gateway.as_ref().map(Gateway::pid).transpose()?,
        };
        proxy
            .map(Some)
            .ok_or_else(|| anyhow!("no process on path {path}"))
    }

    /// The gateway's process.
    pub(crate) fn gateway_pid(&self) -> Result<u32> {
        self.pid(Path::Interceptor)?
            .ok_or_else(|| anyhow!("the gateway is not among the paths"))
    }

    /// Starts the gateway anew, with its log in memory: what is left of its cost does not come from the
    /// disk. The world's own state comes back when the guard goes.
    pub(crate) fn gateway_in_memory(&mut self) -> Result<InMemory> {
        let gateway = self
            .gateway
            .as_mut()
            .ok_or_else(|| anyhow!("the gateway is not among the paths"))?;
        gateway.terminate()?;
        gateway.wait(Duration::from_secs(30))?;
        let guard = InMemory::mount(gateway.state_directory())?;
        gateway.restart()?;
        Ok(guard)
    }

    /// Starts the gateway anew, less strict.
    pub(crate) fn gateway_less_strict(&mut self, laxness: Laxness) -> Result<()> {
        self.stop_gateway()?;
        let policy = self.world.write_policy(POLICY)?;
        let gateway = Gateway::start_with(self.world, &policy, &laxness.options())?;
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Ends the gateway, before what it writes to goes.
    pub(crate) fn stop_gateway(&mut self) -> Result<()> {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.terminate()?;
            gateway.wait(Duration::from_secs(30))?;
        }
        Ok(())
    }

    /// User and system time that the proxy on this path has used; `None` where there is none.
    ///
    /// Work of the kernel on nobody's account, such as forwarding, is in none of them.
    pub(crate) fn cpu_seconds(&self, path: Path) -> Result<Option<f64>> {
        self.pid(path)?.map(cpu_seconds).transpose()
    }

    /// The most memory that the proxy on this path ever held.
    pub(crate) fn memory_peak_kib(&self, path: Path) -> Result<Option<u64>> {
        self.pid(path)?.map(memory_peak_kib).transpose()
    }
}

/// A file system in memory over the gateway's state directory, while this lives.
pub(crate) struct InMemory(PathBuf);

impl InMemory {
    fn mount(place: PathBuf) -> Result<Self> {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        mount(none, &place, Some("tmpfs"), MsFlags::empty(), none)
            .with_context(|| format!("no tmpfs on {}", place.display()))?;
        Ok(Self(place))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        use nix::mount::{MntFlags, umount2};
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} is still mounted: {error}", self.0.display());
        }
    }
}

/// User and system time that a process has used.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The second field is the name in parentheses, which may hold anything; utime and stime are
    // the 14th and 15th.
    let (_, rest) = stat
        .rsplit_once(')')
        .ok_or_else(|| anyhow!("no name in /proc/{pid}/stat"))?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?
        .ok_or_else(|| anyhow!("no clock tick"))?;
    Ok(ticks as f64 / per_second as f64)
}

fn haproxy(world: &World) -> Result<Running> {
    let file = world.directory().join("haproxy.cfg");
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
listen postgres
    bind {}
    server target {}
",
            Path::Haproxy.address(),
            Path::Direct.address()
        ),
    )?;
    let mut command = world.gateway_command("haproxy", None)?;
    command.arg("-db").arg("-f").arg(&file);
    started(world, Running::spawn(command, "")?, Path::Haproxy)
}

fn pgbouncer(world: &World) -> Result<Running> {
    let directory = world.directory();
    let users = directory.join("pgbouncer.users");
    let quoted = |user: &str| format!("\"{user}\" \"{}\"\n", password(user));
    fs::write(&users, quoted("alice") + &quoted("wire"))?;
    let file = directory.join("pgbouncer.ini");
    let server = Path::Direct.address();
    fs::write(
        &file,
        format!(
            "[databases]
* = host={} port={}
[pgbouncer]
listen_addr = {}
listen_port = {PGBOUNCER_PORT}
unix_socket_dir =
auth_type = trust
auth_file = {}
pool_mode = session
max_client_conn = 1000
default_pool_size = 200
log_connections = 0
log_disconnections = 0
",
            server.ip(),
            server.port(),
            Path::Pgbouncer.address().ip(),
            users.display()
        ),
    )?;
    readable(&file)?;
    readable(&users)?;
    // PgBouncer refuses to be root.
    let mut command = world.gateway_command("pgbouncer", Some(postgres::ACCOUNT))?;
    command.arg(&file);
    started(world, Running::spawn(command, "")?, Path::Pgbouncer)
}

fn readable(file: &FilePath) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o644),
    )?)
}

fn started(world: &World, mut process: Running, path: Path) -> Result<Running> {
    wait_until(&format!("{path} listens"), Duration::from_secs(10), || {
        if process.has_ended()? {
            bail!(
                "{path} did not start\n{}{}",
                process.stdout()?,
                process.stderr()?
            );
        }
        let address = path.address();
        world
            .client
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    })?;
    Ok(process)
}
