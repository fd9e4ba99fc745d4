//! The plane on trial: attached in a network namespace, a mount namespace and a cgroup that exist for
//! this alone, so that nothing in use is touched, and gone with the process that tried it.
//!
//! It is three processes of this binary: the one that asks ([`run`]), the one that tries
//! ([`gateway`]) and its client ([`client`]), which must be in a cgroup of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::doctor::Check;
use super::frames;
use super::tool::Tool;
use super::{
    Attached, BPFFS_DEFAULT, KernelError, Plane, PlaneConfig, TargetRoute, cgroup_mount_point,
};

/// How long the trial may take: on an emulated processor loading the programs takes seconds.
const TRIAL_SECONDS_MAX: u32 = 120;
/// How long a client waits for its connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Where nothing listens, in a namespace where nothing else is.
const TARGET: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5432);

const ATTACHES: &str = "the whole plane attaches";
const CARRIES: &str = "a connection is carried";
const KNOWS: &str = "its client is known";
const REFUSES: &str = "without a proxy it is refused";

/// Tries the plane, and removes what is left of the trial.
pub(super) fn run() -> Vec<Check> {
    let outcome = cgroup_mount_point()
        .map(|mount| mount.join(format!("interceptor-doctor-{}", std::process::id())))
        .and_then(|cgroup| {
            let checks = try_in(&cgroup);
            remove(&cgroup);
            checks
        });
    outcome.unwrap_or_else(|error| vec![Check::required(ATTACHES, false, error.to_string())])
}

fn try_in(cgroup: &Path) -> Result<Vec<Check>, KernelError> {
    let clients = cgroup.join("clients");
    fs::create_dir_all(&clients).map_err(KernelError::file("create", clients))?;
    let mut command = myself(&["--trial"])?;
    let output = command
        .arg(cgroup)
        .stdin(Stdio::null())
        .output()
        .map_err(failed("interceptor doctor --trial"))?;
    serde_json::from_slice(&output.stdout).map_err(|_| KernelError::ToolFailed {
        command: "interceptor doctor --trial".into(),
        message: format!(
            "{}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    })
}

/// A cgroup stays busy for a moment after its last process.
fn remove(cgroup: &Path) {
    for path in [
        cgroup.join("clients"),
        cgroup.join("interceptor"),
        cgroup.to_owned(),
    ] {
        for _ in 0..100 {
            if !path.exists() || fs::remove_dir(&path).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The process that tries: attaches the plane below `cgroup`, in namespaces of its own.
pub fn gateway(cgroup: &Path) -> Result<Vec<Check>, KernelError> {
    // SAFETY: the call has no preconditions. SIGALRM ends this process, and its namespaces with it.
    unsafe { libc::alarm(TRIAL_SECONDS_MAX) };
    leave_the_host().map_err(failed("unshare"))?;
    Tool::Ip.run(&["link", "set", "lo", "up"], "")?;
    let mut checks = vec![device(), netdev_egress(), sock_destroy()];
    match attach(cgroup) {
        Ok(attached) => {
            checks.push(Check::required(ATTACHES, true, "tried"));
            checks.extend(connections(cgroup, attached)?);
        }
        Err(error) => checks.push(Check::required(ATTACHES, false, error.to_string())),
    }
    Ok(checks)
}

/// The process that connects.
pub fn client(cgroup: &Path) -> Result<String, KernelError> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, "0").map_err(KernelError::file("write", procs))?;
    Ok(
        match TcpStream::connect_timeout(&TARGET, CONNECT_WAIT_MAX) {
            Ok(mut stream) => {
                let mut word = String::new();
                let _ = stream.set_read_timeout(Some(CONNECT_WAIT_MAX));
                let _ = stream.read_to_string(&mut word);
                word
            }
            Err(error) => error.kind().to_string(),
        },
    )
}

/// Its network, mounts and pins are its own from here on.
fn leave_the_host() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    mount(
        Some("bpf"),
        "/sys/fs/bpf",
        Some("bpf"),
        MsFlags::empty(),
        nothing,
    )?;
    Ok(())
}

fn device() -> Check {
    let words = "link add icpt-d0 type veth peer name icpt-d1";
    let made = Tool::Ip.run(&words.split(' ').collect::<Vec<_>>(), "");
    Check::or_weaker(
        "virtual Ethernet devices",
        made.is_ok(),
        "a pair made",
        "containers have no way through this host; only `lo` is tried below",
    )
}

fn netdev_egress() -> Check {
    Check::or_weaker(
        "nft chains on the way out of a device",
        Tool::Nft.run(&["-f", "-"], frames::PROBE).is_ok(),
        "one made",
        "a process with CAP_NET_RAW can send frames to targets past the gateway",
    )
}

/// `ss` says nothing about what it did not do, so a connection shows it.
fn sock_destroy() -> Check {
    let is_there = || -> std::io::Result<bool> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let filter = [
            "-K",
            "-t",
            "dst",
            "127.0.0.1",
            "dport",
            "=",
            &format!(":{port}"),
        ];
        let _ = Tool::Ss.output(&filter, "");
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let ended = stream.read(&mut [0]);
        Ok(ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionAborted))
    };
    Check::or_weaker(
        "ending a connection by netlink",
        is_there().unwrap_or(false),
        "`ss -K` ended one",
        "without the call from a program, older connections end at their next packet only",
    )
}

fn attach(cgroup: &Path) -> Result<Attached, KernelError> {
    let network = ipnet::IpNet::from(TARGET.ip());
    Plane::attach(&PlaneConfig {
        cgroup: Some(cgroup.into()),
        bpffs: BPFFS_DEFAULT.into(),
        targets: vec![TargetRoute {
            network,
            ports: TARGET.port()..=TARGET.port(),
            target: 0,
            preserve_client_address: false,
        }],
        ..PlaneConfig::default()
    })
}

fn connections(cgroup: &Path, attached: Attached) -> Result<Vec<Check>, KernelError> {
    let Attached {
        plane, listener, ..
    } = attached;
    let clients = cgroup.join("clients");
    let carried = {
        let mut command = myself(&["--trial-client"])?;
        command.arg(&clients).stdout(Stdio::piped());
        let child = command
            .spawn()
            .map_err(failed("interceptor doctor --trial-client"))?;
        accept(&plane, &listener)
            .map(|known| (known, child.wait_with_output()))
            .map_err(failed("accept"))
    };
    let (is_carried, is_known) = match &carried {
        Ok((known, Ok(output))) => (output.stdout == b"carried\n", *known),
        _ => (false, false),
    };
    // The kernel empties the listener's slot as the socket closes.
    drop(listener);
    let mut command = myself(&["--trial-client"])?;
    let output = command
        .arg(&clients)
        .output()
        .map_err(failed("interceptor doctor --trial-client"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(vec![
        Check::required(
            CARRIES,
            is_carried,
            "a local one, to a target that nobody listens at",
        ),
        Check::required(KNOWS, is_known, "its process was found by its connection"),
        Check::required(REFUSES, said == "connection refused", said),
    ])
}

/// Accepts one connection and answers it. Whether its client is known.
fn accept(plane: &Plane, listener: &TcpListener) -> std::io::Result<bool> {
    let deadline = std::time::Instant::now() + CONNECT_WAIT_MAX;
    let (mut stream, _) = loop {
        match listener.accept() {
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock
                    && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            accepted => break accepted?,
        }
    };
    let destination = stream.local_addr()?;
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let identity = plane.identity(stream.as_fd());
    if plane.target(destination) == Some(0) {
        stream.write_all(b"carried")?;
    }
    Ok(matches!(identity, Ok(Some(_))))
}

/// This binary again, as another process of the trial.
fn myself(arguments: &[&str]) -> Result<Command, KernelError> {
    let path: PathBuf = std::env::current_exe().map_err(failed("interceptor"))?;
    let mut command = Command::new(path);
    command.arg("doctor").args(arguments);
    Ok(command)
}

fn failed(command: &str) -> impl FnOnce(std::io::Error) -> KernelError {
    let command = command.to_owned();
    move |error| KernelError::ToolFailed {
        command,
        message: error.to_string(),
    }
}
