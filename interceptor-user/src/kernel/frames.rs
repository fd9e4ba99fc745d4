//! The nft table that frames meet which never had a route: those of packet sockets.
//!
//! Such a frame can skip queueing disciplines, and with them the programs on tcx, but not a netdev
//! egress chain. Whatever the IP stack sends has a route and was judged by the chains in
//! [`backstop`](super::backstop); what is here without one came from a packet socket or over a
//! bridge. No mark and no cgroup exempts it.
//!
//! The sender of a raw frame also says what protocol it has, and may lie. So the frame itself is
//! read, from its link header on: nft cannot take `ip daddr` for that, and the sets hold numbers.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::device::{Device, Framing};

/// The table, as nft names it.
pub(super) const TABLE: &str = "netdev interceptor";

/// VLAN tags inside a frame that are read; one with more is dropped.
const TAGS_MAX: usize = 3;

/// Devices of one base chain; nft takes no more than 256.
const CHAIN_DEVICES_MAX: usize = 200;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

/// What a kernel needs for the table: asked with `nft --check`, which changes nothing.
pub(super) const PROBE: &str = "table netdev interceptor_probe {
	chain egress {
		type filter hook egress device \"lo\" priority filter; policy accept;
		meta rtclassid 0 accept
	}
}
";

/// The whole table, replaced; nothing but its removal where no device can have it.
pub(super) fn ruleset<'a>(
    devices: &[Device],
    targets: impl Iterator<Item = (&'a IpNet, RangeInclusive<u16>)>,
) -> String {
    let mut text = removal();
    let named = |is_ip: bool| -> Vec<String> {
        devices
            .iter()
            .filter(|device| device.has_plain_name())
            .filter(|device| matches!(device.framing, Framing::Ip) == is_ip)
            .map(|device| format!("\"{}\"", device.name))
            .collect()
    };
    let _ = writeln!(text, "table {TABLE} {{");
    text += &sets(targets);
    text += &ether_chains();
    text += &ip_chains();
    text += &base_chains("ether", &named(false));
    text += &base_chains("bare", &named(true));
    text + "}\n"
}

/// Removes the table, if it is there: declared first, so that deleting it does not fail.
pub(super) fn removal() -> String {
    format!("table {TABLE} {{}}\ndelete table {TABLE}\n")
}

/// The targets as numbers: with their ports, and their addresses alone.
fn sets<'a>(targets: impl Iterator<Item = (&'a IpNet, RangeInclusive<u16>)>) -> String {
    let (mut pairs4, mut pairs6) = (Vec::new(), Vec::new());
    let (mut networks4, mut networks6) = (BTreeSet::new(), BTreeSet::new());
    for (network, ports) in targets {
        let (pairs, networks) = match network {
            IpNet::V4(_) => (&mut pairs4, &mut networks4),
            IpNet::V6(_) => (&mut pairs6, &mut networks6),
        };
        pairs.push(format!(
            "{} . {}-{}",
            numbers(network),
            ports.start(),
            ports.end()
        ));
        networks.insert(*network);
    }
    let alone = |networks: BTreeSet<IpNet>| outermost(&networks).map(numbers).collect();
    // Where in a frame the key is read first says no more here than how wide it is.
    set("pairs4", "@nh,128,32 . @nh,176,16", pairs4)
        + &set("pairs6", "@nh,192,128 . @nh,336,16", pairs6)
        + &set("networks4", "@nh,128,32", alone(networks4))
        + &set("networks6", "@nh,192,128", alone(networks6))
}

fn set(name: &str, key: &str, elements: Vec<String>) -> String {
    let elements = if elements.is_empty() {
        String::new()
    } else {
        format!("\t\telements = {{ {} }}\n", elements.join(", "))
    };
    format!("\tset {name} {{\n\t\ttypeof {key}\n\t\tflags interval\n{elements}\t}}\n")
}

/// The networks that no other one covers: nft refuses intervals that overlap.
fn outermost(networks: &BTreeSet<IpNet>) -> impl Iterator<Item = &IpNet> {
    networks.iter().filter(|network| {
        std::iter::successors(network.supernet(), IpNet::supernet)
            .all(|outer| !networks.contains(&outer))
    })
}

fn numbers(network: &IpNet) -> String {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => format!("{:#x}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:#x}", v6.to_bits()),
    };
    let (first, last) = (network.network(), network.broadcast());
    if first == last {
        number(first)
    } else {
        format!("{}-{}", number(first), number(last))
    }
}

/// A rule that a short frame cannot satisfy is passed by, and the last word is `drop`.
fn ether_chains() -> String {
    let mut text = String::new();
    for tags in 0..=TAGS_MAX {
        let offset = ETHERNET_BYTES + 4 * tags;
        text += &chain_v4(&format!("v4_tags{tags}"), "ll", offset);
        text += &chain_v6(&format!("v6_tags{tags}"), "ll", offset);
    }
    // The deepest first, since each refers to the next.
    for tags in (0..=TAGS_MAX).rev() {
        let ethertype = field("ll", ETHERNET_BYTES + 4 * tags - 2, 2);
        let name = if tags == 0 {
            "raw_ether".to_owned()
        } else {
            format!("tags{tags}")
        };
        let tagged = if tags < TAGS_MAX {
            format!("goto tags{}", tags + 1)
        } else {
            "drop".to_owned()
        };
        let _ = write!(
            text,
            "\tchain {name} {{\n\
             \t\t{ethertype} 0x0800 goto v4_tags{tags}\n\
             \t\t{ethertype} 0x86dd goto v6_tags{tags}\n\
             \t\t{ethertype} {{ 0x8100, 0x88a8 }} {tagged}\n\
             \t\t{ethertype} 0-0xffff accept\n\
             \t\tdrop\n\t}}\n"
        );
    }
    text
}

/// The network header is where the frame begins; only a claimed VLAN tag moves it.
fn ip_chains() -> String {
    let version = field("nh", 0, 1);
    chain_v4("v4_bare", "nh", 0)
        + &chain_v6("v6_bare", "nh", 0)
        + &format!(
            "\tchain raw_bare {{\n\
             \t\tmeta protocol {{ 0x8100, 0x88a8 }} drop\n\
             \t\t{version} 0x40-0x4f goto v4_bare\n\
             \t\t{version} 0x60-0x6f goto v6_bare\n\t}}\n"
        )
}

/// Where frames come in. Two rules for the route, since nft compares and does not ask whether there is
/// something to compare.
fn base_chains(kind: &str, devices: &[String]) -> String {
    let chunks = devices.chunks(CHAIN_DEVICES_MAX).enumerate();
    let chain = |(number, devices): (usize, &[String])| {
        let devices = devices.join(", ");
        format!(
            "\tchain {kind}_{number} {{\n\
             \t\ttype filter hook egress devices = {{ {devices} }} priority filter; policy accept;\n\
             \t\tmeta rtclassid 0 accept\n\
             \t\tmeta rtclassid != 0 accept\n\
             \t\tgoto raw_{kind}\n\t}}\n"
        )
    };
    chunks.map(chain).collect()
}

/// Fragments but the first carry no ports, and without the first they come to nothing. Options could
/// name a way to the target by another address.
fn chain_v4(name: &str, header: &str, offset: usize) -> String {
    let at = |first: usize, bytes: usize| field(header, offset + first, bytes);
    let (length, fragment, protocol) = (at(0, 1), at(6, 2), at(9, 1));
    let (destination, port) = (at(16, 4), at(22, 2));
    format!(
        "\tchain {name} {{\n\
         \t\t{length} != 0x45 drop\n\
         \t\t{destination} != @networks4 accept\n\
         \t\t{protocol} != {{ 6, 17 }} accept\n\
         \t\t{fragment} & 0x1fff != 0 accept\n\
         \t\t{destination} . {port} != @pairs4 accept\n\
         \t\tdrop\n\t}}\n"
    )
}

/// Behind an extension header the ports are elsewhere, and no use of TCP needs one. A routing header
/// could name a way to the target by another address.
fn chain_v6(name: &str, header: &str, offset: usize) -> String {
    let at = |first: usize, bytes: usize| field(header, offset + first, bytes);
    let (next, destination, port) = (at(6, 1), at(24, 16), at(42, 2));
    format!(
        "\tchain {name} {{\n\
         \t\t{next} 43 drop\n\
         \t\t{destination} != @networks6 accept\n\
         \t\t{next} {{ 0, 44, 60, 135, 139, 140 }} drop\n\
         \t\t{next} != {{ 6, 17 }} accept\n\
         \t\t{destination} . {port} != @pairs6 accept\n\
         \t\tdrop\n\t}}\n"
    )
}

/// Bytes of a frame, as nft counts them: in bits from a header.
fn field(header: &str, offset: usize, bytes: usize) -> String {
    format!("@{header},{},{}", offset * 8, bytes * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_become_numbers_that_do_not_overlap() {
        let networks: Vec<IpNet> = ["10.0.0.0/8", "10.1.0.0/16", "fd00::1/128"]
            .map(|text| text.parse().unwrap())
            .into();
        let text = sets(networks.iter().map(|network| (network, 5432..=5433)));
        assert!(text.contains(
            "elements = { 0xa000000-0xaffffff . 5432-5433, 0xa010000-0xa01ffff . 5432-5433 }"
        ));
        assert!(text.contains("elements = { 0xa000000-0xaffffff }"));
        assert!(text.contains("elements = { 0xfd000000000000000000000000000001 . 5432-5433 }"));
    }

    #[test]
    fn a_port_is_read_where_the_tags_end() {
        assert!(chain_v4("x", "ll", 14).contains("@ll,240,32 . @ll,288,16 != @pairs4"));
        assert!(chain_v6("x", "ll", 18).contains("@ll,336,128 . @ll,480,16 != @pairs6"));
    }
}
