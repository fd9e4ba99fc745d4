//! Frames of a packet socket: every shape in which a target's address and port can be dressed. Each
//! has its number in its source address, by which the sniffer knows it.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// The first bytes of the source address of each frame.
const SOURCE: [u8; 4] = [0x02, 0x69, 0x63, 0x70];

/// Where frames pretend to go.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    pub(crate) port: u16,
}

struct Shape {
    name: &'static str,
    /// What the sender claims to send; zero has the kernel look.
    claimed: u16,
    bytes: Vec<u8>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The rest of a tagged frame: its tag, and what is tagged.
fn tag(inner: u16, rest: Vec<u8>) -> Vec<u8> {
    [&[0, 7][..], &inner.to_be_bytes(), &rest].concat()
}

/// The shapes. Those that hide the port go to any port of the target's address.
fn shapes(to: Destination) -> Vec<Shape> {
    let ip4 = || ipv4(to, TCP, &[], 40);
    let shape = |name, claimed, ethertype: u16, rest: Vec<u8>| Shape {
        name,
        claimed,
        bytes: [&ethertype.to_be_bytes()[..], &rest].concat(),
    };
    vec![
        shape("v4", 0x0800, 0x0800, ip4()),
        shape("v4 unclaimed", 0, 0x0800, ip4()),
        shape("v4 as all protocols", 0x0003, 0x0800, ip4()),
        shape("v4 as something else", 0x1234, 0x0800, ip4()),
        shape("v4 as a tagged frame", 0x8100, 0x0800, ip4()),
        shape("v4 as v6", 0x86dd, 0x0800, ip4()),
        shape("tagged v4", 0, 0x8100, tag(0x0800, ip4())),
        shape("tagged v4 as v4", 0x0800, 0x8100, tag(0x0800, ip4())),
        shape(
            "twice tagged v4",
            0,
            0x88a8,
            tag(0x8100, tag(0x0800, ip4())),
        ),
        shape("v4 by UDP", 0, 0x0800, ipv4(to, UDP, &[], 40)),
        shape("v6", 0x86dd, 0x86dd, ipv6(to, TCP, &[])),
        shape("v6 as something else", 0x1234, 0x86dd, ipv6(to, TCP, &[])),
        shape("tagged v6", 0, 0x8100, tag(0x86dd, ipv6(to, TCP, &[]))),
    ]
}

/// Shapes that hide the port.
fn hidden(to: Destination) -> Vec<Shape> {
    let shape = |name, ethertype: u16, rest: Vec<u8>| Shape {
        name,
        claimed: 0,
        bytes: [&ethertype.to_be_bytes()[..], &rest].concat(),
    };
    // Next header TCP, no more than eight bytes, padding of four bytes (RFC 8200, section 4.2).
    let options6 = [TCP, 0, 1, 4, 0, 0, 0, 0];
    vec![
        shape("v4 with options", 0x0800, ipv4(to, TCP, &[1, 1, 1, 0], 44)),
        shape(
            "v4 without ports",
            0x0800,
            ipv4(to, TCP, &[], 40)[..21].to_vec(),
        ),
        shape(
            "four times tagged v4",
            0x88a8,
            tag(
                0x8100,
                tag(0x8100, tag(0x8100, tag(0x0800, ipv4(to, TCP, &[], 40)))),
            ),
        ),
        shape("v6 behind a header", 0x86dd, ipv6(to, 60, &options6)),
    ]
}

/// Shapes for a device without link headers. Their number is in the identification, or the flow label.
fn bare(to: Destination) -> Vec<Shape> {
    let (ip4, ip6) = (ipv4(to, TCP, &[], 40), ipv6(to, TCP, &[]));
    let shape = |name, claimed, bytes: &Vec<u8>| Shape {
        name,
        claimed,
        bytes: bytes.clone(),
    };
    vec![
        shape("v4", 0x0800, &ip4),
        shape("v4 unclaimed", 0, &ip4),
        shape("v4 as something else", 0x1234, &ip4),
        shape("v4 as a tagged frame", 0x8100, &ip4),
        shape("v6", 0x86dd, &ip6),
    ]
}

/// Frames that are nobody's business.
fn others() -> Vec<Shape> {
    let shape = |name, ethertype: u16, rest: Vec<u8>| Shape {
        name,
        claimed: 0,
        bytes: [&ethertype.to_be_bytes()[..], &rest].concat(),
    };
    vec![
        shape("local experimental", 0x88b5, vec![0; 46]),
        shape(
            "tagged experimental",
            0x8100,
            [&[0, 7, 0x88, 0xb5][..], &[0; 46]].concat(),
        ),
    ]
}

/// Sends the shapes of a kind by a device, with or without the queueing discipline; how many, and
/// the names.
pub(crate) fn send(device: &str, kind: &str, to: Destination, is_direct: bool, mark: u32) {
    let shapes = match kind {
        "shown" => shapes(to),
        "hidden" => hidden(to),
        "bare" => bare(to),
        _ => others(),
    };
    let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::RAW, None).unwrap();
    if mark != 0 {
        socket.set_mark(mark).unwrap();
    }
    if is_direct {
        set_bypass(&socket);
    }
    for (number, shape) in (0_u8..).zip(&shapes) {
        let source = [&SOURCE[..], &[0, number]].concat();
        let mut frame = [&[0xff; 6][..], &source, &shape.bytes].concat();
        if kind == "bare" {
            frame = shape.bytes.clone();
            let at = if frame[0] == 0x60 { 3 } else { 5 };
            frame[at] = number;
        }
        send_one(&socket, device, shape.claimed, &frame);
    }
    let names: Vec<&str> = shapes.iter().map(|shape| shape.name).collect();
    println!("{}", names.join(","));
}

fn set_bypass(socket: &Socket) {
    use std::os::fd::AsRawFd as _;
    let one: i32 = 1;
    // SAFETY: the value lives until the call returns, with the size that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const one).cast(),
            size_of::<i32>() as u32,
        )
    };
    assert_eq!(result, 0);
}

/// Dropped or not, that is for the sniffer to say.
fn send_one(socket: &Socket, device: &str, claimed: u16, frame: &[u8]) {
    use std::os::fd::AsRawFd as _;
    let index = nix::net::if_::if_nametoindex(device).unwrap() as i32;
    // SAFETY: the address is zeroed plain data, and all pointers live until the call returns.
    unsafe {
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index;
        to.sll_protocol = claimed.to_be();
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        );
    }
}

/// Prints the numbers of the frames that arrive, when asked and none came for a while.
pub(crate) fn sniff() {
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::RAW, Some(all)).unwrap();
    socket.set_nonblocking(true).unwrap();
    println!("ready");
    report(socket, |frame| {
        (frame.len() > 12 && frame[6..10] == SOURCE).then(|| frame[11])
    });
}

/// The same, at the other end of a tunnel that is made here.
pub(crate) fn tunnel(name: &str) {
    use std::os::fd::AsRawFd as _;
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: the request is zeroed plain data and lives until the call returns.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw const request)
    };
    assert_eq!(result, 0);
    crate::world::command(&["ip", "link", "set", name, "up"]);
    println!("ready");
    report(device, |packet| match packet {
        [0x60, _, _, number, ..] if packet[6] == TCP => Some(*number),
        [0x45, _, _, _, _, number, ..] => Some(*number),
        _ => None,
    });
}

fn report(mut from: impl Read, number: impl Fn(&[u8]) -> Option<u8>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        assert_eq!(line, "report");
        let mut numbers = BTreeSet::new();
        let mut buffer = [0; 2000];
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(300) {
            match from.read(&mut buffer) {
                Ok(length) => {
                    if let Some(number) = number(&buffer[..length]) {
                        numbers.insert(number);
                        last = Instant::now();
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        println!("{numbers:?}");
    }
}

fn tcp_or_udp(protocol: u8, port: u16) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[..2].copy_from_slice(&40000_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    if protocol == UDP {
        bytes[5] = 20;
    } else {
        bytes[12] = 5 << 4;
        bytes[13] = 2;
    }
    bytes
}

fn ipv4(to: Destination, protocol: u8, options: &[u8], total: u16) -> Vec<u8> {
    let mut header = vec![0x45 + (options.len() / 4) as u8, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    header.extend([10, 78, 2, 1]);
    header.extend(to.v4.octets());
    [&header[..], options, &tcp_or_udp(protocol, to.port)].concat()
}

fn ipv6(to: Destination, next: u8, extension: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((20 + extension.len() as u16).to_be_bytes());
    header.extend([next, 64]);
    header.extend(Ipv6Addr::new(0xfd78, 2, 0, 0, 0, 0, 0, 1).octets());
    header.extend(to.v6.octets());
    [&header[..], extension, &tcp_or_udp(TCP, to.port)].concat()
}
