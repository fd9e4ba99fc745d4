//! Attempts with raw sockets: whole packets, with headers of the attempt's own making.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Result, bail};

use crate::datagram::mark;
use crate::packet::{self, MORE_FRAGMENTS, TCP};
use crate::report::{Parameters, Report};
use crate::sys::{self, Control};

/// From linux/in.h and linux/in6.h.
const IPPROTO_DSTOPTS: u8 = 60;
const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_IPIP: u8 = 4;
const IPV6_HDRINCL: i32 = 36;

pub(crate) fn v4(parameters: &Parameters) -> Result<[Ipv4Addr; 2]> {
    match (parameters.address("source")?, parameters.address("target")?) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok([from, to]),
        _ => bail!("not IPv4 addresses"),
    }
}

pub(crate) fn v6(parameters: &Parameters) -> Result<[Ipv6Addr; 2]> {
    match (parameters.address("source")?, parameters.address("target")?) {
        (IpAddr::V6(from), IpAddr::V6(to)) => Ok([from, to]),
        _ => bail!("not IPv6 addresses"),
    }
}

/// The SYN of an attempt, with its token as data.
pub(crate) fn syn(parameters: &Parameters) -> Result<Vec<u8>> {
    Ok(packet::syn(
        parameters.address("source")?,
        parameters.address("target")?,
        parameters.port()?,
        &parameters.token()?,
    ))
}

/// Sends finished packets.
fn send(parameters: &Parameters, packets: &[Vec<u8>], control: &[Control]) -> Result<Report> {
    let target = parameters.address("target")?;
    let socket = open(target)?;
    let to = sys::address(SocketAddr::new(target, 0));
    for packet in packets {
        sys::send_message(&socket, packet, &to, control)?;
    }
    Ok(Report::said("sent"))
}

/// Takes headers as they are given.
fn open(target: IpAddr) -> io::Result<OwnedFd> {
    if target.is_ipv4() {
        return sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW);
    }
    let socket = sys::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    sys::set_int(&socket, libc::IPPROTO_IPV6, IPV6_HDRINCL, 1)?;
    Ok(socket)
}

pub(crate) fn header_included(parameters: &Parameters) -> Result<Report> {
    let packet = packet::ipv4(v4(parameters)?, TCP, 0, &[], &syn(parameters)?);
    send(parameters, &[packet], &[])
}

/// The row names a source that is not this host's.
pub(crate) fn spoofed(parameters: &Parameters) -> Result<Report> {
    header_included(parameters)
}

/// The kernel writes the IP header.
fn without_header(parameters: &Parameters, protocol: i32, payload: &[u8]) -> Result<Report> {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, protocol)?;
    let to = sys::address(SocketAddr::new(parameters.address("target")?, 0));
    sys::send_to(&socket, payload, 0, &to)?;
    Ok(Report::said("sent"))
}

pub(crate) fn tcp(parameters: &Parameters) -> Result<Report> {
    without_header(parameters, libc::IPPROTO_TCP, &syn(parameters)?)
}

pub(crate) fn udp(parameters: &Parameters) -> Result<Report> {
    let datagram = packet::udp(
        parameters.address("source")?,
        parameters.address("target")?,
        parameters.port()?,
        &parameters.token()?,
    );
    without_header(parameters, libc::IPPROTO_UDP, &datagram)
}

/// The gateway's mark on a packet that no connection made.
pub(crate) fn mark_message(parameters: &Parameters) -> Result<Report> {
    let packet = packet::ipv4(v4(parameters)?, TCP, 0, &[], &syn(parameters)?);
    send(parameters, &[packet], &[mark(parameters)?])
}

pub(crate) fn ipv6(parameters: &Parameters) -> Result<Report> {
    let packet = packet::ipv6(v6(parameters)?, TCP, &syn(parameters)?);
    send(parameters, &[packet], &[])
}

pub(crate) fn icmp(parameters: &Parameters) -> Result<Report> {
    let request = packet::echo_request(&parameters.token()?);
    without_header(parameters, libc::IPPROTO_ICMP, &request)
}

/// A SYN inside IP inside IP: the outside is no TCP.
pub(crate) fn tunnelled(parameters: &Parameters) -> Result<Report> {
    let addresses = v4(parameters)?;
    let inside = packet::ipv4(addresses, TCP, 0, &[], &syn(parameters)?);
    let packet = packet::ipv4(addresses, IPPROTO_IPIP, 0, &[], &inside);
    send(parameters, &[packet], &[])
}

/// A longer header than usual: record route, and eight bytes of nothing.
pub(crate) fn options(parameters: &Parameters) -> Result<Report> {
    let options = [7, 7, 4, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0];
    let packet = packet::ipv4(v4(parameters)?, TCP, 0, &options, &syn(parameters)?);
    send(parameters, &[packet], &[])
}

fn split(parameters: &Parameters, at: usize) -> Result<Report> {
    let addresses = v4(parameters)?;
    let segment = syn(parameters)?;
    let (first, second) = segment.split_at_checked(at).unwrap_or_default();
    let packets = [
        packet::ipv4(addresses, TCP, MORE_FRAGMENTS, &[], first),
        packet::ipv4(addresses, TCP, (at / 8) as u16, &[], second),
    ];
    send(parameters, &packets, &[])
}

/// The header whole in the first fragment.
pub(crate) fn fragments(parameters: &Parameters) -> Result<Report> {
    split(parameters, 24)
}

/// The ports in the first fragment, the flags in the second.
pub(crate) fn tiny_fragment(parameters: &Parameters) -> Result<Report> {
    split(parameters, 8)
}

/// The first fragment names a port that is nobody's, the second writes the target's over it.
pub(crate) fn overlapping(parameters: &Parameters) -> Result<Report> {
    let addresses = v4(parameters)?;
    let segment = syn(parameters)?;
    let (first, rest) = segment.split_at_checked(24).unwrap_or_default();
    let mut harmless = first.to_vec();
    if let Some(port) = harmless.get_mut(2..4) {
        port.copy_from_slice(&9_u16.to_be_bytes());
    }
    let packets = [
        packet::ipv4(addresses, TCP, MORE_FRAGMENTS, &[], &harmless),
        packet::ipv4(addresses, TCP, MORE_FRAGMENTS, &[], first),
        packet::ipv4(addresses, TCP, 3, &[], rest),
    ];
    send(parameters, &packets, &[])
}

/// An extension header of eight bytes before TCP; `rest` is what follows its length.
fn extended(parameters: &Parameters, kind: u8, rest: [u8; 6]) -> Result<Report> {
    let payload = [&[TCP, 0][..], &rest, &syn(parameters)?].concat();
    send(
        parameters,
        &[packet::ipv6(v6(parameters)?, kind, &payload)],
        &[],
    )
}

pub(crate) fn v6_destination_options(parameters: &Parameters) -> Result<Report> {
    extended(parameters, IPPROTO_DSTOPTS, [1, 4, 0, 0, 0, 0])
}

pub(crate) fn v6_hop_by_hop(parameters: &Parameters) -> Result<Report> {
    extended(parameters, IPPROTO_HOPOPTS, [1, 4, 0, 0, 0, 0])
}

/// A routing header with no segments left is to be skipped (RFC 8200, section 4.4).
pub(crate) fn v6_routing(parameters: &Parameters) -> Result<Report> {
    extended(parameters, IPPROTO_ROUTING, [0; 6])
}

/// More headers than anybody reads.
pub(crate) fn v6_many_headers(parameters: &Parameters) -> Result<Report> {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let mut payload = options(IPPROTO_DSTOPTS).repeat(15);
    payload.extend(options(TCP));
    payload.extend(syn(parameters)?);
    let packet = packet::ipv6(v6(parameters)?, IPPROTO_DSTOPTS, &payload);
    send(parameters, &[packet], &[])
}

pub(crate) fn v6_fragments(parameters: &Parameters) -> Result<Report> {
    let segment = syn(parameters)?;
    let (first, second) = segment.split_at_checked(24).unwrap_or_default();
    let packets = [(0, true, first), (24, false, second)]
        .map(|(offset, more, part)| [&packet::v6_fragment(TCP, offset, more)[..], part].concat());
    let addresses = v6(parameters)?;
    let packets = packets.map(|payload| packet::ipv6(addresses, IPPROTO_FRAGMENT, &payload));
    send(parameters, &packets, &[])
}
