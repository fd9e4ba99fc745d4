//! What this program does when it is started again inside a namespace.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use interceptor_user::kernel::{Attached, Plane, PlaneConfig, TargetRoute, detach, status, watch};

use crate::frames::{self, Destination};

use crate::world::scaled;

/// How long a client waits for its connection, and for an answer.
fn timeout() -> Duration {
    scaled(Duration::from_secs(5))
}

/// Plays the role that the arguments name.
pub(crate) fn play(arguments: &[&str]) {
    if let Ok(cgroup) = std::env::var("ICPT_KE_CGROUP") {
        std::fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
    }
    match arguments {
        ["relay", cgroup, bpffs, devices, targets @ ..] => relay(cgroup, bpffs, devices, targets),
        ["echo", port] => echo(port.parse().unwrap()),
        ["tcp", address] => println!("{}", tcp(address)),
        ["hammer", address] => hammer(address),
        ["sniff"] => frames::sniff(),
        ["tunnel", name] => frames::tunnel(name),
        ["frames", device, kind, v4, v6, port, way, mark] => {
            let to = Destination {
                v4: v4.parse().unwrap(),
                v6: v6.parse().unwrap(),
                port: port.parse().unwrap(),
            };
            frames::send(device, kind, to, *way == "direct", mark.parse().unwrap());
        }
        ["unix", directory, paths @ ..] => unix(directory, paths),
        ["serve", directory, paths @ ..] => serve(directory, paths),
        ["status", bpffs] => println!(
            "{}",
            serde_json::to_string(&status(Path::new(bpffs)).unwrap()).unwrap()
        ),
        ["detach", cgroup, bpffs] => match detach(Some(Path::new(cgroup)), Path::new(bpffs)) {
            Ok(()) => println!("detached"),
            Err(error) => println!("error: {error}"),
        },
        _ => panic!("unknown role {arguments:?}"),
    }
}

/// The smallest proxy: it attaches the plane, follows the devices and copies bytes. Each line of its
/// input is another set of unix sockets.
fn relay(cgroup: &str, bpffs: &str, devices: &str, targets: &[&str]) {
    if std::env::var_os("ICPT_KE_VERBOSE").is_some() {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .init();
    }
    let config = PlaneConfig {
        cgroup: Some(cgroup.into()),
        bpffs: bpffs.into(),
        devices: (devices != "all").then(|| devices.split(',').map(Into::into).collect()),
        targets: targets.iter().map(|text| route(text)).collect(),
        ..PlaneConfig::default()
    };
    let Attached {
        plane, listener, ..
    } = match Plane::attach(&config) {
        Ok(attached) => attached,
        Err(error) => return println!("error: {error}"),
    };
    listener.set_nonblocking(false).unwrap();
    println!("ready");
    let plane = Arc::new(RwLock::new(plane));
    let (watched, owner) = (Arc::clone(&plane), Arc::clone(&plane));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let report = |line| println!("change {line}");
        let ended = runtime.block_on(watch(watched, report));
        println!("the watch ended: {ended:?}");
    });
    std::thread::spawn(move || set_unix_sockets(&owner));
    loop {
        let (downstream, _) = listener.accept().unwrap();
        let plane = Arc::clone(&plane);
        std::thread::spawn(move || carry(&plane, &downstream));
    }
}

fn route(text: &str) -> TargetRoute {
    let (network, port) = text.split_once('=').unwrap();
    let port = port.parse().unwrap();
    TargetRoute {
        network: network.parse().unwrap(),
        ports: port..=port,
        target: 0,
        preserve_client_address: false,
    }
}

fn set_unix_sockets(plane: &RwLock<Plane>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let sockets: Vec<PathBuf> = line.split_whitespace().map(Into::into).collect();
        match plane.read().unwrap().set_unix_sockets(&sockets) {
            Ok(()) => println!("replaced"),
            Err(error) => println!("error: {error}"),
        }
    }
}

fn carry(plane: &RwLock<Plane>, downstream: &TcpStream) {
    let client = canonical(downstream.peer_addr().unwrap());
    let destination = canonical(downstream.local_addr().unwrap());
    let who = plane.read().unwrap().identity(downstream.as_fd()).unwrap();
    let Ok(upstream) = TcpStream::connect_timeout(&destination, timeout()) else {
        return println!("upstream failed");
    };
    let who = who.map_or("unknown".to_owned(), |who| who.comm());
    println!("session {} {destination} {who}", client.ip());
    std::thread::scope(|scope| {
        scope.spawn(|| copy(downstream, &upstream));
        copy(&upstream, downstream);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The target. It says who connects.
fn echo(port: u16) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    println!("ready");
    loop {
        let (stream, from) = listener.accept().unwrap();
        println!("connection {}", canonical(from).ip());
        std::thread::spawn(move || copy(&stream, &stream));
    }
}

/// Connects, sends a word and expects it back.
fn tcp(address: &str) -> String {
    let mut stream = match TcpStream::connect_timeout(&address.parse().unwrap(), timeout()) {
        Ok(stream) => stream,
        Err(error) => return format!("{:?}", error.kind()),
    };
    stream.set_read_timeout(Some(timeout())).unwrap();
    let mut answer = [0; 5];
    let outcome = stream
        .write_all(b"hello")
        .and_then(|()| stream.read_exact(&mut answer));
    match outcome {
        Ok(()) => format!("echo {}", canonical(stream.local_addr().unwrap()).ip()),
        Err(error) => format!("broken {:?}", error.kind()),
    }
}

/// Connects again and again until it is carried: how long that took, and what came before.
fn hammer(address: &str) {
    let start = Instant::now();
    let mut before = std::collections::BTreeSet::new();
    while start.elapsed() < 12 * timeout() {
        let outcome = tcp(address);
        if outcome.starts_with("echo") {
            let took = start.elapsed().as_millis();
            return println!("carried after {took} ms, before {before:?}");
        }
        before.insert(outcome);
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("never carried: {before:?}");
}

fn address(path: &str) -> UnixAddress {
    match path.strip_prefix('@') {
        Some(name) => UnixAddress::from_abstract_name(name).unwrap(),
        None => UnixAddress::from_pathname(path).unwrap(),
    }
}

/// Says for each path whether it can be connected to, from a directory.
fn unix(directory: &str, paths: &[&str]) {
    std::env::set_current_dir(directory).unwrap();
    for path in paths {
        match UnixStream::connect_addr(&address(path)) {
            Ok(_) => println!("{path} ok"),
            Err(error) => println!("{path} {:?}", error.kind()),
        }
    }
}

/// Listens on all of the paths until it is ended.
fn serve(directory: &str, paths: &[&str]) {
    std::env::set_current_dir(directory).unwrap();
    let listeners: Vec<UnixListener> = paths
        .iter()
        .map(|path| UnixListener::bind_addr(&address(path)).unwrap())
        .collect();
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(listeners);
}
