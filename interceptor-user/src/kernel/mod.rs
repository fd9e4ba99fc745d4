//! The kernel plane: it brings target-bound connections to the proxy, and nothing past it.
//!
//! Owns the eBPF programs and their pins, the proxy's cgroup, the rules, routes and nft table, and
//! the listening socket. All of it outlives the process: a gateway that dies refuses, it does not
//! open. Must not know what a policy or a protocol is; a target is addresses, a port and a number.
//!
//! The way of a connection: a local `connect` is marked and routed to `lo`; a routed packet is marked
//! where it enters. Both meet a tcx program that hands them to the listening socket, whose accepted
//! connections carry the original destination as their own address. The proxy's sockets are known by
//! the cgroup that made them, which nobody but root can enter.

mod backstop;
mod bpffs;
mod cgroup;
mod chain;
mod detach;
mod device;
mod dial;
pub mod doctor;
mod drift;
mod edge;
mod error;
pub mod feature;
mod filter;
mod frames;
mod generation;
mod link;
mod listener;
mod maps;
mod netns;
mod object;
mod ports;
mod replace;
mod routing;
mod sever;
mod socket_tool;
mod status;
mod target;
mod task;
mod tool;
pub mod trial;
mod unix;
mod watch;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use aya_log::EbpfLogger;
use interceptor_common::{Config, UnixName, Verdict};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::identify::KernelIdentity;
use cgroup::Cgroup;
pub(crate) use cgroup::mount_point as cgroup_mount_point;
pub use detach::detach;
pub use dial::client_socket;
pub use drift::{Drift, Repair};
use edge::{Edge, Wanted};
pub use error::KernelError;
use maps::Maps;
use object::Loaded;
pub use sever::Severed;
pub use status::{DeviceStatus, LinkStatus, MapStatus, Status, VerdictStatus, status};
pub use target::TargetRoute;
use target::Targets;
pub use task::TaskProbe;
pub use watch::watch;

/// Where the pins are unless told otherwise.
pub const BPFFS_DEFAULT: &str = "/sys/fs/bpf/interceptor";
/// The port that the proxy listens on unless told otherwise.
pub const LISTEN_PORT_DEFAULT: u16 = 15001;

/// The numbers that marked packets are routed by.
///
/// The marks avoid the bits of kube-proxy (0x4000, 0x8000), Tailscale (0xff0000) and Cilium (0x0f00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    /// Mark of this host's packets.
    pub mark_local: u32,
    /// Mark of packets that a device received.
    pub mark_transit: u32,
    /// The bits of both.
    pub mark_mask: u32,
    /// The routing table.
    pub route_table: u32,
    /// The priority of the rules.
    pub rule_priority: u32,
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            mark_local: 0x1000_0000,
            mark_transit: 0x2000_0000,
            mark_mask: 0x3000_0000,
            route_table: 15001,
            rule_priority: 150,
        }
    }
}

/// What to attach and where.
#[derive(Debug, Clone)]
pub struct PlaneConfig {
    /// Where the cgroup programs attach; `None` is the root of cgroup2.
    pub cgroup: Option<PathBuf>,
    /// The pin directory.
    pub bpffs: PathBuf,
    /// The devices to guard; `None` is every one of this network namespace. `lo` is always guarded.
    pub devices: Option<Vec<String>>,
    /// The proxy's port.
    pub listen_port: u16,
    /// What to intercept. Of two with the same network and port, the first counts.
    pub targets: Vec<TargetRoute>,
    /// Unix sockets that nobody may connect to: paths, or `@` and an abstract name.
    pub unix_sockets: Vec<PathBuf>,
    /// Marks, table and priority.
    pub steering: Steering,
}

impl Default for PlaneConfig {
    fn default() -> Self {
        Self {
            cgroup: None,
            bpffs: BPFFS_DEFAULT.into(),
            devices: None,
            listen_port: LISTEN_PORT_DEFAULT,
            targets: Vec::new(),
            unix_sockets: Vec::new(),
            steering: Steering::default(),
        }
    }
}

/// What [`Plane::attach`] gives.
pub struct Attached {
    /// The plane.
    pub plane: Plane,
    /// The listening socket, non-blocking. Closing it tells the kernel that the proxy is gone.
    pub listener: TcpListener,
    /// What the kernel programs report.
    pub log: KernelLog,
    /// What was connected to a target before.
    pub severed: Severed,
}

/// The attached plane. Dropping it detaches nothing.
#[derive(Debug)]
pub struct Plane {
    maps: Maps,
    /// Locked while anything is changed in the kernel.
    config: Mutex<Config>,
    cgroup: Cgroup,
    proxy_cgroup: u64,
    /// Locked while devices are covered, so that sessions can look up targets meanwhile.
    edge: Mutex<Edge>,
    targets: RwLock<Arc<Targets>>,
    /// Inode number of this network namespace.
    netns: u32,
    task_probe: TaskProbe,
    unix_names: Mutex<Vec<UnixName>>,
    /// Another process takes the plane over, or has done so: this one changes nothing any more.
    is_standing_down: AtomicBool,
}

/// Gives the listening socket of the gateway that runs, which from then on changes nothing.
type Handover<'a> = &'a mut dyn FnMut() -> Result<TcpListener, KernelError>;

impl Plane {
    /// Attaches the plane, or takes over the one that a gateway left behind, without a gap.
    ///
    /// Moves this process into the proxy's cgroup; sockets that it made before do not count as the
    /// proxy's. When it fails half-way, what is attached stays and refuses connections.
    pub fn attach(config: &PlaneConfig) -> Result<Attached, KernelError> {
        Self::attach_as(config, None)
    }

    /// Takes over the plane of a gateway that runs. Its listening socket is asked for once everything
    /// that can be refused without a trace has been tried.
    pub fn take_over(
        config: &PlaneConfig,
        mut listener: impl FnMut() -> Result<TcpListener, KernelError>,
    ) -> Result<Attached, KernelError> {
        Self::attach_as(config, Some(&mut listener))
    }

    fn attach_as(
        config: &PlaneConfig,
        handover: Option<Handover<'_>>,
    ) -> Result<Attached, KernelError> {
        check_capabilities()?;
        let targets = Targets::compile(&config.targets)?;
        check_port(&targets, config.listen_port)?;
        let cgroup = Cgroup::find(config.cgroup.as_deref())?;
        let unix_names = unix::compile(&config.unix_sockets)?;
        let devices = config.devices.as_deref();
        device::list(devices)?.check(devices)?;
        // One network namespace has one backstop: with a second plane each would undo the other's.
        if backstop::is_present()? && !config.bpffs.exists() {
            return Err(KernelError::OtherPlane {
                bpffs: config.bpffs.clone(),
            });
        }
        warn_without_forwarding();
        // From a live gateway it would take every client, unless that one hands them over.
        if handover.is_none()
            && let Some(pid) = cgroup.occupant()?
        {
            return Err(KernelError::GatewayRuns {
                cgroup: cgroup.proxy.clone(),
                pid,
            });
        }
        bpffs::prepare(&config.bpffs)?;
        cgroup.enter()?;
        let Loaded {
            programs,
            task,
            log,
        } = object::load(&config.bpffs)?;
        let maps = Maps::open(&config.bpffs)?;
        let is_new = handover.is_none();
        let listener = match handover {
            None => listener::open(config.listen_port)?,
            Some(ask) => listener::check(ask()?, config.listen_port)?,
        };
        let mut shared = shared_config(config, Cgroup::id(&cgroup.proxy)?);
        shared.flags = targets.flags();
        maps.set_config(&shared)?;
        maps.set_targets(&targets)?;
        set_unix_names(&maps, &unix_names)?;
        unix::warn_open(&config.unix_sockets);
        link::attach_cgroup(&config.bpffs, &programs, &cgroup)?;
        let mut edge = Edge::new(config.bpffs.clone(), programs, config.devices.clone());
        edge.cover(&Wanted {
            config: &shared,
            cgroup: &cgroup,
            targets: &targets,
        })?;
        let plan = sever::Plan {
            config: &shared,
            targets: &targets,
            maps: &maps,
        };
        edge.remember_tables()?;
        // What is open after a hand-over is carried.
        let severed = match is_new {
            true => sever::sever(&config.bpffs, &cgroup, &plan),
            false => Severed::default(),
        };
        // Last: until here every target is refused, from here on it is carried. The socket of a
        // gateway that hands over is there already, and stays.
        if is_new {
            maps.set_listener(listener.as_fd())?;
        }
        let plane = Plane {
            maps,
            proxy_cgroup: shared.proxy_cgroup,
            config: Mutex::new(shared),
            cgroup,
            edge: Mutex::new(edge),
            targets: RwLock::new(Arc::new(targets)),
            netns: netns::own()?,
            task_probe: TaskProbe::new(task),
            unix_names: Mutex::new(unix_names),
            is_standing_down: AtomicBool::new(false),
        };
        Ok(Attached {
            plane,
            listener,
            log: KernelLog { programs: log },
            severed,
        })
    }

    /// Changes nothing from now on: another process takes the plane over. Waits for a change that is
    /// being made.
    pub fn stand_down(&self) {
        let _config = self.changing();
        self.is_standing_down.store(true, Ordering::Relaxed);
    }

    /// True once another process takes the plane over: whoever watches has to leave it alone.
    pub fn is_standing_down(&self) -> bool {
        self.is_standing_down.load(Ordering::Relaxed)
    }

    /// Takes the plane back from a successor that died half-way: everything is set as it was.
    pub fn stand_up(&self, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        let config = self.changing();
        self.is_standing_down.store(false, Ordering::Relaxed);
        set_unix_names(&self.maps, &self.unix_names())?;
        self.edge().attach_cgroup(&self.cgroup)?;
        self.apply(&config, &self.targets())?;
        self.maps.set_listener(listener)
    }

    fn unix_names(&self) -> MutexGuard<'_, Vec<UnixName>> {
        let names = self.unix_names.lock();
        names.unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the targets; connections that are open go on, and new ones are not kept waiting.
    ///
    /// # Errors
    /// If the new targets do not fit, or something does not take them: then the old ones stay.
    pub fn set_targets(&self, routes: &[TargetRoute]) -> Result<(), KernelError> {
        let targets = Arc::new(Targets::compile(routes)?);
        let mut config = self.changing();
        check_port(&targets, config.listen_port)?;
        // It stays until a restart: open connections need it even where no target does any more.
        config.flags |= targets.flags();
        // Where another process has the plane, they are for when that one fails.
        if !self.is_standing_down()
            && let Err(error) = self.apply(&config, &targets)
        {
            if let Err(again) = self.apply(&config, &self.targets()) {
                tracing::error!(
                    target: "interceptor::kernel",
                    "the old targets could not be put back everywhere: {again}; reload the policy, or restart the gateway"
                );
            }
            return Err(error);
        }
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
        Ok(())
    }

    /// The maps come last: what they say first becomes a target when all else is ready for it.
    fn apply(&self, config: &Config, targets: &Targets) -> Result<(), KernelError> {
        self.maps.set_config(config)?;
        self.edge().cover(&self.wanted(config, targets))?;
        self.maps.set_targets(targets)?;
        self.edge().remember_tables()
    }

    fn targets(&self) -> Arc<Targets> {
        Arc::clone(&self.targets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who holds this may change what is set in the kernel.
    fn changing(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the unix sockets that are refused.
    pub fn set_unix_sockets(&self, sockets: &[PathBuf]) -> Result<(), KernelError> {
        let names = unix::compile(sockets)?;
        let _config = self.changing();
        if !self.is_standing_down() {
            set_unix_names(&self.maps, &names)?;
        }
        unix::warn_open(sockets);
        *self.unix_names() = names;
        Ok(())
    }

    /// Follows the devices, addresses and routes that are there now, and gives a line for each device
    /// that came, went or changed. Cheap where nothing did.
    pub fn refresh(&self) -> Result<Vec<String>, KernelError> {
        let config = self.changing();
        if self.is_standing_down() {
            return Ok(Vec::new());
        }
        let targets = self.targets();
        self.edge().refresh(&self.wanted(&config, &targets))
    }

    fn edge(&self) -> MutexGuard<'_, Edge> {
        self.edge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted<'a>(&'a self, config: &'a Config, targets: &'a Targets) -> Wanted<'a> {
        Wanted {
            config,
            cgroup: &self.cgroup,
            targets,
        }
    }

    /// The target behind an original destination, which is an accepted connection's local address.
    /// `None` is a connection that was not intercepted: it must be closed.
    pub fn target(&self, destination: SocketAddr) -> Option<u32> {
        self.targets().lookup(destination)
    }

    /// Whether the target behind an original destination sees its clients' own addresses: it is then
    /// dialled with a [`client_socket`].
    pub fn preserves_client_address(&self, destination: SocketAddr) -> bool {
        self.targets().preserves_client_address(destination)
    }

    /// The local task behind an accepted connection. `None` for a client elsewhere, and where it is not
    /// known for certain.
    pub fn identity(&self, client: BorrowedFd<'_>) -> Result<Option<KernelIdentity>, KernelError> {
        let found = self.maps.clients.lookup(&client.as_raw_fd())?;
        Ok(found.map(|found| KernelIdentity::new(found, self.netns)))
    }

    /// For looking at processes.
    pub fn task_probe(&self) -> TaskProbe {
        self.task_probe.clone()
    }

    /// Whether a cgroup is the proxy's own.
    pub fn is_own_cgroup(&self, id: u64) -> bool {
        id == self.proxy_cgroup
    }

    /// How often each verdict was given, since the first attachment.
    pub fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, KernelError> {
        self.maps.verdicts()
    }
}

/// The messages of the kernel programs.
pub struct KernelLog {
    programs: aya::Ebpf,
}

impl KernelLog {
    /// Forwards messages to the `log` crate's logger until the task is dropped. Cancel-safe.
    pub async fn forward(mut self) {
        let ring = match EbpfLogger::init(&mut self.programs) {
            // SAFETY: the logger owns its ring, so the descriptor is open and the same for its life.
            Ok(logger) => unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) },
            Err(error) => {
                tracing::warn!(target: "interceptor::kernel", %error, "kernel messages cannot be read");
                return;
            }
        };
        let Ok(mut ring) = ring else {
            tracing::warn!(target: "interceptor::kernel", "kernel messages cannot be waited for");
            return;
        };
        while let Ok(mut ready) = ring.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

fn shared_config(config: &PlaneConfig, proxy_cgroup: u64) -> Config {
    let Steering {
        mark_local,
        mark_transit,
        mark_mask,
        route_table,
        rule_priority,
    } = config.steering;
    Config {
        proxy_cgroup,
        mark_local,
        mark_transit,
        mark_mask,
        route_table,
        rule_priority,
        listen_port: config.listen_port,
        flags: 0,
    }
}

fn set_unix_names(maps: &Maps, names: &[UnixName]) -> Result<(), KernelError> {
    if !maps.set_unix_names(names)? && !names.is_empty() {
        tracing::warn!(
            target: "interceptor::kernel",
            "this kernel cannot refuse connections to unix sockets, which needs Linux 6.7: {} of them are guarded by \
             their file modes alone",
            names.len()
        );
    }
    Ok(())
}

/// Who names the proxy's own port is told. Within a range it is refused to everybody, by the nft table:
/// a proxy that dials itself would never stop.
fn check_port(targets: &Targets, port: u16) -> Result<(), KernelError> {
    if targets.names_port(port) {
        return Err(KernelError::PortIsTarget { port });
    }
    if targets.has_port(port) {
        tracing::warn!(
            target: "interceptor::kernel",
            "a target's range of ports holds the proxy's own port {port}, at which connections are refused; if it is \
             needed, choose another with --listen-port"
        );
    }
    Ok(())
}

/// Capabilities by their bit (linux/capability.h): the network, eBPF, and mounts.
const CAPABILITIES: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (21, "CAP_SYS_ADMIN"),
    (39, "CAP_BPF"),
];

/// Whether this process may do what the plane needs.
pub fn check_capabilities() -> Result<(), KernelError> {
    let path = Path::new("/proc/self/status");
    let status = fs::read_to_string(path).map_err(KernelError::file("read", path))?;
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::MissingCapability {
            missing: missing.join(", "),
        })
    }
}

/// A gateway for other machines forwards; one for its own processes alone need not.
fn warn_without_forwarding() {
    let is_on =
        fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|value| value.trim() == "1");
    if !is_on {
        tracing::warn!(
            target: "interceptor::kernel",
            "net.ipv4.ip_forward is off: clients on other machines are not carried to anything but targets, and get no \
             answer when the gateway is down; set it with `sysctl -w net.ipv4.ip_forward=1`"
        );
    }
}
