//! Targets as the maps hold them: a prefix has one rule set, a rule set has ports.
//!
//! The kernel looks up the longest prefix alone. A prefix within another therefore carries the
//! other's ports too, which is worked out here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use interceptor_common::{PORTS_MAX, PROTOCOL_TCP, PortKey, PrefixKey, TARGETS_MAX, address_bytes};
use ipnet::IpNet;

use super::KernelError;

/// Where connections are intercepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRoute {
    /// The target's addresses.
    pub network: IpNet,
    /// Its TCP ports.
    pub ports: RangeInclusive<u16>,
    /// The target's index; what it means is the caller's.
    pub target: u32,
}

/// Bits of the prefix that IPv4 addresses are mapped into.
const MAPPED_BITS: u8 = 96;

type Ports = BTreeMap<u16, u32>;

/// Targets, checked and worked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// By prefix, the index of its ports in `rule_sets`.
    prefixes: BTreeMap<(u8, [u8; 16]), usize>,
    rule_sets: Vec<Ports>,
    /// Every network and port, without those that another network covers.
    pub(super) outermost: BTreeSet<(IpNet, u16)>,
}

impl Targets {
    /// Works out the rule sets; an error where they do not fit the maps.
    pub(super) fn compile(routes: &[TargetRoute]) -> Result<Self, KernelError> {
        let mut own: BTreeMap<(u8, [u8; 16]), Ports> = BTreeMap::new();
        for route in routes {
            let ports = own.entry(prefix(&route.network)).or_default();
            for port in route.ports.clone() {
                ports.entry(port).or_insert(route.target);
            }
        }
        add_gap_for_v4(&mut own);
        let lengths: BTreeSet<u8> = own.keys().map(|(bits, _)| *bits).collect();
        let mut targets = Targets::default();
        let mut known: HashMap<Ports, usize> = HashMap::new();
        for (key, ports) in &own {
            let merged = with_outer_ports(*key, ports, &own, &lengths);
            let next = targets.rule_sets.len();
            let index = *known.entry(merged.clone()).or_insert(next);
            if index == next {
                targets.rule_sets.push(merged);
            }
            targets.prefixes.insert(*key, index);
        }
        targets.outermost = outermost(routes);
        targets.check_limits()?;
        Ok(targets)
    }

    fn check_limits(&self) -> Result<(), KernelError> {
        let ports = self.rule_sets.iter().map(BTreeMap::len).sum::<usize>();
        for (map, max, wanted) in [
            ("targets", TARGETS_MAX, self.prefixes.len()),
            ("ports", PORTS_MAX, ports),
        ] {
            if wanted > max as usize {
                return Err(KernelError::MapFull { map, max, wanted });
            }
        }
        Ok(())
    }

    /// The target behind an address, as the kernel finds it.
    pub(super) fn lookup(&self, address: SocketAddr) -> Option<u32> {
        let bytes = address_bytes(address.ip().to_canonical());
        let index = (0..=128)
            .rev()
            .find_map(|bits| self.prefixes.get(&(bits, truncate(bytes, bits))))?;
        self.rule_sets.get(*index)?.get(&address.port()).copied()
    }

    /// The entries of the map `targets`, with rule set ids from `base` on.
    pub(super) fn prefix_entries(&self, base: u32) -> impl Iterator<Item = (PrefixKey, u32)> {
        self.prefixes.iter().map(move |((bits, address), index)| {
            (
                PrefixKey {
                    bits: u32::from(*bits),
                    address: *address,
                },
                rule_set(base, *index),
            )
        })
    }

    /// The entries of the map `ports`, with rule set ids from `base` on.
    pub(super) fn port_entries(&self, base: u32) -> impl Iterator<Item = (PortKey, u32)> {
        self.rule_sets
            .iter()
            .enumerate()
            .flat_map(move |(index, ports)| {
                ports.iter().map(move |(port, target)| {
                    let rule_set = rule_set(base, index);
                    (
                        PortKey {
                            rule_set,
                            port: *port,
                            protocol: PROTOCOL_TCP,
                            reserved: 0,
                        },
                        *target,
                    )
                })
            })
    }

    /// The networks, without ports and without repeats.
    pub(super) fn networks(&self) -> BTreeSet<IpNet> {
        self.outermost.iter().map(|(network, _)| *network).collect()
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.rule_sets.iter().any(|ports| ports.contains_key(&port))
    }
}

/// There are at most `TARGETS_MAX` rule sets, so the index fits; ids start over after 2³².
fn rule_set(base: u32, index: usize) -> u32 {
    base.wrapping_add(index as u32)
}

fn prefix(network: &IpNet) -> (u8, [u8; 16]) {
    let bits = match network {
        IpNet::V4(v4) => MAPPED_BITS + v4.prefix_len(),
        IpNet::V6(v6) => v6.prefix_len(),
    };
    (bits, address_bytes(network.network()))
}

/// IPv4 addresses lie within `::/0` in the map, but who names that network means IPv6: a prefix
/// without ports keeps them apart.
fn add_gap_for_v4(own: &mut BTreeMap<(u8, [u8; 16]), Ports>) {
    let mapped = address_bytes(IpAddr::from([0, 0, 0, 0]));
    let is_covered = own
        .keys()
        .any(|(bits, address)| *bits < MAPPED_BITS && truncate(mapped, *bits) == *address);
    if is_covered {
        own.entry((MAPPED_BITS, mapped)).or_default();
    }
}

fn with_outer_ports(
    (bits, address): (u8, [u8; 16]),
    ports: &Ports,
    own: &BTreeMap<(u8, [u8; 16]), Ports>,
    lengths: &BTreeSet<u8>,
) -> Ports {
    let is_v4 =
        bits >= MAPPED_BITS && address.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let shortest = if is_v4 { MAPPED_BITS } else { 0 };
    let mut merged = ports.clone();
    // From the inside out: the nearest prefix that names a port says whose it is.
    for outer in lengths.range(shortest..bits).rev() {
        for (port, target) in own
            .get(&(*outer, truncate(address, *outer)))
            .into_iter()
            .flatten()
        {
            merged.entry(*port).or_insert(*target);
        }
    }
    merged
}

fn outermost(routes: &[TargetRoute]) -> BTreeSet<(IpNet, u16)> {
    let all: BTreeSet<(IpNet, u16)> = routes
        .iter()
        .flat_map(|route| {
            let network = route.network.trunc();
            route.ports.clone().map(move |port| (network, port))
        })
        .collect();
    all.iter()
        .filter(|(network, port)| {
            let mut outer = network.supernet();
            while let Some(candidate) = outer {
                if all.contains(&(candidate, *port)) {
                    return false;
                }
                outer = candidate.supernet();
            }
            true
        })
        .copied()
        .collect()
}

/// The address with all bits after the first `bits` zero.
fn truncate(address: [u8; 16], bits: u8) -> [u8; 16] {
    let mask = u128::MAX
        .checked_shl(u32::from(128 - bits.min(128)))
        .unwrap_or(0);
    (u128::from_be_bytes(address) & mask).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(network: &str, port: u16, target: u32) -> TargetRoute {
        TargetRoute {
            network: network.parse().unwrap(),
            ports: port..=port,
            target,
        }
    }

    fn lookup(targets: &Targets, address: &str) -> Option<u32> {
        targets.lookup(address.parse().unwrap())
    }

    #[test]
    fn a_prefix_within_another_keeps_the_ports_of_both() {
        let targets = Targets::compile(&[
            route("10.0.0.0/8", 5432, 1),
            route("10.1.0.0/16", 22, 2),
            route("10.1.1.1/32", 5432, 3),
        ])
        .unwrap();
        assert_eq!(lookup(&targets, "10.9.9.9:5432"), Some(1));
        assert_eq!(lookup(&targets, "10.9.9.9:22"), None);
        assert_eq!(lookup(&targets, "10.1.2.3:5432"), Some(1));
        assert_eq!(lookup(&targets, "10.1.2.3:22"), Some(2));
        assert_eq!(lookup(&targets, "10.1.1.1:5432"), Some(3));
        assert_eq!(lookup(&targets, "10.1.1.1:22"), Some(2));
        assert_eq!(lookup(&targets, "[::ffff:10.1.1.1]:22"), Some(2));
        assert_eq!(lookup(&targets, "11.0.0.1:5432"), None);
    }

    #[test]
    fn all_of_ipv6_is_not_ipv4() {
        let targets =
            Targets::compile(&[route("::/0", 5432, 1), route("10.0.0.0/8", 22, 2)]).unwrap();
        assert_eq!(lookup(&targets, "[2001:db8::1]:5432"), Some(1));
        assert_eq!(lookup(&targets, "192.0.2.1:5432"), None);
        assert_eq!(lookup(&targets, "10.0.0.1:5432"), None);
        assert_eq!(lookup(&targets, "10.0.0.1:22"), Some(2));
    }

    #[test]
    fn nft_sees_no_element_twice() {
        let targets = Targets::compile(&[
            route("10.0.0.0/8", 5432, 1),
            route("10.1.0.0/16", 5432, 2),
            route("10.1.0.0/16", 22, 2),
        ])
        .unwrap();
        let expected = [("10.0.0.0/8", 5432), ("10.1.0.0/16", 22)];
        assert!(
            targets
                .outermost
                .iter()
                .copied()
                .eq(expected.map(|(network, port)| (network.parse().unwrap(), port)))
        );
    }

    #[test]
    fn too_many_targets_name_the_map() {
        let routes: Vec<_> = (0..=TARGETS_MAX)
            .map(|index| TargetRoute {
                network: IpNet::from(IpAddr::from((0x0a00_0000 + index).to_be_bytes())),
                ports: 1..=1,
                target: 0,
            })
            .collect();
        let error = Targets::compile(&routes).unwrap_err();
        assert!(matches!(error, KernelError::MapFull { map: "targets", .. }));
    }

    #[test]
    fn equal_ports_share_a_rule_set() {
        let targets =
            Targets::compile(&[route("10.0.0.1/32", 5432, 1), route("10.0.0.2/32", 5432, 1)])
                .unwrap();
        assert_eq!(
            targets
                .port_entries(7)
                .map(|(key, _)| key.rule_set)
                .collect::<Vec<_>>(),
            [7]
        );
    }
}
