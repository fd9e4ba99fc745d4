//! Attempts with sockets that have connections.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::report::{Parameters, Report, name_of};
use crate::sys;

/// How long an attempt waits for anybody. The answers come over a virtual cable.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1200);

/// From linux/in.h, linux/in6.h, linux/tcp.h.
const IPPROTO_MPTCP: i32 = 262;
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;
const TCP_FASTOPEN_CONNECT: i32 = 30;

pub(crate) fn open(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    limit(&socket)?;
    Ok(socket)
}

fn limit(socket: &Socket) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE)) // It limits `connect` as well.
}

/// Says the token and hears who answers.
pub(crate) fn talk(socket: &Socket, token: &[u8]) -> Result<Report> {
    let mut stream: &Socket = socket;
    if let Err(error) = stream.write_all(token) {
        return Ok(Report::refused(&error));
    }
    Ok(hear(stream))
}

fn hear(mut stream: impl io::Read) -> Report {
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(0) => connected("closed"),
        Ok(_) if answer.starts_with(b"E") => connected("an error of PostgreSQL's protocol"),
        Ok(_) => connected("an answer"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Report::said("silence"),
        Err(error) => Report::refused(&error),
    }
}

fn connected(said: &str) -> Report {
    Report {
        connected: true,
        ..Report::said(said)
    }
}

fn dial(socket: &Socket, parameters: &Parameters) -> Result<Report> {
    socket.connect(&parameters.target()?.into())?;
    talk(socket, &parameters.token()?)
}

pub(crate) fn plain(parameters: &Parameters) -> Result<Report> {
    dial(&open(parameters.target()?)?, parameters)
}

/// From an address that the row names, which may choose another way through the network.
pub(crate) fn from_source(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.bind(&SocketAddr::new(parameters.address("source")?, 0).into())?;
    dial(&socket, parameters)
}

pub(crate) fn nonblocking(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&parameters.target()?.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error.into()),
        _ => {}
    }
    let start = Instant::now();
    while socket.peer_addr().is_err() {
        if let Some(error) = socket.take_error()? {
            return Err(error.into());
        }
        if start.elapsed() > PATIENCE {
            return Ok(Report::said("silence"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    socket.set_nonblocking(false)?;
    talk(&socket, &parameters.token()?)
}

/// The IPv4 address in IPv6's clothes.
pub(crate) fn mapped(parameters: &Parameters) -> Result<Report> {
    let IpAddr::V4(address) = parameters.address("target")? else {
        bail!("only an IPv4 address can be mapped");
    };
    let to = SocketAddr::new(address.to_ipv6_mapped().into(), parameters.port()?);
    let socket = open(to)?;
    socket.connect(&to.into())?;
    talk(&socket, &parameters.token()?)
}

pub(crate) fn mptcp(parameters: &Parameters) -> Result<Report> {
    let domain = Domain::for_address(parameters.target()?);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::from(IPPROTO_MPTCP)))?;
    limit(&socket)?;
    dial(&socket, parameters)
}

pub(crate) fn sctp(parameters: &Parameters) -> Result<Report> {
    let domain = Domain::for_address(parameters.target()?);
    let socket = Socket::new(
        domain,
        Type::STREAM,
        Some(Protocol::from(libc::IPPROTO_SCTP)),
    )?;
    limit(&socket)?;
    dial(&socket, parameters)
}

pub(crate) fn dccp(parameters: &Parameters) -> Result<Report> {
    let domain = Domain::for_address(parameters.target()?);
    // SOCK_DCCP and IPPROTO_DCCP.
    let socket = Socket::new(domain, Type::from(6), Some(Protocol::from(33)))?;
    limit(&socket)?;
    dial(&socket, parameters)
}

/// No `connect`: the first `sendto` connects.
pub(crate) fn fast_open(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let to = sys::address(parameters.target()?);
    sys::send_to(&socket, &parameters.token()?, libc::MSG_FASTOPEN, &to)?;
    Ok(hear(&socket))
}

/// `connect` returns at once, and the first `write` sends the SYN.
pub(crate) fn fast_open_connect(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    sys::set_int(&socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
    dial(&socket, parameters)
}

pub(crate) fn bound_device(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.bind_device(Some(parameters.text("device")?.as_bytes()))?;
    dial(&socket, parameters)
}

/// Bound to the device between the handshake's begin and the first data.
pub(crate) fn bound_later(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.connect(&parameters.target()?.into())?;
    socket.bind_device(Some(parameters.text("device")?.as_bytes()))?;
    talk(&socket, &parameters.token()?)
}

/// Only what is on a cable of this host, whatever the routing table says.
pub(crate) fn do_not_route(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_DONTROUTE, 1)?;
    dial(&socket, parameters)
}

/// The target's link-local address, as it follows from its hardware address (RFC 4291, appendix A).
pub(crate) fn link_local(parameters: &Parameters) -> Result<Report> {
    let [a, b, c, d, e, f] = parameters.hardware("to_mac")?;
    let identifier = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut address = [0; 16];
    let parts = [0xfe, 0x80, 0, 0, 0, 0, 0, 0].into_iter().chain(identifier);
    address
        .iter_mut()
        .zip(parts)
        .for_each(|(to, from)| *to = from);
    let index = nix::net::if_::if_nametoindex(parameters.text("device")?)?;
    let to = SocketAddr::V6(SocketAddrV6::new(
        address.into(),
        parameters.port()?,
        0,
        index,
    ));
    let socket = open(to)?;
    socket.connect(&to.into())?;
    talk(&socket, &parameters.token()?)
}

/// Connected with whatever mark the connection got, and then without any.
pub(crate) fn mark_cleared(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.connect(&parameters.target()?.into())?;
    socket.set_mark(0)?;
    talk(&socket, &parameters.token()?)
}

pub(crate) fn unicast_if(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let index = nix::net::if_::if_nametoindex(parameters.text("device")?)?.to_be_bytes();
    let (level, option) = match parameters.address("target")? {
        IpAddr::V4(_) => (libc::IPPROTO_IP, IP_UNICAST_IF),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_UNICAST_IF),
    };
    sys::set(&socket, level, option, &index)?;
    dial(&socket, parameters)
}

/// Loose source routing: the packets name another address, and the target in their options.
pub(crate) fn source_route(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let IpAddr::V4(via) = parameters.address("via")? else {
        bail!("IPv6 has other headers");
    };
    // NOP, LSRR of one hop; the kernel adds the destination.
    let options = [&[1, 131, 7, 4][..], &via.octets()].concat();
    sys::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &options)?;
    dial(&socket, parameters)
}

/// Options make the header longer: who takes 20 bytes for granted looks for the port elsewhere.
pub(crate) fn ip_options(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let record_route = [1, 7, 7, 4, 0, 0, 0, 0];
    sys::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &record_route)?;
    dial(&socket, parameters)
}

/// An IPv6 segment routing header (RFC 8754): the packets name `via`, and the target as last segment.
pub(crate) fn segment_route(parameters: &Parameters) -> Result<Report> {
    const IPV6_RTHDR: i32 = 57;
    let socket = open(parameters.target()?)?;
    let IpAddr::V6(via) = parameters.address("via")? else {
        bail!("segment routing is IPv6's");
    };
    // Next header, length in eights, type 4, segments left, last entry, flags, tag; segments backwards,
    // of which the kernel sets the first, the destination.
    let header = [0, 4, 4, 1, 1, 0, 0, 0];
    let value = [&header[..], &Ipv6Addr::UNSPECIFIED.octets(), &via.octets()].concat();
    sys::set(&socket, libc::IPPROTO_IPV6, IPV6_RTHDR, &value)?;
    dial(&socket, parameters)
}

/// Destination options on every packet of the connection.
pub(crate) fn sticky_options(parameters: &Parameters) -> Result<Report> {
    const IPV6_DSTOPTS: i32 = 59;
    let socket = open(parameters.target()?)?;
    // Next header, length, padding of four bytes.
    let value = [0, 0, 1, 4, 0, 0, 0, 0];
    sys::set(&socket, libc::IPPROTO_IPV6, IPV6_DSTOPTS, &value)?;
    dial(&socket, parameters)
}

/// With the gateway's own mark.
pub(crate) fn marked(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let said = match socket.set_mark(u32::try_from(parameters.number("mark")?)?) {
        Ok(()) => "marked; ".to_owned(),
        Err(error) => format!("mark {}; ", name_of(&error)),
    };
    let mut report = dial(&socket, parameters)?;
    report.said.insert_str(0, &said);
    Ok(report)
}

/// Connected elsewhere, disconnected, and connected to the target.
pub(crate) fn connect_twice(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let elsewhere = SocketAddr::new(
        parameters.address("elsewhere")?,
        u16::try_from(parameters.number("elsewhere_port")?)?,
    );
    socket
        .connect(&elsewhere.into())
        .context("the address that is no target")?;
    // AF_UNSPEC.
    sys::connect(&socket, &[0; 16])?;
    dial(&socket, parameters)
}

/// A connection that exists in this kernel alone: no SYN is sent, data goes at once (TCP_REPAIR).
pub(crate) fn repair(parameters: &Parameters) -> Result<Report> {
    const TCP_REPAIR: i32 = 19;
    const TCP_REPAIR_WINDOW: i32 = 29;
    /// Without a probe of the peer's window, which would be answered by a reset.
    const OFF_WITHOUT_PROBE: i32 = -1;
    let socket = open(parameters.target()?)?;
    sys::set_int(&socket, libc::IPPROTO_TCP, TCP_REPAIR, 1)?;
    socket.connect(&parameters.target()?.into())?;
    // Last window update, window, largest window; the receive window's size and edge.
    let window: Vec<u8> = [0_u32, 60_000, 60_000, 0, 0]
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect();
    sys::set(&socket, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW, &window)?;
    sys::set_int(&socket, libc::IPPROTO_TCP, TCP_REPAIR, OFF_WITHOUT_PROBE)?;
    let mut stream = &socket;
    stream.write_all(&parameters.token()?)?;
    // Nobody knows this connection: whatever comes back is a reset.
    std::thread::sleep(Duration::from_millis(300));
    Ok(Report::said("sent"))
}

/// Connected before, used after.
pub(crate) fn held(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.connect(&parameters.target()?.into())?;
    let first = talk(&socket, b"before the gateway")?;
    if !first.connected {
        bail!("the target did not answer before the gateway started");
    }
    wait_for_go(parameters)?;
    talk(&socket, &parameters.token()?)
}

/// Says that the first half is done, and waits until the row goes on.
pub(crate) fn wait_for_go(parameters: &Parameters) -> Result<()> {
    println!("ready");
    io::stdout().flush()?;
    let go = parameters.path("go")?;
    let start = Instant::now();
    while !go.exists() {
        if start.elapsed() > Duration::from_secs(240) {
            bail!("nobody said go");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A program on the gateway that dials the target for whoever dials it.
pub(crate) fn forwarder(parameters: &Parameters) -> Result<Report> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = listener.local_addr()?;
    let target = parameters.target()?;
    std::thread::spawn(move || -> Result<()> {
        let (mut inside, _) = listener.accept()?;
        let mut outside = TcpStream::connect_timeout(&target, PATIENCE)?;
        let (mut back_from, mut back_to) = (outside.try_clone()?, inside.try_clone()?);
        std::thread::spawn(move || io::copy(&mut back_from, &mut back_to));
        io::copy(&mut inside, &mut outside)?;
        Ok(())
    });
    let socket = open(here)?;
    socket.connect(&here.into())?;
    talk(&socket, &parameters.token()?)
}

/// A local database's other door.
pub(crate) fn unix(parameters: &Parameters) -> Result<Report> {
    let path = parameters.path("path")?;
    let path = match parameters.text("way") {
        // The same file by other words.
        Ok("dots") => {
            let directory = path.parent().context("a socket lies in a directory")?;
            let name = path.file_name().context("a socket has a name")?;
            directory
                .join("..")
                .join(directory.file_name().unwrap_or_default())
                .join(name)
        }
        Ok("relative") => {
            let directory = path.parent().context("a socket lies in a directory")?;
            std::env::set_current_dir(directory)?;
            path.file_name().context("a socket has a name")?.into()
        }
        Ok("link") => path.with_file_name("another-name"),
        _ => path,
    };
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let socket = Socket::from(stream.as_fd().try_clone_to_owned()?);
    talk(&socket, &parameters.token()?)
}
