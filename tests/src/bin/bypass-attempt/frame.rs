//! Attempts with packet sockets: whole frames, handed to a device.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Result, bail};

use crate::packet::{
    self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_STACKED_VLAN, ETHERTYPE_VLAN, TCP, UDP,
};
use crate::raw::{syn, v4, v6};
use crate::report::{Parameters, Report};
use crate::sys::{self, Mapping};

/// From linux/if_packet.h.
const PACKET_TX_RING: i32 = 13;
const PACKET_VERSION: i32 = 10;
const PACKET_QDISC_BYPASS: i32 = 20;
const TP_STATUS_SEND_REQUEST: u32 = 1;

/// Any VLAN.
const VLAN: u16 = 7;

fn open(kind: i32) -> io::Result<OwnedFd> {
    sys::socket(libc::AF_PACKET, kind, 0)
}

/// Past the queueing discipline, and so past tcx.
fn open_bypassing() -> io::Result<OwnedFd> {
    let socket = open(libc::SOCK_RAW)?;
    sys::set_int(&socket, libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1)?;
    Ok(socket)
}

/// The device, with the protocol number that the kernel notes on the packet.
fn device(parameters: &Parameters, protocol: u16) -> Result<Vec<u8>> {
    let index = nix::net::if_::if_nametoindex(parameters.text("device")?)?;
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    address.extend(protocol.to_be_bytes());
    address.extend(index.to_ne_bytes());
    // ARPHRD_ETHER, packet type, length of a hardware address, and the address.
    address.extend([1, 0, 0, 6]);
    address.extend(parameters.hardware("to_mac")?);
    address.extend([0, 0]);
    Ok(address)
}

fn syn_v4(parameters: &Parameters) -> Result<Vec<u8>> {
    Ok(packet::ipv4(
        v4(parameters)?,
        TCP,
        0,
        &[],
        &syn(parameters)?,
    ))
}

fn syn_v6(parameters: &Parameters) -> Result<Vec<u8>> {
    Ok(packet::ipv6(v6(parameters)?, TCP, &syn(parameters)?))
}

pub(crate) fn ethernet(parameters: &Parameters, ethertype: u16, payload: &[u8]) -> Result<Vec<u8>> {
    Ok(packet::ethernet(
        parameters.hardware("to_mac")?,
        parameters.hardware("from_mac")?,
        ethertype,
        payload,
    ))
}

/// The SYN of an attempt as a frame.
pub(crate) fn syn_frame(parameters: &Parameters) -> Result<Vec<u8>> {
    ethernet(parameters, ETHERTYPE_IPV4, &syn_v4(parameters)?)
}

fn send(socket: &OwnedFd, parameters: &Parameters, protocol: u16, bytes: &[u8]) -> Result<Report> {
    sys::send_to(socket, bytes, 0, &device(parameters, protocol)?)?;
    Ok(Report::said("sent"))
}

pub(crate) fn plain(parameters: &Parameters) -> Result<Report> {
    let frame = syn_frame(parameters)?;
    send(&open(libc::SOCK_RAW)?, parameters, ETHERTYPE_IPV4, &frame)
}

/// The number that the socket gives is not the frame's.
pub(crate) fn lying(parameters: &Parameters) -> Result<Report> {
    let frame = syn_frame(parameters)?;
    send(&open(libc::SOCK_RAW)?, parameters, 0x1234, &frame)
}

pub(crate) fn ipv6(parameters: &Parameters) -> Result<Report> {
    let frame = ethernet(parameters, ETHERTYPE_IPV6, &syn_v6(parameters)?)?;
    send(&open(libc::SOCK_RAW)?, parameters, ETHERTYPE_IPV6, &frame)
}

/// The kernel writes the Ethernet header.
pub(crate) fn cooked(parameters: &Parameters) -> Result<Report> {
    let packet = syn_v4(parameters)?;
    send(
        &open(libc::SOCK_DGRAM)?,
        parameters,
        ETHERTYPE_IPV4,
        &packet,
    )
}

pub(crate) fn udp(parameters: &Parameters) -> Result<Report> {
    let [from, to] = v4(parameters)?;
    let datagram = packet::udp(
        IpAddr::V4(from),
        IpAddr::V4(to),
        parameters.port()?,
        &parameters.token()?,
    );
    let packet = packet::ipv4([from, to], UDP, 0, &[], &datagram);
    let frame = ethernet(parameters, ETHERTYPE_IPV4, &packet)?;
    send(&open(libc::SOCK_RAW)?, parameters, ETHERTYPE_IPV4, &frame)
}

fn vlan_frame(parameters: &Parameters) -> Result<Vec<u8>> {
    let inside = packet::tagged(VLAN, ETHERTYPE_IPV4, &syn_v4(parameters)?);
    ethernet(parameters, ETHERTYPE_VLAN, &inside)
}

pub(crate) fn vlan(parameters: &Parameters) -> Result<Report> {
    let frame = vlan_frame(parameters)?;
    send(&open(libc::SOCK_RAW)?, parameters, ETHERTYPE_VLAN, &frame)
}

pub(crate) fn stacked_vlan(parameters: &Parameters) -> Result<Report> {
    let inside = packet::tagged(VLAN, ETHERTYPE_IPV4, &syn_v4(parameters)?);
    let middle = packet::tagged(VLAN, ETHERTYPE_VLAN, &inside);
    let frame = ethernet(parameters, ETHERTYPE_STACKED_VLAN, &middle)?;
    send(
        &open(libc::SOCK_RAW)?,
        parameters,
        ETHERTYPE_STACKED_VLAN,
        &frame,
    )
}

pub(crate) fn queue_bypass(parameters: &Parameters) -> Result<Report> {
    let frame = syn_frame(parameters)?;
    send(&open_bypassing()?, parameters, ETHERTYPE_IPV4, &frame)
}

/// To another address, with the target in a source route.
fn routed_frame(parameters: &Parameters) -> Result<Vec<u8>> {
    let [from, to] = v4(parameters)?;
    let IpAddr::V4(via) = parameters.address("via")? else {
        bail!("IPv6 has other headers");
    };
    // NOP, LSRR of one hop that is still to come.
    let options = [&[1, 131, 7, 4][..], &to.octets()].concat();
    let packet = packet::ipv4([from, via], TCP, 0, &options, &syn(parameters)?);
    ethernet(parameters, ETHERTYPE_IPV4, &packet)
}

pub(crate) fn source_route(parameters: &Parameters) -> Result<Report> {
    let frame = routed_frame(parameters)?;
    send(&open(libc::SOCK_RAW)?, parameters, ETHERTYPE_IPV4, &frame)
}

pub(crate) fn queue_bypass_source_route(parameters: &Parameters) -> Result<Report> {
    let frame = routed_frame(parameters)?;
    send(&open_bypassing()?, parameters, ETHERTYPE_IPV4, &frame)
}

pub(crate) fn queue_bypass_vlan(parameters: &Parameters) -> Result<Report> {
    let frame = vlan_frame(parameters)?;
    send(&open_bypassing()?, parameters, ETHERTYPE_VLAN, &frame)
}

pub(crate) fn queue_bypass_v6(parameters: &Parameters) -> Result<Report> {
    let frame = ethernet(parameters, ETHERTYPE_IPV6, &syn_v6(parameters)?)?;
    send(&open_bypassing()?, parameters, ETHERTYPE_IPV6, &frame)
}

pub(crate) fn ring(parameters: &Parameters) -> Result<Report> {
    send_by_ring(&open(libc::SOCK_RAW)?, parameters)
}

pub(crate) fn ring_bypass(parameters: &Parameters) -> Result<Report> {
    send_by_ring(&open_bypassing()?, parameters)
}

/// One frame through memory that is shared with the kernel (packet(7), TPACKET_V2).
///
/// ```text
/// 0        4        8                    32
/// ┌────────┬────────┬────────────────────┬────────┐
/// │ status │ length │ rest of the header │ frame  │
/// └────────┴────────┴────────────────────┴────────┘
/// ```
fn send_by_ring(socket: &OwnedFd, parameters: &Parameters) -> Result<Report> {
    const TPACKET_V2: i32 = 1;
    sys::set_int(socket, libc::SOL_PACKET, PACKET_VERSION, TPACKET_V2)?;
    // Bytes and number of blocks, bytes and number of frames.
    let request: Vec<u8> = [4096_u32, 1, 2048, 2]
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect();
    sys::set(socket, libc::SOL_PACKET, PACKET_TX_RING, &request)?;
    sys::bind(socket, &device(parameters, ETHERTYPE_IPV4)?)?;
    let ring = Mapping::new(Some(socket.as_fd()), 0, 4096)?;
    let frame = syn_frame(parameters)?;
    ring.write(32, &frame)?;
    ring.write(4, &u32::try_from(frame.len())?.to_ne_bytes())?;
    ring.write(0, &TP_STATUS_SEND_REQUEST.to_ne_bytes())?;
    sys::send_to(socket, &[], 0, &[])?;
    Ok(Report::said("sent"))
}

/// Into the device instead of out of it: on `lo` a frame that is sent is received, and forwarded.
pub(crate) fn inject(parameters: &Parameters) -> Result<Report> {
    plain(parameters)
}
