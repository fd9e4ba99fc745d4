//! What this program does when it is started again inside a namespace: one role for each process of
//! the scenario. A role prints one line for each thing that the test asks about.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor_user::kernel::{Attached, Plane, PlaneConfig, TargetRoute, detach, status};
use nix::unistd::{Gid, Uid, setgid, setuid};
use socket2::{Domain, Protocol, Socket, Type};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Plays the role that the arguments name.
pub(crate) fn play(arguments: &[&str]) {
    enter_cgroup();
    match arguments {
        ["relay", cgroup, bpffs, targets @ ..] => relay(cgroup, bpffs, targets),
        ["echo", port] => echo(port.parse().unwrap()),
        ["tcp", address] => tcp(Socket::new, address),
        ["moved", cgroup, address] => tcp(
            |domain, kind, protocol| moved(cgroup, domain, kind, protocol),
            address,
        ),
        ["bound", device, address] => tcp(
            |domain, kind, protocol| bound(device, domain, kind, protocol),
            address,
        ),
        ["brief", address] => drop(TcpStream::connect(address).unwrap()),
        ["hold", address] => hold(address),
        ["udp", address] => udp(address),
        ["mark", mark] => mark_socket(mark),
        ["bind", port] => report(
            "bind",
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.parse().unwrap())).err(),
        ),
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

/// The test gives the cgroup and user of a role in its environment.
fn enter_cgroup() {
    if let Ok(cgroup) = std::env::var("ICPT_KT_CGROUP") {
        std::fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
    }
    if let Ok(user) = std::env::var("ICPT_KT_USER") {
        let id = user.parse().unwrap();
        setgid(Gid::from_raw(id)).unwrap();
        setuid(Uid::from_raw(id)).unwrap();
    }
}

/// The smallest proxy: it attaches the plane and copies bytes.
fn relay(cgroup: &str, bpffs: &str, targets: &[&str]) {
    let targets = targets.iter().enumerate().map(|(index, text)| {
        let (network, port) = text.split_once('=').unwrap();
        TargetRoute {
            network: network.parse().unwrap(),
            port: port.parse().unwrap(),
            target: index as u32,
        }
    });
    let config = PlaneConfig {
        cgroup: Some(cgroup.into()),
        bpffs: bpffs.into(),
        targets: targets.collect(),
        ..PlaneConfig::default()
    };
    let Attached {
        plane,
        listener,
        log: _,
    } = match Plane::attach(&config) {
        Ok(attached) => attached,
        Err(error) => return println!("error: {error}"),
    };
    listener.set_nonblocking(false).unwrap();
    println!("ready");
    let plane = Arc::new(plane);
    loop {
        let (downstream, _) = listener.accept().unwrap();
        let plane = Arc::clone(&plane);
        std::thread::spawn(move || carry(&plane, &downstream));
    }
}

fn carry(plane: &Plane, downstream: &TcpStream) {
    let client = canonical(downstream.peer_addr().unwrap());
    let destination = canonical(downstream.local_addr().unwrap());
    let target = plane.target(destination);
    let who = match plane.identity(client, destination).unwrap() {
        None => "unknown".to_owned(),
        Some(identity) => {
            let process = identity.process();
            format!(
                "uid={} gid={} pid={} comm={} exe={} cgroup={}",
                process.uid,
                process.gid,
                process.pid,
                process.comm,
                process.executable.unwrap_or_default(),
                process.cgroup.unwrap_or_default()
            )
        }
    };
    println!("session {client} {destination} target={target:?} {who}");
    let Ok(upstream) = TcpStream::connect_timeout(&destination, TIMEOUT) else {
        return println!("upstream failed");
    };
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

/// The target. Also says what arrives by UDP.
fn echo(port: u16) {
    let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        loop {
            let (_, from) = udp.recv_from(&mut buffer).unwrap();
            println!("datagram {}", canonical(from));
        }
    });
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    println!("ready");
    loop {
        let (stream, from) = listener.accept().unwrap();
        println!("connection {}", canonical(from));
        std::thread::spawn(move || copy(&stream, &stream));
    }
}

type NewSocket = std::io::Result<Socket>;

/// A socket made here and used in another cgroup.
fn moved(cgroup: &str, domain: Domain, kind: Type, protocol: Option<Protocol>) -> NewSocket {
    let socket = Socket::new(domain, kind, protocol);
    std::fs::write(Path::new(cgroup).join("cgroup.procs"), "0")?;
    socket
}

fn bound(device: &str, domain: Domain, kind: Type, protocol: Option<Protocol>) -> NewSocket {
    let socket = Socket::new(domain, kind, protocol)?;
    socket.bind_device(Some(device.as_bytes()))?;
    Ok(socket)
}

/// Connects, sends a word, expects it back, and says what the client sees.
fn tcp(open: impl FnOnce(Domain, Type, Option<Protocol>) -> NewSocket, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = open(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .unwrap();
    let start = Instant::now();
    if let Err(error) = socket.connect_timeout(&address.into(), TIMEOUT) {
        return println!(
            "{:?} after {} ms",
            error.kind(),
            start.elapsed().as_millis()
        );
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut answer = [0; 5];
    let outcome = stream
        .write_all(b"hello")
        .and_then(|()| stream.read_exact(&mut answer));
    match outcome {
        Ok(()) => println!(
            "echo {} {}",
            canonical(stream.local_addr().unwrap()),
            canonical(stream.peer_addr().unwrap())
        ),
        Err(error) => println!(
            "broken {:?} after {} ms",
            error.kind(),
            start.elapsed().as_millis()
        ),
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut answer);
}

/// Stays connected, and says how the connection ends.
fn hold(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    println!("connected");
    let mut buffer = [0; 5];
    match stream.read(&mut buffer) {
        Ok(0) => println!("end"),
        other => println!("end {other:?}"),
    }
}

fn udp(address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let open = || {
        let any: SocketAddr = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        }
        .parse()
        .unwrap();
        UdpSocket::bind(any).unwrap()
    };
    report("connect", open().connect(address).err());
    report("sendto", open().send_to(b"hello", address).err());
}

fn mark_socket(mark: &str) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let mark = u32::from_str_radix(mark, 16).unwrap();
    report(
        "mark",
        nix::sys::socket::setsockopt(&socket.as_fd(), nix::sys::socket::sockopt::Mark, &mark)
            .err()
            .map(Into::into),
    );
}

fn report(what: &str, error: Option<std::io::Error>) {
    match error {
        None => println!("{what} ok"),
        Some(error) => println!("{what} {:?}", error.kind()),
    }
}
