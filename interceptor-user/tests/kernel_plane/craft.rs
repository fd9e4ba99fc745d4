//! Packets made by hand, each with a SYN in it: in fragments, behind extension headers, cut off. The
//! role says whether the SYN was answered.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
const TCP: u8 = 6;
const DESTINATION_OPTIONS: u8 = 60;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// Where a packet is cut in two: both ports are in the first part.
const CUT: usize = 24;

/// Sends a SYN in the way that `how` names, and prints `answered` or `silent`.
pub(crate) fn craft(how: &str, source: &str, target: &str) {
    let source: SocketAddr = source.parse().unwrap();
    let target: SocketAddr = target.parse().unwrap();
    let domain = Domain::for_address(target);
    let answers = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).unwrap();
    answers
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let sender = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    for packet in packets(how, source, target) {
        let to = SocketAddr::new(target.ip(), 0);
        sender.send_to(&packet, &to.into()).unwrap();
    }
    let answered = hears_answer(answers, source.port(), target.port());
    println!("{}", if answered { "answered" } else { "silent" });
}

fn packets(how: &str, source: SocketAddr, target: SocketAddr) -> Vec<Vec<u8>> {
    let syn = syn(source, target);
    let ip = |protocol, fragment, payload: &[u8]| {
        packet(source.ip(), target.ip(), protocol, fragment, payload)
    };
    let (how, number) = how.split_once('=').unwrap_or((how, "0"));
    let number: usize = number.parse().unwrap();
    match (how, target.is_ipv4()) {
        ("whole", _) => vec![ip(TCP, 0, &syn)],
        ("fragments", true) => vec![
            ip(TCP, 0x2000, &syn[..CUT]),
            ip(TCP, (CUT / 8) as u16, &syn[CUT..]),
        ],
        ("fragments", false) => {
            let header = |offset: usize, more: u8| vec![TCP, 0, 0, offset as u8 | more, 0, 0, 0, 7];
            vec![
                ip(FRAGMENT, 0, &[header(0, 1), syn[..CUT].to_vec()].concat()),
                ip(FRAGMENT, 0, &[header(CUT, 0), syn[CUT..].to_vec()].concat()),
            ]
        }
        // The first fragment says nothing of the ports.
        ("short", true) => vec![ip(TCP, 0x2000, &syn[..2])],
        ("short", false) => vec![ip(FRAGMENT, 0, &[TCP, 0, 0, 1, 0, 0, 0, 7])],
        ("options", false) => {
            let headers: Vec<u8> = (1..=number)
                .flat_map(|index| {
                    option_header(if index == number {
                        TCP
                    } else {
                        DESTINATION_OPTIONS
                    })
                })
                .collect();
            vec![ip(DESTINATION_OPTIONS, 0, &[headers, syn].concat())]
        }
        // Type 4 with a segment left: it goes on to where only this header says.
        ("routing", false) => {
            let header = [TCP, 2, 4, 1, 0, 0, 0, 0];
            let segment = [0; 16];
            vec![ip(ROUTING, 0, &[&header[..], &segment, &syn].concat())]
        }
        // A header that says that it is longer than the packet.
        ("cut", false) => {
            let header = [TCP, 255, 1, 4, 0, 0, 0, 0];
            vec![ip(DESTINATION_OPTIONS, 0, &[&header[..], &syn].concat())]
        }
        _ => panic!("unknown way {how}"),
    }
}

/// Eight bytes, of which six are padding (RFC 8200, section 4.2).
fn option_header(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// A SYN with 20 bytes of options that mean nothing, so that it can be cut.
fn syn(source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let mut tcp = vec![1; 40];
    tcp[..20].fill(0);
    tcp[..2].copy_from_slice(&source.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&target.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    tcp[12] = 10 << 4;
    tcp[13] = 2;
    tcp[14..16].copy_from_slice(&1000_u16.to_be_bytes());
    let mut pseudo = bytes(source.ip());
    pseudo.extend(bytes(target.ip()));
    pseudo.extend([0, TCP]);
    pseudo.extend((tcp.len() as u16).to_be_bytes());
    let sum = checksum(&[pseudo, tcp.clone()].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    tcp
}

fn packet(source: IpAddr, target: IpAddr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = match target {
        IpAddr::V4(_) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + payload.len() as u16).to_be_bytes());
            header.extend([0, 7]);
            header.extend(fragment.to_be_bytes());
            header.extend([64, protocol, 0, 0]);
            header
        }
        IpAddr::V6(_) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((payload.len() as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header
        }
    };
    header.extend(bytes(source));
    header.extend(bytes(target));
    [header, payload.to_vec()].concat()
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RFC 1071; all that is summed here has an even length.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether a SYN with ACK comes back. A raw socket of IPv4 gives the IP header too.
fn hears_answer(mut answers: Socket, own_port: u16, port: u16) -> bool {
    let is_v4 = answers.domain().unwrap() == Domain::IPV4;
    let end = Instant::now() + ANSWER_WAIT;
    let mut buffer = [0; 2000];
    while Instant::now() < end {
        let Ok(length) = answers.read(&mut buffer) else {
            continue;
        };
        let start = if is_v4 {
            usize::from(buffer[0] & 15) * 4
        } else {
            0
        };
        let Some(tcp) = buffer[..length].get(start..start + 20) else {
            continue;
        };
        let ports = [tcp[0], tcp[1], tcp[2], tcp[3]];
        let expected = [port.to_be_bytes(), own_port.to_be_bytes()].concat();
        if ports[..] == expected[..] && tcp[13] & 0x12 == 0x12 {
            return true;
        }
    }
    false
}

/// Sets options that every packet of a connection then carries.
pub(crate) fn with_options(
    domain: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> std::io::Result<Socket> {
    let socket = Socket::new(domain, kind, protocol)?;
    // Eight bytes that mean "nothing" in IPv4, and an options header of IPv6 with six of padding.
    let (level, option, value) = if domain == Domain::IPV4 {
        (libc::IPPROTO_IP, libc::IP_OPTIONS, [1_u8; 8])
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, option_header(0))
    };
    // SAFETY: the descriptor is open, and the value has the length that is given.
    let result = unsafe {
        use std::os::fd::AsRawFd as _;
        libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), 8)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    Ok(socket)
}
