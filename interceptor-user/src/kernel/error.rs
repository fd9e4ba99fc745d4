//! What can go wrong with the kernel plane, each as one line that says what to do.

use std::io;
use std::path::PathBuf;

/// An error of the kernel plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The process may not load programs or change the network.
    #[error("this needs the capabilities {missing}; run it as root, or grant them to the service")]
    MissingCapability {
        /// The capabilities that are not there.
        missing: String,
    },
    /// cgroup2 is not mounted.
    #[error("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoCgroupMount,
    /// The cgroup does not exist.
    #[error("the cgroup {path} does not exist; create it, or name another with --cgroup")]
    CgroupAbsent {
        /// Its directory.
        path: PathBuf,
    },
    /// The path is not below the cgroup2 mount, or that mount is where nft cannot see it.
    #[error("{path} is not a cgroup2 directory under {expected}; name one with --cgroup")]
    CgroupOutside {
        /// The path that was given.
        path: PathBuf,
        /// Where it has to be.
        expected: PathBuf,
    },
    /// Another gateway uses the proxy's cgroup.
    #[error("another gateway runs already: process {pid} in {cgroup}; stop it first")]
    GatewayRuns {
        /// The proxy's cgroup.
        cgroup: PathBuf,
        /// One of its processes.
        pid: u32,
    },
    /// The nft table is there without our pins.
    #[error(
        "this network namespace has the nft table of another gateway, whose pins are not in {bpffs}; give its --bpffs, or run `interceptor detach` first"
    )]
    OtherPlane {
        /// Our pin directory.
        bpffs: PathBuf,
    },
    /// A process still lives in the proxy's cgroup.
    #[error("the process {pid} still runs in {cgroup}; stop it, then detach")]
    ProxyRuns {
        /// The proxy's cgroup.
        cgroup: PathBuf,
        /// One of its processes.
        pid: u32,
    },
    /// A file of the system could not be used.
    #[error(
        "cannot {action} {path}: {source}; check the permissions and the mount of its file system"
    )]
    File {
        /// What was to be done with it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An external program is not installed.
    #[error("the program `{tool}` is missing; install the package {package}")]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// An external program failed.
    #[error("`{command}` failed: {message}; check that the kernel has the feature, then try again")]
    ToolFailed {
        /// The command line.
        command: String,
        /// Its error output, on one line.
        message: String,
    },
    /// Pins of another version, or not ours.
    #[error(
        "the pins in {path} do not fit this version ({detail}); run `interceptor detach`, then start again"
    )]
    StalePins {
        /// The pin directory, or the pin.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// The kernel did not take the programs.
    #[error(
        "the kernel {release} did not take the {object} programs: {detail}; `interceptor doctor` says what it lacks"
    )]
    Load {
        /// Which object.
        object: &'static str,
        /// The running kernel's release.
        release: String,
        /// The loader's words.
        detail: String,
    },
    /// A program could not be attached.
    #[error(
        "cannot attach {program} to {place}: {source}; see whether a program there forbids others, and what `interceptor doctor` says"
    )]
    Attach {
        /// The program.
        program: String,
        /// The cgroup or device.
        place: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More than a map holds.
    #[error(
        "the map `{map}` holds at most {max} entries and {wanted} or more are wanted; name fewer targets, or join prefixes"
    )]
    MapFull {
        /// The map.
        map: &'static str,
        /// Its limit.
        max: u32,
        /// What was asked for.
        wanted: usize,
    },
    /// A map could not be used.
    #[error(
        "cannot {action} the map `{map}`: {detail}; if pins of another version are there, run `interceptor detach`"
    )]
    Map {
        /// What was to be done.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        detail: String,
    },
    /// The gateway that runs does not hand over.
    #[error("the gateway that runs does not hand over: {source}; see its log")]
    Handover {
        /// What happened on the way.
        source: io::Error,
    },
    /// The listening port is somebody else's.
    #[error(
        "the port {port} is taken; stop the other gateway, or choose another with --listen-port"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A target has the port that the proxy listens on.
    #[error("a target has the proxy's own port {port}; choose another with --listen-port")]
    PortIsTarget {
        /// The port.
        port: u16,
    },
    /// The listening socket could not be made.
    #[error(
        "cannot make the listening socket: {source}; check the capabilities and the limit of open files"
    )]
    Listener {
        /// The kernel's answer.
        source: io::Error,
    },
    /// Older connections could not be ended.
    #[error("cannot {action}: {source}; check the capability CAP_SYS_ADMIN")]
    Sever {
        /// What was to be done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A unix socket's path that names none.
    #[error(
        "{path} names no unix socket; give a path that ends in a file name of at most 107 bytes, or @ and an abstract name"
    )]
    UnixName {
        /// The path that was given.
        path: PathBuf,
    },
    /// The kernel's notices about devices and routes cannot be read.
    #[error(
        "cannot read the kernel's notices about devices: {source}; check the limit of open files"
    )]
    Notices {
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such device.
    #[error("there is no device {name} in this network namespace; `ip link` shows what there is")]
    NoDevice {
        /// The name that was given.
        name: String,
    },
    /// A device whose frames the programs cannot read.
    #[error(
        "the device {name} has frames of type {link_type}, which cannot be guarded; name the devices to guard with --device"
    )]
    UnknownLinkType {
        /// The device.
        name: String,
        /// Its type, as `ip link` names it.
        link_type: String,
    },
}

impl KernelError {
    /// For `map_err` on a file operation.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> KernelError {
        let path = path.into();
        move |source| KernelError::File {
            action,
            path,
            source,
        }
    }
}
