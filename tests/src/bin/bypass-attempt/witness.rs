//! The witness: it answers on the ports of all attempts and says what arrived.
//!
//! Its lines are JSON. `frame` is what a packet socket saw enter this namespace, whoever it was for;
//! `accepted` is a connection that a listener got and whose token it read.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::packet::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_STACKED_VLAN, ETHERTYPE_VLAN, TCP, UDP,
};
use crate::report::{Parameters, find_token, name_of};
use crate::sys;

/// From linux/if_packet.h.
const PACKET_OUTGOING: u8 = 4;
const ETH_P_ALL: u16 = 3;

/// Room for the datagrams of all attempts, should the witness not run for a while.
const RECEIVE_BYTES: i32 = 8 << 20;

pub(crate) fn watch(parameters: &Parameters) -> Result<()> {
    let first = u16::try_from(parameters.number("first")?)?;
    let last = u16::try_from(parameters.number("last")?)?;
    let own = own_addresses()?;
    for port in first..=last {
        listen(port)?;
    }
    if let Ok(path) = parameters.path("unix") {
        listen_unix(&UnixListener::bind(&path)?)?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    }
    let all = i32::from(ETH_P_ALL.to_be());
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, all)?;
    sys::set_int(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BYTES,
    )?;
    say(&json!({"kind": "ready"}));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (count, kind) = sys::receive_frame(&socket, &mut buffer)?;
        let frame = buffer.get(..count).unwrap_or_default();
        // On `lo` each packet is seen twice; what this namespace sends is nobody's attempt.
        if kind != PACKET_OUTGOING
            && let Some(seen) = describe(frame, first..=last, &own)
        {
            say(&seen);
        }
    }
}

/// A SYN for somebody else is no attempt: it says no token, and its port means nothing.
fn own_addresses() -> Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?;
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            storage
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    };
    Ok(addresses
        .filter_map(|interface| interface.address.and_then(address))
        .collect())
}

fn say(line: &Value) {
    // One write for a line: threads share the file.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn listen(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on {port}"))?;
    let fast_open = 16;
    sys::set_int(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, fast_open)?;
    small_thread(move || {
        for stream in listener.incoming().flatten() {
            drop(small_thread(move || answer(stream, port)));
        }
    })?;
    // Bound and never read: what arrives here is seen as a frame, and is not refused.
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    std::mem::forget(datagrams);
    Ok(())
}

fn small_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(work)
        .map(drop)
}

fn answer(mut stream: TcpStream, port: u16) -> Result<()> {
    let from = stream.peer_addr()?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                let text = buffer.get(..count).unwrap_or_default();
                let attempt = find_token(text);
                say(&json!({"kind": "accepted", "port": attempt, "at": port,
                    "what": "connection", "from": from.to_string()}));
                stream.write_all(b"witness")?;
            }
            Err(error) => {
                say(&json!({"kind": "broken", "at": port, "what": name_of(&error)}));
                return Ok(());
            }
        }
    }
}

fn listen_unix(listener: &UnixListener) -> Result<()> {
    let listener = listener.try_clone()?;
    small_thread(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 64];
            let count = stream.read(&mut buffer).unwrap_or_default();
            let attempt = find_token(buffer.get(..count).unwrap_or_default());
            say(
                &json!({"kind": "accepted", "port": attempt, "what": "connection",
                "from": "a unix socket"}),
            );
            let _ = stream.write_all(b"witness");
        }
    })?;
    Ok(())
}

/// What there is to say about a frame; `None` if it is no attempt's.
fn describe(frame: &[u8], ports: RangeInclusive<u16>, own: &[IpAddr]) -> Option<Value> {
    let seen = parse(frame);
    // Without its first fragment, which names the port, no kernel makes anything of it.
    if seen.as_ref().is_some_and(|seen| seen.is_later_fragment) {
        return None;
    }
    let token = find_token(frame);
    let by_header = seen
        .as_ref()
        .filter(|seen| own.contains(&seen.to))
        .and_then(|seen| seen.port)
        .filter(|port| ports.contains(port));
    let port = token.or(by_header)?;
    let what = match &seen {
        Some(seen) if token.is_none() => seen.what.clone(),
        Some(seen) => format!("{} with the token", seen.what),
        None => "a frame with the token".into(),
    };
    let between = seen
        .as_ref()
        .map(|seen| format!("{} to {}", seen.from, seen.to));
    // A reset or a bare acknowledgement carries nothing to anybody.
    let counts = token.is_some() || seen.as_ref().is_some_and(|seen| seen.counts);
    Some(json!({"kind": "frame", "port": port, "what": what, "from": between, "counts": counts}))
}

struct Seen {
    port: Option<u16>,
    what: String,
    from: SocketAddr,
    to: IpAddr,
    counts: bool,
    is_later_fragment: bool,
}

impl Seen {
    fn later_fragment([from, to]: [IpAddr; 2]) -> Self {
        Self {
            port: None,
            what: "a later fragment".into(),
            from: SocketAddr::new(from, 0),
            to,
            counts: false,
            is_later_fragment: true,
        }
    }
}

fn parse(frame: &[u8]) -> Option<Seen> {
    let mut rest = frame.get(12..)?;
    let mut tags = 0;
    loop {
        let (ethertype, inside) = rest.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*ethertype) {
            ETHERTYPE_VLAN | ETHERTYPE_STACKED_VLAN => {
                rest = inside.get(2..)?;
                tags += 1;
            }
            ETHERTYPE_IPV4 => return parse_v4(inside, tags),
            ETHERTYPE_IPV6 => return parse_v6(inside, tags),
            _ => return None,
        }
    }
}

fn parse_v4(packet: &[u8], tags: u32) -> Option<Seen> {
    let header = usize::from(packet.first()? & 15) * 4;
    let protocol = *packet.get(9)?;
    let fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?);
    let from: [u8; 4] = *packet.get(12..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
    let payload = packet.get(header..length)?;
    let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
    let between = [from, to].map(|address| IpAddr::V4(Ipv4Addr::from(address)));
    if fragment & 0x1fff != 0 {
        return Some(Seen::later_fragment(between));
    }
    Some(transport(protocol, payload, between, tags))
}

fn parse_v6(packet: &[u8], tags: u32) -> Option<Seen> {
    let from: [u8; 16] = *packet.get(8..)?.first_chunk()?;
    let to: [u8; 16] = *packet.get(24..)?.first_chunk()?;
    let between = [from, to].map(|address| IpAddr::V6(Ipv6Addr::from(address)));
    let mut next = *packet.get(6)?;
    let mut payload = packet.get(40..)?;
    // Hop-by-hop, routing, fragment, destination options.
    while matches!(next, 0 | 43 | 44 | 60) {
        if next == 44 && u16::from_be_bytes(*payload.get(2..)?.first_chunk()?) & !7 != 0 {
            return Some(Seen::later_fragment(between));
        }
        let header = match next {
            44 => 8,
            _ => 8 + usize::from(*payload.get(1)?) * 8,
        };
        next = *payload.first()?;
        payload = payload.get(header..)?;
    }
    Some(transport(next, payload, between, tags))
}

fn transport(protocol: u8, payload: &[u8], [from, to]: [IpAddr; 2], tags: u32) -> Seen {
    let port_at = |at: usize| -> Option<u16> {
        let bytes = payload.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    };
    let tagged = if tags > 0 { ", tagged" } else { "" };
    let source = SocketAddr::new(from, port_at(0).unwrap_or_default());
    if protocol != TCP {
        return Seen {
            port: (protocol == UDP).then(|| port_at(2)).flatten(),
            what: match protocol {
                UDP => format!("datagram{tagged}"),
                other => format!("protocol {other}{tagged}"),
            },
            from: source,
            to,
            counts: true,
            is_later_fragment: false,
        };
    }
    let flags = payload.get(13).copied();
    let header = usize::from(payload.get(12).copied().unwrap_or_default() >> 4) * 4;
    let data = payload.len().saturating_sub(header) > 0;
    let (what, counts) = match flags {
        None => ("first fragment", true),
        Some(flags) if flags & 2 != 0 => ("SYN", true),
        Some(_) if data => ("data", true),
        Some(flags) if flags & 4 != 0 => ("RST", false),
        Some(flags) if flags & 1 != 0 => ("FIN", false),
        Some(_) => ("ACK", false),
    };
    Seen {
        port: port_at(2),
        what: format!("{what}{tagged}"),
        from: source,
        to,
        counts,
        is_later_fragment: false,
    }
}
