//! What this program does when it is started again inside a namespace: one role for each process of
//! the scenario. A role prints one line for each thing that the test asks about.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use interceptor_user::identify::Identifier;
use interceptor_user::kernel::{
    Attached, KernelLog, Plane, PlaneConfig, TargetRoute, client_socket, detach, status,
};
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{Gid, Uid, setgid, setuid};
use socket2::{Domain, Protocol, Socket, Type};

use super::craft;

use crate::world::scaled;

/// How long a client waits for its connection, and for an answer.
fn timeout() -> Duration {
    scaled(Duration::from_secs(5))
}

/// Plays the role that the arguments name.
pub(crate) fn play(arguments: &[&str]) {
    if std::env::var_os("ICPT_KT_FILTERS").is_some() {
        interceptor_user::kernel::feature::assume_no_tcx();
    }
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
        ["craft", how, source, target] => craft::craft(how, source, target),
        ["options", address] => tcp(craft::with_options, address),
        ["greet", port] => greet(port.parse().unwrap()),
        ["again", port, address] => again(port.parse().unwrap(), address),
        ["pump", here, namespace, there] => pump(here, namespace, there),
        ["talk", address] => talk(address),
        ["hammer", address] => hammer(address),
        ["bulk", address, bytes] => bulk(address, bytes.parse().unwrap()),
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
        targets: given_routes(targets),
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
    let plane = Arc::new(plane);
    let owner = Arc::clone(&plane);
    std::thread::spawn(move || replace_targets(&owner));
    loop {
        let (downstream, _) = listener.accept().unwrap();
        let plane = Arc::clone(&plane);
        std::thread::spawn(move || carry(&plane, &downstream));
    }
}

/// Targets as words, or in a file where they are too many for a command line.
fn given_routes(targets: &[&str]) -> Vec<TargetRoute> {
    match targets {
        [file] if file.starts_with('@') => {
            let text = std::fs::read_to_string(&file[1..]).unwrap();
            routes(text.split_whitespace())
        }
        words => routes(words.iter().copied()),
    }
}

fn routes<'a>(targets: impl Iterator<Item = &'a str>) -> Vec<TargetRoute> {
    let route = |(index, text): (usize, &str)| {
        let (network, ports) = text.split_once('=').unwrap();
        let plain = ports.strip_suffix("+client");
        TargetRoute {
            network: network.parse().unwrap(),
            ports: parse_ports(plain.unwrap_or(ports)),
            target: index as u32,
            preserve_client_address: plain.is_some(),
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
fn replace_targets(plane: &Plane) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let targets = routes(line.split_whitespace());
        match plane.set_targets(&targets) {
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
    let Some(upstream) = dial(plane, downstream) else {
        return println!("upstream failed");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(downstream, &upstream));
        copy(&upstream, downstream);
    });
}

fn dial(plane: &Plane, downstream: &TcpStream) -> Option<TcpStream> {
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
    let dialled = if plane.preserves_client_address(destination) {
        client_socket(client.ip(), destination).and_then(|socket| {
            socket.connect_timeout(&destination.into(), timeout())?;
            Ok(TcpStream::from(socket))
        })
    } else {
        TcpStream::connect_timeout(&destination, timeout())
    };
    dialled.ok()
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

/// A server that says a word and closes first.
fn greet(port: u16) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
    println!("ready");
    loop {
        let (mut stream, from) = listener.accept().unwrap();
        println!("connection {}", canonical(from));
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        std::thread::spawn(move || stream.read(&mut [0; 1]));
    }
}

/// Connects 20 times from the same port, each time as soon as the other side has closed.
fn again(port: u16, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    for round in 0..20 {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any = match address {
            SocketAddr::V4(_) => "0.0.0.0",
            SocketAddr::V6(_) => "::",
        };
        socket
            .bind(&SocketAddr::new(any.parse().unwrap(), port).into())
            .unwrap();
        // Less than the second after which a SYN is sent again.
        let wait = Duration::from_millis(900);
        if let Err(error) = socket.connect_timeout(&address.into(), wait) {
            return println!("round {round}: {:?}", error.kind());
        }
        let mut stream = TcpStream::from(socket);
        let mut word = String::new();
        stream.set_read_timeout(Some(timeout())).unwrap();
        if let Err(error) = stream.read_to_string(&mut word) {
            return println!("round {round}: {:?}", error.kind());
        }
        assert_eq!(word, "hello");
    }
    println!("again 20");
}

/// Sends each line of the standard input over one connection, and says what comes back.
fn talk(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(timeout())).unwrap();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let mut answer = vec![0; line.len()];
        let outcome = stream
            .write_all(line.as_bytes())
            .and_then(|()| stream.read_exact(&mut answer));
        match outcome {
            Ok(()) => println!("heard {}", String::from_utf8_lossy(&answer)),
            Err(error) => println!("broken {:?}", error.kind()),
        }
    }
}

/// Connects again and again until it is told to end; then says how often. The first failure ends it.
fn hammer(address: &str) {
    static ENDED: AtomicBool = AtomicBool::new(false);
    extern "C" fn end(_: libc::c_int) {
        ENDED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler stores to an atomic and does nothing else.
    unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::Handler(end)) }.unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !ENDED.load(Ordering::Relaxed) {
        let mut answer = [0; 5];
        let start = Instant::now();
        let outcome = TcpStream::connect_timeout(&address, timeout()).and_then(|mut stream| {
            stream.set_read_timeout(Some(timeout()))?;
            stream.write_all(b"hello")?;
            stream.read_exact(&mut answer)
        });
        match outcome {
            Ok(()) => (count, longest) = (count + 1, longest.max(start.elapsed())),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return println!("failed after {count}: {error}"),
        }
    }
    println!("carried {count}, the slowest in {} ms", longest.as_millis());
}

/// Sends so many bytes and expects them back.
fn bulk(address: &str, bytes: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(timeout())).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&vec![7; bytes]));
    let mut received = vec![0; bytes];
    match stream.read_exact(&mut received) {
        Ok(()) => println!("carried {bytes}"),
        Err(error) => println!("broken {:?}", error.kind()),
    }
    let _ = sending.join().unwrap();
}

/// A tunnel between two namespaces: what one end sends, the other receives.
fn pump(here: &str, namespace: &str, there: &str) {
    let here = open_tunnel(here);
    let namespace = File::open(namespace).unwrap();
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let there = open_tunnel(there);
    println!("ready");
    std::thread::scope(|scope| {
        scope.spawn(|| pump_packets(&here, &there));
        pump_packets(&there, &here);
    });
}

fn pump_packets(mut from: &File, mut to: &File) {
    let mut packet = [0; 70_000];
    loop {
        // An end that is still down takes and gives nothing.
        match from.read(&mut packet) {
            Ok(length) => drop(to.write(&packet[..length])),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// A device whose frames begin with the IP header (linux/if_tun.h).
fn open_tunnel(name: &str) -> File {
    const IFF_TUN_NO_PI: libc::c_short = 0x1001;
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: the request is zeroed plain data with a name that is shorter than its field, and outlives
    // the call.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = IFF_TUN_NO_PI;
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&file),
            libc::TUNSETIFF,
            &raw mut request,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    file
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
    if let Err(error) = socket.connect_timeout(&address.into(), timeout()) {
        return println!(
            "{:?} after {} ms",
            error.kind(),
            start.elapsed().as_millis()
        );
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(timeout())).unwrap();
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
