//! What this program does when it is started again inside a namespace: one role for each process of
//! the scenario. A role prints one line for each thing that the test asks about.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use interceptor_user::identify::Identifier;
use interceptor_user::kernel::{
    Attached, KernelLog, Plane, PlaneConfig, TargetRoute, detach, status,
};
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
        ["opaque"] => opaque(),
        ["frame", device] => frame(device),
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
    let config = PlaneConfig {
        cgroup: Some(cgroup.into()),
        bpffs: bpffs.into(),
        targets: routes(targets.iter().copied()),
        ..PlaneConfig::default()
    };
    let Attached {
        plane,
        listener,
        log,
        severed: _,
    } = match Plane::attach(&config) {
        Ok(attached) => attached,
        Err(error) => return println!("error: {error}"),
    };
    listener.set_nonblocking(false).unwrap();
    forward_log(log);
    println!("ready");
    let plane = Arc::new(RwLock::new(plane));
    let owner = Arc::clone(&plane);
    std::thread::spawn(move || replace_targets(&owner));
    loop {
        let (downstream, _) = listener.accept().unwrap();
        let plane = Arc::clone(&plane);
        std::thread::spawn(move || carry(&plane.read().unwrap(), &downstream));
    }
}

fn routes<'a>(targets: impl Iterator<Item = &'a str>) -> Vec<TargetRoute> {
    let route = |(index, text): (usize, &str)| {
        let (network, port) = text.split_once('=').unwrap();
        TargetRoute {
            network: network.parse().unwrap(),
            ports: parse_ports(port),
            target: index as u32,
        }
    };
    targets.enumerate().map(route).collect()
}

/// A port, or `first-last`.
fn parse_ports(text: &str) -> std::ops::RangeInclusive<u16> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    first.parse().unwrap()..=last.parse().unwrap()
}

/// Each line of the standard input is a new set of targets.
fn replace_targets(plane: &RwLock<Plane>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let targets = routes(line.split_whitespace());
        match plane.write().unwrap().set_targets(&targets) {
            Ok(()) => println!("replaced"),
            Err(error) => println!("error: {error}"),
        }
    }
}

/// Kernel messages go to a file, beside the lines that the test reads in order.
struct FileLog(Mutex<File>);

impl log::Log for FileLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        writeln!(
            self.0.lock().unwrap(),
            "{} {}",
            record.level(),
            record.args()
        )
        .unwrap();
    }

    fn flush(&self) {}
}

fn forward_log(log: KernelLog) {
    let file = File::create(std::env::var("ICPT_KT_LOG").unwrap()).unwrap();
    log::set_boxed_logger(Box::new(FileLog(Mutex::new(file)))).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    std::thread::spawn(move || runtime.block_on(log.forward()));
}

fn carry(plane: &Plane, downstream: &TcpStream) {
    let client = canonical(downstream.peer_addr().unwrap());
    let destination = canonical(downstream.local_addr().unwrap());
    let target = plane.target(destination);
    let who = match plane.identity(downstream.as_fd()).unwrap() {
        None => "unknown".to_owned(),
        Some(identity) => {
            let process = Identifier::new(plane.task_probe()).process_blocking(&identity);
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

/// What hides a target's port: an IPv4 fragment of TCP, and TCP behind an IPv6 extension header.
fn opaque() {
    let tcp = tcp_syn();
    let v4 = Socket::new(
        Domain::IPV4,
        Type::RAW,
        Some(Protocol::from(libc::IPPROTO_RAW)),
    )
    .unwrap();
    v4.send_to(
        &ipv4_packet([10, 77, 1, 2], 0x2000, &tcp),
        &address("10.77.2.2:0"),
    )
    .unwrap();
    let v6 = Socket::new(
        Domain::IPV6,
        Type::RAW,
        Some(Protocol::from(libc::IPPROTO_DSTOPTS)),
    )
    .unwrap();
    // Next header TCP, no more than eight bytes, padding of four bytes (RFC 8200, section 4.2).
    let options = [6, 0, 1, 4, 0, 0, 0, 0];
    v6.send_to(&[&options[..], &tcp].concat(), &address("[fd77:2::2]:0"))
        .unwrap();
}

/// A frame that no socket of TCP made, with a protocol number that is not its own.
fn frame(device: &str) {
    let index = nix::net::if_::if_nametoindex(device).unwrap() as i32;
    let ethernet = [&[0xff; 12][..], &[0x08, 0x00]].concat();
    let packet = ipv4_packet([10, 77, 2, 1], 0, &tcp_syn());
    // SAFETY: the address is zeroed plain data, and all pointers live until the calls return.
    let sent = unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index;
        to.sll_protocol = 0x1234;
        let bytes = [ethernet, packet].concat();
        let length = size_of::<libc::sockaddr_ll>() as u32;
        libc::sendto(
            socket,
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const to).cast(),
            length,
        )
    };
    // What the kernel says when an egress program drops.
    let is_dropped =
        sent < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS);
    println!("{}", if is_dropped { "dropped" } else { "left" });
}

fn address(text: &str) -> socket2::SockAddr {
    text.parse::<SocketAddr>().unwrap().into()
}

/// A SYN from port 40000 to the target's; nothing checks its checksum on the way.
fn tcp_syn() -> Vec<u8> {
    let mut tcp = vec![0; 20];
    tcp[..2].copy_from_slice(&40000_u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&5432_u16.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 2;
    tcp
}

fn ipv4_packet(source: [u8; 4], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    header.extend([0, 1]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, 6, 0, 0]);
    header.extend(source);
    header.extend([10, 77, 2, 2]);
    [header, payload.to_vec()].concat()
}
