//! What this program does when it is started again: one role for each process of the scenario. A
//! role prints one line for each thing that the test asks about.

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor_core::audit::event;
use interceptor_user::identify::Identifier;
use interceptor_user::kernel::{Attached, Plane, PlaneConfig, TargetRoute};
use nix::unistd::{Gid, Uid, gettid, setgid, setuid};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::uring;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Plays the role that the arguments name.
pub(crate) fn play(arguments: &[&str]) {
    match arguments {
        ["relay", cgroup, bpffs, delay_ms, targets @ ..] => {
            relay(cgroup, bpffs, delay_ms.parse().unwrap(), targets);
        }
        ["echo", port] => echo(port.parse().unwrap()),
        ["tcp", address] => tcp(address),
        ["as", user, address] => {
            let id = user.parse().unwrap();
            setgid(Gid::from_raw(id)).unwrap();
            setuid(Uid::from_raw(id)).unwrap();
            tcp(address);
        }
        ["thread", address] => {
            let address = (*address).to_owned();
            std::thread::spawn(move || tcp(&address)).join().unwrap();
        }
        ["thread-exec", program, address] => thread_exec(program, address),
        ["deferred", address] => deferred(address),
        ["from", source, address] => from(source, address),
        ["uring", way, address] => uring::connect(way, address.parse().unwrap()),
        ["hold", address] => hold(address),
        ["hold-udp", address] => hold_udp(address),
        ["rate", count, address] => rate(count.parse().unwrap(), address),
        _ => panic!("unknown role {arguments:?}"),
    }
}

/// The smallest proxy: it attaches the plane, looks at the process and copies bytes.
fn relay(cgroup: &str, bpffs: &str, delay_ms: u64, targets: &[&str]) {
    let route = |(index, text): (usize, &&str)| {
        let (network, ports) = text.split_once('=').unwrap();
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        TargetRoute {
            network: network.parse().unwrap(),
            ports: first.parse().unwrap()..=last.parse().unwrap(),
            target: index as u32,
            preserve_client_address: false,
        }
    };
    let config = PlaneConfig {
        cgroup: Some(cgroup.into()),
        bpffs: bpffs.into(),
        targets: targets.iter().enumerate().map(route).collect(),
        ..PlaneConfig::default()
    };
    let attached = match Plane::attach(&config) {
        Ok(attached) => attached,
        Err(error) => return println!("error: {error}"),
    };
    let Attached {
        plane,
        listener,
        severed,
        ..
    } = attached;
    let mut ends: Vec<String> = severed
        .connections
        .iter()
        .map(|(client, target)| format!("{client}>{target}"))
        .collect();
    ends.sort();
    listener.set_nonblocking(false).unwrap();
    println!("ready {}", ends.join(" "));
    let identifier = Identifier::new(plane.task_probe());
    let plane = Arc::new(plane);
    loop {
        let (downstream, _) = listener.accept().unwrap();
        let (plane, identifier) = (Arc::clone(&plane), identifier.clone());
        std::thread::spawn(move || carry(&plane, &identifier, delay_ms, &downstream));
    }
}

fn carry(plane: &Plane, identifier: &Identifier, delay_ms: u64, downstream: &TcpStream) {
    let client = canonical(downstream.peer_addr().unwrap());
    let destination = canonical(downstream.local_addr().unwrap());
    let start = Instant::now();
    let identity = plane.identity(downstream.as_fd()).unwrap();
    let mut looked = start.elapsed();
    std::thread::sleep(Duration::from_millis(delay_ms));
    let start = Instant::now();
    let process = identity.map(|identity| {
        assert_eq!(identity.destination(), destination);
        event::Process::from(&identifier.process_blocking(&identity))
    });
    looked += start.elapsed();
    let session = json!({
        "client": client.to_string(),
        "target": destination.to_string(),
        "process": process.as_ref().map(fields),
        "looked_ns": looked.as_nanos() as u64,
    });
    println!("{session}");
    let Ok(upstream) = TcpStream::connect_timeout(&destination, TIMEOUT) else {
        return println!("\"upstream failed\"");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(downstream, &upstream));
        copy(&upstream, downstream);
    });
}

fn fields(process: &event::Process) -> Value {
    json!({
        "uid": process.uid,
        "gid": process.gid,
        "pid": process.pid,
        "tid": process.tid,
        "comm": process.comm,
        "started": process.started_unix_ns,
        "executable": process.executable,
        "elsewhere": process.executable_elsewhere,
        "hash": hex::encode(&process.executable_sha256),
        "command_line": process.command_line,
        "cgroup": process.cgroup,
        "container": process.container,
        "unit": process.unit,
        "netns": process.netns,
        "own": process.is_own_netns,
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The target, which says when a connection comes and how it ends.
fn echo(port: u16) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    println!("ready");
    loop {
        let (stream, from) = listener.accept().unwrap();
        println!("connection {}", canonical(from));
        std::thread::spawn(move || {
            let (mut reader, mut writer) = (&stream, &stream);
            let end = std::io::copy(&mut reader, &mut writer).map_err(|error| error.kind());
            println!("ended {} {end:?}", canonical(from));
        });
    }
}

/// Connects, and says who does. Ends when the test says so.
fn tcp(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    finish(&mut stream);
}

fn finish(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut answer = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut answer).unwrap();
    println!("{} {}", stream.local_addr().unwrap(), gettid());
    // Until the test has looked.
    let _ = std::io::stdin().read(&mut answer);
}

/// A thread that is not the first one connects and then executes another program.
fn thread_exec(program: &str, address: &str) {
    let (program, address) = (program.to_owned(), address.to_owned());
    std::thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        // SAFETY: the descriptor is open; without the flag it stays so in the next program.
        unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_SETFD, 0) };
        let words = [program.as_str(), "-c", "read line"].map(|word| CString::new(word).unwrap());
        nix::unistd::execv(&words[0], &words).unwrap();
    })
    .join()
    .unwrap();
}

/// With TCP_FASTOPEN_CONNECT nothing leaves before the first write.
fn deferred(address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let on = 1_i32;
    // SAFETY: the descriptor is open, and the value has the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            4,
        )
    };
    assert_eq!(result, 0);
    socket.connect(&address.into()).unwrap();
    finish(&mut socket.into());
}

/// From a given address and port, also one that was in use a moment ago. Ends with a reset.
fn from(source: &str, address: &str) {
    let source: SocketAddr = source.parse().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.bind(&source.into()).unwrap();
    println!("connecting");
    if let Err(error) = socket.connect_timeout(&address.into(), TIMEOUT) {
        return println!("failed {:?}", error.kind());
    }
    finish(&mut socket.into());
}

/// Stays connected, and says how the connection ends.
fn hold(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    println!("{}", stream.local_addr().unwrap());
    let mut buffer = [0; 5];
    let end = stream.read(&mut buffer).map_err(|error| error.kind());
    println!("end {end:?}");
}

fn hold_udp(address: &str) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(address).unwrap();
    println!("{}", socket.local_addr().unwrap());
    let end = socket.recv(&mut [0; 5]).map_err(|error| error.kind());
    println!("end {end:?}");
}

/// One connection after the other; the time that one takes.
fn rate(count: u32, address: &str) {
    let start = Instant::now();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut answer = [0; 5];
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut answer).unwrap();
    }
    println!("{}", start.elapsed().as_nanos() as u64 / u64::from(count));
}
