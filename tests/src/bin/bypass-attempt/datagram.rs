//! Attempts with datagrams. Nobody answers them: the witness says whether they came.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::report::{Parameters, Report};
use crate::stream::wait_for_go;
use crate::sys::{self, Control};

/// From linux/udp.h and linux/in.h.
const UDP_SEGMENT: i32 = 103;
const IPPROTO_UDPLITE: i32 = 136;

pub(crate) fn open(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))
}

fn sent() -> Report {
    Report::said("sent")
}

pub(crate) fn connected(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.connect(&parameters.target()?.into())?;
    socket.send(&parameters.token()?)?;
    Ok(sent())
}

pub(crate) fn send_to(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.send_to(&parameters.token()?, &parameters.target()?.into())?;
    Ok(sent())
}

pub(crate) fn mapped(parameters: &Parameters) -> Result<Report> {
    let IpAddr::V4(address) = parameters.address("target")? else {
        bail!("only an IPv4 address can be mapped");
    };
    let to = SocketAddr::new(address.to_ipv6_mapped().into(), parameters.port()?);
    open(to)?.send_to(&parameters.token()?, &to.into())?;
    Ok(sent())
}

pub(crate) fn send_many(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let to = sys::address(parameters.target()?);
    sys::send_twice(&socket, &parameters.token()?, &to)?;
    Ok(sent())
}

/// The device and the source in a control message instead of the routing table.
pub(crate) fn packet_info(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let index = nix::net::if_::if_nametoindex(parameters.text("device")?)?;
    let IpAddr::V4(source) = parameters.address("source")? else {
        bail!("IPv6 has another form of it");
    };
    let info = libc::in_pktinfo {
        ipi_ifindex: i32::try_from(index)?,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(source.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let control = Control {
        level: libc::IPPROTO_IP,
        kind: libc::IP_PKTINFO,
        value: sys::bytes_of(&info),
    };
    let to = sys::address(parameters.target()?);
    sys::send_message(&socket, &parameters.token()?, &to, &[control])?;
    Ok(sent())
}

/// What a browser's first packet looks like: a long header, and 1,200 bytes.
pub(crate) fn quic(parameters: &Parameters) -> Result<Report> {
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
    packet.extend(parameters.token()?);
    packet.resize(1200, 0);
    let socket = open(parameters.target()?)?;
    socket.send_to(&packet, &parameters.target()?.into())?;
    Ok(sent())
}

/// More than a packet holds: the port is in the first fragment alone.
pub(crate) fn large(parameters: &Parameters) -> Result<Report> {
    let mut bytes = parameters.token()?;
    bytes.resize(4000, 0);
    let socket = open(parameters.target()?)?;
    socket.send_to(&bytes, &parameters.target()?.into())?;
    Ok(sent())
}

/// One call, many datagrams, cut by the kernel.
pub(crate) fn segmented(parameters: &Parameters) -> Result<Report> {
    let token = parameters.token()?;
    let control = Control {
        level: libc::SOL_UDP,
        kind: UDP_SEGMENT,
        value: u16::try_from(token.len())?.to_ne_bytes().to_vec(),
    };
    let socket = open(parameters.target()?)?;
    let to = sys::address(parameters.target()?);
    sys::send_message(&socket, &token.repeat(4), &to, &[control])?;
    Ok(sent())
}

/// A control message with a mark.
pub(crate) fn mark(parameters: &Parameters) -> Result<Control> {
    Ok(Control {
        level: libc::SOL_SOCKET,
        kind: libc::SO_MARK,
        value: u32::try_from(parameters.number("mark")?)?
            .to_ne_bytes()
            .to_vec(),
    })
}

pub(crate) fn mark_message(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let to = sys::address(parameters.target()?);
    sys::send_message(&socket, &parameters.token()?, &to, &[mark(parameters)?])?;
    Ok(sent())
}

/// Connected elsewhere, and sent to the target.
pub(crate) fn reconnected(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    let elsewhere = SocketAddr::new(parameters.address("elsewhere")?, 9);
    socket.connect(&elsewhere.into())?;
    socket.send_to(&parameters.token()?, &parameters.target()?.into())?;
    Ok(sent())
}

/// Connected before the gateway started, used after.
pub(crate) fn held(parameters: &Parameters) -> Result<Report> {
    let socket = open(parameters.target()?)?;
    socket.connect(&parameters.target()?.into())?;
    wait_for_go(parameters)?;
    // The first can report an error that came for an earlier one.
    if socket.send(&parameters.token()?).is_err() {
        socket.send(&parameters.token()?)?;
    }
    Ok(sent())
}

/// UDP-Lite (RFC 3828) has ports of its own, in a protocol of its own.
pub(crate) fn lite(parameters: &Parameters) -> Result<Report> {
    let socket = Socket::new(
        Domain::for_address(parameters.target()?),
        Type::DGRAM,
        Some(Protocol::from(IPPROTO_UDPLITE)),
    )?;
    socket.bind(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0).into())?;
    socket.send_to(&parameters.token()?, &parameters.target()?.into())?;
    Ok(sent())
}
