//! The world: namespaces, cgroups, the target's PostgreSQL, and the sweep that removes it all.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::unistd::{User, chown, geteuid};

use crate::cgroup::{self, Cgroup};
use crate::gateway::{self, Gateway};
use crate::interrupt;
use crate::netns::{self, Namespace};
use crate::postgres::{self, Postgres, Version};
use crate::process::{self, Running, wait_until};
use crate::psql::Psql;

/// The target's address that policy files name.
pub const TARGET_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
/// The same over IPv6.
pub const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 2, 0, 0, 0, 0, 0, 2);
/// A second address of the target. No policy names it: it is the path without a gateway.
pub const UNNAMED_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 3);
/// The gateway's address on the client's side.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

/// Everything on disk is below this; the account of PostgreSQL must be able to reach it.
const ROOT: &str = "/var/tmp/interceptor-tests";
/// How long a test waits for the same test of another clone.
const TURN_LIMIT: Duration = Duration::from_secs(180);
const BPFFS: &str = "/sys/fs/bpf";

/// Where a client runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// In the client's namespace: its packets are routed through the gateway.
    Client,
    /// On the gateway host, in a cgroup that the gateway watches.
    Local,
}

/// Three network namespaces, two cgroups, one PostgreSQL.
#[derive(Debug)]
pub struct World {
    name: String,
    /// The client's network namespace.
    pub client: Namespace,
    /// The gateway's.
    pub gateway: Namespace,
    /// The target's.
    pub target: Namespace,
    /// The target's server.
    pub postgres: Postgres,
    /// The gateway's `--cgroup`.
    watched: Cgroup,
    /// In it, the local clients.
    apps: Cgroup,
    /// Everything else that the world starts, so that the sweep finds it.
    outside: Cgroup,
    binary: Option<String>,
    /// What a gateway is started from, if that is another file than the command line's.
    installed: Option<PathBuf>,
    /// Held as long as this process uses the world.
    _lock: UnixListener,
}

impl World {
    /// Builds the world `name`, after sweeping away what an earlier one of that name left.
    pub fn new(name: &str) -> Result<Self> {
        Self::new_with(name, Version::default())
    }

    /// The same, with this PostgreSQL at the target.
    pub fn new_with(name: &str, version: Version) -> Result<Self> {
        Self::new_within(name, version, Duration::ZERO)
    }

    /// The same, but waits up to `limit` for another run that uses it.
    fn new_within(name: &str, version: Version, limit: Duration) -> Result<Self> {
        check_name(name)?;
        ensure!(
            geteuid().is_root(),
            "network namespaces and eBPF need root; run this as root"
        );
        let lock = take_lock(name, limit)?;
        sweep(name)?;
        match Self::build(name, version, lock) {
            Ok(world) => Ok(world),
            Err(error) => {
                sweep(name).context("and the clean-up failed as well")?;
                Err(error)
            }
        }
    }

    fn build(name: &str, version: Version, lock: UnixListener) -> Result<Self> {
        let directory = directory_of(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        // From now on `remove_cache` leaves the template alone.
        let template = postgres::template(Path::new(ROOT), version)?;
        let database = directory.join("postgres");
        fs::create_dir(&database)?;
        give_to(&database, postgres::ACCOUNT)?;
        fs::write(
            password_file_of(name),
            postgres::password("interceptor_catalog"),
        )?;
        for part in ["state", "run"] {
            fs::create_dir(directory.join(part))?;
        }
        let [client, gateway, target] = network(name)?;
        let watched = Cgroup::create(&format!("icpt-{name}"))?;
        let outside = Cgroup::create(&format!("icpt-{name}-outside"))?;
        Ok(Self {
            postgres: Postgres::start(&database, &target, &outside, &template, version)?,
            name: name.to_owned(),
            client,
            gateway,
            target,
            apps: watched.child("apps")?,
            watched,
            outside,
            binary: None,
            installed: None,
            _lock: lock,
        })
    }

    /// The world's directory: policies, state, logs.
    pub fn directory(&self) -> PathBuf {
        directory_of(&self.name)
    }

    /// The file with the password of `interceptor_catalog`, for a policy's `passwordFile`.
    pub fn password_file(&self) -> PathBuf {
        password_file_of(&self.name)
    }

    /// The gateway's `--cgroup`.
    pub fn cgroup(&self) -> &Path {
        self.watched.path()
    }

    /// The file into which a local client writes its process id.
    pub fn local_clients(&self) -> PathBuf {
        self.apps.procs()
    }

    /// The gateway's `--bpffs`.
    pub fn bpffs(&self) -> PathBuf {
        bpffs_of(&self.name)
    }

    /// Takes this `interceptor` instead of looking for one.
    pub fn use_binary(&mut self, path: &Path) {
        self.binary = Some(path.to_string_lossy().into_owned());
    }

    /// The `interceptor` to run.
    pub fn binary(&self) -> Result<String> {
        match &self.binary {
            Some(path) => Ok(path.clone()),
            None => gateway::binary(),
        }
    }

    /// The `interceptor` that gateways are started from.
    pub fn installed(&self) -> Result<String> {
        match &self.installed {
            Some(path) => Ok(path.to_string_lossy().into_owned()),
            None => self.binary(),
        }
    }

    /// A command of a client.
    pub fn command(&self, from: From, program: &str) -> Result<Command> {
        self.command_as(from, program, None)
    }

    /// The same as another user than root.
    pub fn command_as(&self, from: From, program: &str, user: Option<&str>) -> Result<Command> {
        let (namespace, cgroup) = match from {
            From::Client => (&self.client, &self.outside),
            From::Local => (&self.gateway, &self.apps),
        };
        process::command(program, Some(namespace), Some(cgroup), user)
    }

    /// A command on the gateway host that is no client: the gateway itself, and what it is
    /// measured against.
    pub fn gateway_command(&self, program: &str, user: Option<&str>) -> Result<Command> {
        process::command(program, Some(&self.gateway), Some(&self.outside), user)
    }

    /// A command on the target's host: another server there.
    pub fn target_command(&self, program: &str) -> Result<Command> {
        process::command(program, Some(&self.target), Some(&self.outside), None)
    }

    /// An unmodified psql.
    pub fn psql(&self, from: From) -> Psql<'_> {
        Psql::new(self, from)
    }

    /// A TCP connection from the client's namespace.
    pub fn connect(&self, address: impl Into<IpAddr>) -> Result<TcpStream> {
        let peer = SocketAddr::new(address.into(), postgres::PORT);
        self.client
            .enter(|| TcpStream::connect_timeout(&peer, Duration::from_secs(10)))?
            .with_context(|| format!("cannot connect to {peer}"))
    }

    /// Writes a policy directory with one file in it. `PASSWORD_FILE` in the text becomes the path
    /// of the catalogue's password file.
    pub fn write_policy(&self, text: &str) -> Result<PathBuf> {
        let directory = self.directory().join("policies");
        fs::create_dir_all(&directory)?;
        let path = self.password_file();
        let text = text.replace("PASSWORD_FILE", &path.to_string_lossy());
        fs::write(directory.join("policy.yaml"), text)?;
        Ok(directory)
    }

    /// Writes a file that nobody but root may read.
    pub fn write_secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory().join(name);
        fs::write(&path, "")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Leaves everything running: [`sweep`] ends it.
    pub fn keep(self) {
        // Nothing of it may be dropped: dropping is what ends it.
        std::mem::forget(self);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = sweep(&self.name) {
            eprintln!("clean-up of world {} failed: {error:#}", self.name);
        }
    }
}

/// Builds a world for `test`; on failure shows what the gateway and the target logged.
pub fn with_world(name: &str, test: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    with_world_of(Version::default(), name, test)
}

/// The same, with this PostgreSQL at the target.
pub fn with_world_of(
    version: Version,
    name: &str,
    test: impl FnOnce(&World) -> Result<()>,
) -> Result<()> {
    // Another clone on this machine may run the same test: they take turns.
    let world = World::new_within(name, version, TURN_LIMIT)?;
    test(&world).map_err(|error| {
        let tail = |file: &str| {
            let text = fs::read_to_string(world.directory().join(file)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(40);
            lines.get(from..).unwrap_or_default().join("\n")
        };
        error.context(format!(
            "world {name}; the gateway logged\n{}\nand PostgreSQL\n{}",
            tail("gateway.log"),
            tail("postgres/postgres.log")
        ))
    })
}

/// The same, and gateways are started from a copy of the `interceptor` in the world's own directory,
/// which can be replaced.
pub fn with_own_binary(name: &str, test: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let mut world = World::new_within(name, Version::default(), TURN_LIMIT)?;
    let copy = world.directory().join("interceptor");
    copy_program(Path::new(&world.binary()?), &copy)?;
    world.installed = Some(copy);
    let log = world.directory().join("gateway.log");
    test(&world).map_err(|error| {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(60);
        let tail = lines.get(from..).unwrap_or_default().join("\n");
        error.context(format!("world {name}; the gateway logged\n{tail}"))
    })
}

/// Copies a file that will be run. Another process does it: while this one had the copy open for
/// writing, a child that another thread starts would have it open too, and nobody could run it.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("--preserve=mode").arg(from).arg(to);
    process::run(command, Duration::from_secs(30))?.success()?;
    Ok(())
}

/// The same, with a gateway that runs with `policy`.
pub fn with_gateway(
    name: &str,
    policy: &str,
    test: impl FnOnce(&World, &mut Gateway<'_>) -> Result<()>,
) -> Result<()> {
    with_gateway_of(Version::default(), name, policy, test)
}

/// The same, with this PostgreSQL at the target.
pub fn with_gateway_of(
    version: Version,
    name: &str,
    policy: &str,
    test: impl FnOnce(&World, &mut Gateway<'_>) -> Result<()>,
) -> Result<()> {
    with_world_of(version, name, |world| {
        let policies = world.write_policy(policy)?;
        let mut gateway = Gateway::start(world, &policies)?;
        test(world, &mut gateway)
    })
}

/// Removes the world `name` and every process in it, whoever started it.
pub fn sweep(name: &str) -> Result<()> {
    check_name(name)?;
    let root = cgroup::mount_point()?;
    let outside = root.join(format!("icpt-{name}-outside"));
    postgres::shut_down(&directory_of(name).join("postgres"), &outside);
    cgroup::destroy(&outside)?;
    cgroup::destroy(&root.join(format!("icpt-{name}")))?;
    // Pins hold the kernel plane's links; the rest of it goes with the gateway's namespace.
    remove_tree(&bpffs_of(name))?;
    for role in ROLES {
        netns::delete(&namespace_of(name, role))?;
    }
    remove_tree(&directory_of(name))
}

/// Sweeps the world `name` away unless a run is using it. True if anything was there.
pub fn stop(name: &str) -> Result<bool> {
    let _lock = take_lock(name, Duration::ZERO)?;
    let anything = !traces(name)?.is_empty();
    sweep(name)?;
    Ok(anything)
}

/// Everything of the world `name` that is there. What runs in it is found by its cgroups.
pub fn traces(name: &str) -> Result<Vec<String>> {
    check_name(name)?;
    let root = cgroup::mount_point()?;
    let mut places = vec![
        directory_of(name),
        bpffs_of(name),
        root.join(format!("icpt-{name}")),
        root.join(format!("icpt-{name}-outside")),
    ];
    places.extend(ROLES.map(|role| netns::path_of(&namespace_of(name, role))));
    places.retain(|place| place.exists());
    Ok(places
        .iter()
        .map(|place| place.display().to_string())
        .collect())
}

/// Removes what worlds share on disk, unless there is a world.
pub fn remove_cache() -> Result<()> {
    let root = Path::new(ROOT);
    if !root.exists() {
        return Ok(());
    }
    postgres::remove_templates(root)?;
    let Ok(entries) = fs::read_dir(root) else {
        return Ok(());
    };
    let entries: Vec<_> = entries.collect::<std::io::Result<_>>()?;
    let is_lock = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|end| end == "lock");
    if entries.iter().all(is_lock) {
        for lock in entries {
            fs::remove_file(lock.path())?;
        }
        // If a world has come in between, it stays.
        let _ = fs::remove_dir(root);
    }
    Ok(())
}

const ROLES: [&str; 3] = ["client", "gateway", "target"];

fn network(name: &str) -> Result<[Namespace; 3]> {
    // `ip netns add` prepares /run/netns itself at its first use, which does not like company.
    let lock = File::create(Path::new(ROOT).join("netns.lock"))?;
    lock.lock()?;
    let [client, gateway, target] = ROLES.map(|role| Namespace::create(&namespace_of(name, role)));
    let (client, gateway, target) = (client?, gateway?, target?);
    drop(lock);
    for namespace in [&client, &gateway, &target] {
        // Nobody else is on these cables: an address need not wait for others to claim it.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
        }
    }

    gateway.ip(&format!(
        "link add name client0 type veth peer name eth0 netns {}
link add name target0 type veth peer name eth0 netns {}",
        client.name(),
        target.name()
    ))?;
    configure(&gateway, &["gateway", "client0", "target0"])?;
    configure(&client, &["client", "eth0"])?;
    configure(&target, &["target", "eth0"])?;
    client.ip("route add default via 10.77.1.1\nroute add ::/0 via fd77:1::1")?;
    target.ip("route add default via 10.77.2.1\nroute add ::/0 via fd77:2::1")?;
    for (namespace, cables) in [
        (&client, &["eth0"][..]),
        (&gateway, &["client0", "target0"]),
        (&target, &["eth0"]),
    ] {
        wait_until(
            &format!("the addresses of {} are in use", namespace.name()),
            Duration::from_secs(10),
            || addresses_are_settled(namespace, cables),
        )?;
    }
    Ok([client, gateway, target])
}

/// Gives a namespace its addresses and routes, by the script that does it for Vagrant's machines.
fn configure(namespace: &Namespace, arguments: &[&str]) -> Result<()> {
    let mut shell = process::command("bash", Some(namespace), None, None)?;
    shell.args(["-s", "--"]).args(arguments);
    let script = include_str!("../../vagrant/network.sh");
    Running::spawn(shell, script)?
        .wait(Duration::from_secs(10))?
        .success()?;
    Ok(())
}

/// Whether each cable's end has its link-local address, and no address is tentative any more: the
/// kernel adds their routes on its own time, and a test that compares routes must not see that.
fn addresses_are_settled(namespace: &Namespace, cables: &[&str]) -> Result<bool> {
    /// `IFA_F_TENTATIVE` of linux/if_addr.h.
    const TENTATIVE: u8 = 0x40;
    let addresses = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/if_inet6"))??;
    let mut link_local = Vec::new();
    for line in addresses.lines() {
        // Address, index, prefix length, scope, flags, device; all but the last in hexadecimal.
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, _, _, flags, device] = fields.as_slice() else {
            bail!("/proc/net/if_inet6 has a line that is none: {line}");
        };
        if u8::from_str_radix(flags, 16)? & TENTATIVE != 0 {
            return Ok(false);
        }
        if address.starts_with("fe80") {
            link_local.push(*device);
        }
    }
    Ok(cables.iter().all(|cable| link_local.contains(cable)))
}

/// Short enough for a unix socket below the world's directory, and safe as a path.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
        bail!("a world's name is 1 to 32 of a-z, 0-9 and -; {name:?} is not");
    }
    Ok(())
}

/// An abstract socket: it leaves no file, and is free the moment its process ends, however. Waits
/// up to `limit` for another run that has it.
fn take_lock(name: &str, limit: Duration) -> Result<UnixListener> {
    let address = UnixAddress::from_abstract_name(format!("interceptor-tests/{name}"))?;
    let start = Instant::now();
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => return Err(error.into()),
            Err(_) => ensure!(
                start.elapsed() < limit,
                "the world {name} is in use by another run; wait for it or stop it"
            ),
        }
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn give_to(path: &Path, account: &str) -> Result<()> {
    let user = User::from_name(account)?
        .ok_or_else(|| anyhow!("there is no user {account}; run `cargo xtask setup`"))?;
    chown(path, Some(user.uid), Some(user.gid))
        .with_context(|| format!("cannot give {} to {account}", path.display()))
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn directory_of(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn password_file_of(name: &str) -> PathBuf {
    directory_of(name).join("catalog.password")
}

fn bpffs_of(name: &str) -> PathBuf {
    Path::new(BPFFS).join(format!("icpt-{name}"))
}

fn namespace_of(name: &str, role: &str) -> String {
    format!("icpt-{name}-{role}")
}
