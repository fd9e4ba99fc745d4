//! Packets byte by byte, with the checksums that a target's kernel looks at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(crate) const ETHERTYPE_STACKED_VLAN: u16 = 0x88a8;

/// IPv4's flag for "more fragments".
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

/// A frame.
pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// The inside of a VLAN's frame.
pub(crate) fn tagged(vlan: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&vlan.to_be_bytes()[..], &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet; `fragment` is flags and offset, `options` a multiple of four bytes.
pub(crate) fn ipv4(
    [from, to]: [Ipv4Addr; 2],
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0];
    bytes.extend(((header + payload.len()) as u16).to_be_bytes());
    bytes.extend(IDENTIFICATION);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(options);
    let sum = checksum(&[&bytes]);
    patch(&mut bytes, 10, sum);
    bytes.extend(payload);
    bytes
}

/// Of all fragments, so that they belong together.
const IDENTIFICATION: [u8; 2] = [0x1c, 0x97];

/// An IPv6 packet.
pub(crate) fn ipv6([from, to]: [Ipv6Addr; 2], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(payload);
    bytes
}

/// An IPv6 fragment header before `next`; `offset` in bytes.
pub(crate) fn v6_fragment(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [next, 0, high, low, 0, 0, 0x1c, 0x97]
}

/// A SYN that carries data. Its source port is derived from the target's, so that rows differ.
pub(crate) fn syn(from: IpAddr, to: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = (port ^ 0x8000).to_be_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend(0x1234_5678_u32.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    let sum = checksum(&[&pseudo(from, to, TCP, bytes.len()), &bytes]);
    patch(&mut bytes, 16, sum);
    bytes
}

/// A datagram.
pub(crate) fn udp(from: IpAddr, to: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = (port ^ 0x8000).to_be_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend(((8 + data.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    let sum = checksum(&[&pseudo(from, to, UDP, bytes.len()), &bytes]);
    patch(&mut bytes, 6, sum);
    bytes
}

/// A request for an echo.
pub(crate) fn echo_request(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 0, 1, 0, 1];
    bytes.extend(data);
    let sum = checksum(&[&bytes]);
    patch(&mut bytes, 2, sum);
    bytes
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend((length as u32).to_be_bytes());
    bytes
}

/// The Internet checksum (RFC 1071). Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let word = match pair {
            [high, low] => u16::from_be_bytes([*high, *low]),
            [high] => u16::from_be_bytes([*high, 0]),
            _ => 0,
        };
        sum += u32::from(word);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn patch(bytes: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value);
    }
}
