//! Targets as the maps hold them: a prefix has one rule set, a rule set has ports.
//!
//! The kernel looks up the longest prefix alone, and asks only whether a port is a target's. A prefix
//! within another therefore carries the other's ports too, which is worked out here; prefixes with the
//! same ports share a rule set. Whose a port is, is looked up here: the nearest prefix that names it
//! says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use interceptor_common::{
    CONFIG_PRESERVES_CLIENTS, PORT_PREFIX_BITS, PORTS_MAX, PROTOCOL_TCP, PortBits, PortKey,
    PrefixKey, TARGETS_MAX, address_bytes,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::KernelError;
use super::ports::{PortRange, Ports};

/// Where connections are intercepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRoute {
    /// The target's addresses.
    pub network: IpNet,
    /// Its TCP ports.
    pub ports: RangeInclusive<u16>,
    /// The target's index; what it means is the caller's.
    pub target: u32,
    /// Whether the target sees its clients' own addresses.
    pub preserve_client_address: bool,
}

/// Bits of the prefix that IPv4 addresses are mapped into.
const MAPPED_BITS: u8 = 96;

/// A network as the map `targets` knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// How many leading bits of the address count.
    pub(super) bits: u8,
    /// The address, its other bits zero.
    pub(super) address: [u8; 16],
}

/// Whoever a port in a rule set of the kernel belongs to.
const ANYBODY: u32 = 0;

/// Targets, checked and worked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// The ports that each prefix names itself, with whose they are.
    own: BTreeMap<Prefix, Ports>,
    /// The lengths of those prefixes.
    lengths: BTreeSet<u8>,
    /// By prefix, the index of its ports in `rule_sets`.
    prefixes: BTreeMap<Prefix, usize>,
    rule_sets: Vec<Ports>,
    /// Every network with its ports, without those that another network covers: no two overlap.
    pub(super) outermost: BTreeSet<(IpNet, PortRange)>,
    /// The targets that see their clients' own addresses.
    preserving: BTreeSet<u32>,
    /// The ports that were named alone, not as part of a range.
    named_ports: BTreeSet<u16>,
}

impl Targets {
    /// Works out the rule sets; an error where they do not fit the maps.
    pub(super) fn compile(routes: &[TargetRoute]) -> Result<Self, KernelError> {
        let mut targets = Targets::default();
        for route in routes {
            let ports = targets.own.entry(prefix(&route.network)).or_default();
            ports.fill(route.ports.clone(), route.target);
            if route.preserve_client_address {
                targets.preserving.insert(route.target);
            }
            if route.ports.start() == route.ports.end() {
                targets.named_ports.insert(*route.ports.start());
            }
        }
        add_gap_for_v4(&mut targets.own);
        check_limit("targets", TARGETS_MAX, targets.own.len())?;
        targets.lengths = targets.own.keys().map(|prefix| prefix.bits).collect();
        targets.add_rule_sets()?;
        Ok(targets)
    }

    fn add_rule_sets(&mut self) -> Result<(), KernelError> {
        let mut known: HashMap<Ports, usize> = HashMap::new();
        let mut entries = 0;
        // Shorter prefixes come first, so those around one are worked out already.
        for (key, ports) in &self.own {
            let none = Ports::default();
            let outer = outer_prefixes(*key, &self.lengths)
                .find_map(|outer| self.rule_sets.get(*self.prefixes.get(&outer)?))
                .unwrap_or(&none);
            // nft refuses elements that overlap, so each has what no outer network has.
            let mut added = Ports::default();
            for (range, _) in ports.ranges() {
                for gap in outer.gaps(range.first..=range.last) {
                    added.fill(gap.first..=gap.last, ANYBODY);
                }
            }
            if let Some(network) = network(*key) {
                let elements = added.ranges().map(|(range, _)| (network, range));
                self.outermost.extend(elements);
            }
            added.fill_from(outer);
            let next = self.rule_sets.len();
            let index = *known.entry(added.clone()).or_insert(next);
            if index == next {
                // Checked as they come: nested prefixes could make far more than memory holds.
                entries += added.prefixes().count();
                check_limit("ports", PORTS_MAX, entries)?;
                self.rule_sets.push(added);
            }
            self.prefixes.insert(*key, index);
        }
        Ok(())
    }

    /// The target behind an address: `Some` wherever the kernel finds one.
    pub(super) fn lookup(&self, address: SocketAddr) -> Option<u32> {
        let bytes = address_bytes(address.ip().to_canonical());
        let whole = truncated(bytes, 128);
        let at = |prefix: Prefix| self.own.get(&prefix)?.lookup(address.port());
        at(whole).or_else(|| outer_prefixes(whole, &self.lengths).find_map(at))
    }

    /// The ports of each rule set.
    pub(super) fn rule_sets(&self) -> &[Ports] {
        &self.rule_sets
    }

    /// The prefixes, each with the index of its rule set.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Prefix, usize)> {
        self.prefixes.iter().map(|(key, index)| (*key, *index))
    }

    /// The networks, without ports and without repeats.
    pub(super) fn networks(&self) -> BTreeSet<IpNet> {
        self.outermost.iter().map(|(network, _)| *network).collect()
    }

    /// The ports of all targets together, as ranges that do not touch.
    pub(super) fn port_ranges(&self) -> Vec<PortRange> {
        let mut all = Ports::default();
        for (range, _) in self.rule_sets.iter().flat_map(Ports::ranges) {
            all.fill(range.first..=range.last, 0);
        }
        all.ranges().map(|(range, _)| range).collect()
    }

    /// The same as the programs have it.
    pub(super) fn port_bits(&self) -> PortBits {
        let mut bits = PortBits { words: [0; 1024] };
        for range in self.port_ranges() {
            for port in range.first..=range.last {
                if let Some(word) = bits.words.get_mut(usize::from(port >> 6)) {
                    *word |= 1 << (port & 63);
                }
            }
        }
        bits
    }

    /// What the programs need to know beside the addresses.
    pub(super) fn flags(&self) -> u16 {
        if self.preserving.is_empty() {
            0
        } else {
            CONFIG_PRESERVES_CLIENTS
        }
    }

    pub(super) fn preserves_client_address(&self, destination: SocketAddr) -> bool {
        self.lookup(destination)
            .is_some_and(|target| self.preserving.contains(&target))
    }

    pub(super) fn names_port(&self, port: u16) -> bool {
        self.named_ports.contains(&port)
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.rule_sets
            .iter()
            .any(|ports| ports.lookup(port).is_some())
    }
}

/// The key of a prefix in the map `targets`.
pub(super) fn prefix_key(prefix: Prefix) -> PrefixKey {
    PrefixKey {
        bits: u32::from(prefix.bits),
        address: prefix.address,
    }
}

/// The entries of a rule set in the map `ports`.
pub(super) fn port_entries(rule_set: u32, ports: &Ports) -> impl Iterator<Item = (PortKey, u32)> {
    ports.prefixes().map(move |(bits, port, target)| {
        let key = PortKey {
            bits: PORT_PREFIX_BITS + u32::from(bits),
            rule_set,
            protocol: PROTOCOL_TCP,
            reserved: 0,
            port: port.to_be_bytes(),
        };
        (key, target)
    })
}

fn check_limit(map: &'static str, max: u32, wanted: usize) -> Result<(), KernelError> {
    if wanted > max as usize {
        return Err(KernelError::MapFull { map, max, wanted });
    }
    Ok(())
}

/// An IPv4 network that was written as a mapped one is an IPv4 network.
fn prefix(network: &IpNet) -> Prefix {
    let bits = match network {
        IpNet::V4(v4) => MAPPED_BITS + v4.prefix_len(),
        IpNet::V6(v6) => v6.prefix_len(),
    };
    truncated(address_bytes(network.network()), bits)
}

fn network(Prefix { bits, address }: Prefix) -> Option<IpNet> {
    let v6 = Ipv6Addr::from(address);
    match v6.to_ipv4_mapped() {
        Some(v4) if bits >= MAPPED_BITS => Ipv4Net::new(v4, bits - MAPPED_BITS).map(IpNet::V4).ok(),
        _ => Ipv6Net::new(v6, bits).map(IpNet::V6).ok(),
    }
}

/// IPv4 addresses lie within `::/0` in the map, but who names that network means IPv6: a prefix
/// without ports keeps them apart.
fn add_gap_for_v4(own: &mut BTreeMap<Prefix, Ports>) {
    let mapped = address_bytes(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let is_covered = own
        .keys()
        .any(|key| key.bits < MAPPED_BITS && truncated(mapped, key.bits) == *key);
    if is_covered {
        own.entry(truncated(mapped, MAPPED_BITS)).or_default();
    }
}

/// The prefixes that can be around one, from the inside out.
fn outer_prefixes(
    Prefix { bits, address }: Prefix,
    lengths: &BTreeSet<u8>,
) -> impl Iterator<Item = Prefix> {
    let is_v4 =
        bits >= MAPPED_BITS && address.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let shortest = if is_v4 { MAPPED_BITS } else { 0 };
    lengths
        .range(shortest..bits)
        .rev()
        .map(move |outer| truncated(address, *outer))
}

/// The prefix of an address: all bits after the first `bits` are zero.
fn truncated(address: [u8; 16], bits: u8) -> Prefix {
    let mask = u128::MAX
        .checked_shl(u32::from(128 - bits.min(128)))
        .unwrap_or(0);
    Prefix {
        bits,
        address: (u128::from_be_bytes(address) & mask).to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ports::prefix_ports;
    use super::*;

    fn route(network: &str, port: u16, target: u32) -> TargetRoute {
        TargetRoute {
            network: network.parse().unwrap(),
            ports: port..=port,
            target,
            preserve_client_address: false,
        }
    }

    fn ranged(network: &str, ports: RangeInclusive<u16>, target: u32) -> TargetRoute {
        TargetRoute {
            network: network.parse().unwrap(),
            ports,
            target,
            preserve_client_address: false,
        }
    }

    fn elements(targets: &Targets) -> Vec<String> {
        let element = |(network, range): &(IpNet, PortRange)| format!("{network} . {range}");
        targets.outermost.iter().map(element).collect()
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
    fn nft_elements_of_ranges_do_not_overlap() {
        let targets = Targets::compile(&[
            ranged("10.0.0.0/8", 1000..=2000, 1),
            ranged("10.0.0.0/8", 1500..=2500, 2),
            ranged("10.1.0.0/16", 500..=1200, 3),
            ranged("10.1.0.0/16", 2400..=2600, 3),
            ranged("::ffff:10.2.0.0/112", 1..=65535, 4),
        ])
        .unwrap();
        let expected = [
            "10.0.0.0/8 . 1000-2500",
            "10.1.0.0/16 . 500-999",
            "10.1.0.0/16 . 2501-2600",
            "10.2.0.0/16 . 1-999",
            "10.2.0.0/16 . 2501-65535",
        ];
        assert_eq!(elements(&targets), expected);
        assert_eq!(lookup(&targets, "10.1.0.1:1100"), Some(3));
        assert_eq!(lookup(&targets, "10.1.0.1:1700"), Some(1));
        assert_eq!(lookup(&targets, "10.1.0.1:2450"), Some(3));
        assert_eq!(lookup(&targets, "10.9.0.1:2450"), Some(2));
        assert_eq!(lookup(&targets, "10.2.0.1:1700"), Some(4));
    }

    #[test]
    fn every_port_of_many_prefixes_fits() {
        let routes: Vec<_> = (0..10_000_u32)
            .map(|index| TargetRoute {
                network: IpNet::from(IpAddr::from((0x0a00_0000 + index).to_be_bytes())),
                ports: 1..=65535,
                target: index,
                preserve_client_address: false,
            })
            .collect();
        let targets = Targets::compile(&routes).unwrap();
        assert_eq!(lookup(&targets, "10.0.39.15:65535"), Some(9_999));
    }

    #[test]
    fn too_many_ports_name_the_map() {
        // No two prefixes have the same ports, and each has hundreds that do not touch.
        let routes: Vec<_> = (0..1200_u32)
            .flat_map(|index| {
                let ports = (0..500_u16)
                    .map(|port| port * 3)
                    .chain([60_000 + index as u16]);
                ports.map(move |port| TargetRoute {
                    network: IpNet::from(IpAddr::from((0x0a00_0000 + index).to_be_bytes())),
                    ports: port..=port,
                    target: index,
                    preserve_client_address: false,
                })
            })
            .collect();
        let error = Targets::compile(&routes).map(drop).unwrap_err();
        assert!(matches!(error, KernelError::MapFull { map: "ports", .. }));
    }

    /// What the documentation says: the longest prefix that names the port, and among equal ones the
    /// first.
    fn model(routes: &[TargetRoute], address: SocketAddr) -> Option<u32> {
        let names = |route: &&TargetRoute| {
            route.ports.contains(&address.port()) && route.network.contains(&address.ip())
        };
        let longest = routes
            .iter()
            .filter(names)
            .map(|route| route.network.prefix_len())
            .max()?;
        let nearest = |route: &&TargetRoute| names(route) && route.network.prefix_len() == longest;
        routes.iter().find(nearest).map(|route| route.target)
    }

    /// As the kernel looks it up: the longest prefix, and in its rule set the longest prefix of the port.
    fn in_maps(targets: &Targets, address: SocketAddr) -> bool {
        let bytes = address_bytes(address.ip());
        let index = (0..=128)
            .rev()
            .find_map(|bits| targets.prefixes.get(&truncated(bytes, bits)));
        index.is_some_and(|index| {
            let mut entries = port_entries(0, &targets.rule_sets[*index]);
            entries.any(|(key, _)| {
                let bits = u8::try_from(key.bits - PORT_PREFIX_BITS).unwrap();
                prefix_ports(bits, u16::from_be_bytes(key.port)).contains(&address.port())
            })
        })
    }

    /// Networks within a few bits of each other, so that most of them overlap.
    fn networks() -> impl Strategy<Value = IpNet> {
        let v4 = (
            0_u32..16,
            prop::sample::select(vec![0_u8, 8, 28, 29, 30, 32]),
        )
            .prop_map(|(host, bits)| {
                IpNet::V4(
                    Ipv4Net::new((0x0a00_0000 + host).into(), bits)
                        .unwrap()
                        .trunc(),
                )
            });
        let v6 = (
            0_u128..8,
            prop::sample::select(vec![0_u8, 64, 80, 126, 128]),
        )
            .prop_map(|(host, bits)| {
                let address = (0xfd00_u128 << 112) + host;
                IpNet::V6(Ipv6Net::new(address.into(), bits).unwrap().trunc())
            });
        prop_oneof![v4, v6]
    }

    fn addresses() -> Vec<IpAddr> {
        let v4 = (0..16).map(|host| IpAddr::from((0x0a00_0000_u32 + host).to_be_bytes()));
        let v6 = (0..8).map(|host| IpAddr::from(((0xfd00_u128 << 112) + host).to_be_bytes()));
        let far = ["192.0.2.1", "10.9.9.9", "2001:db8::1"].map(|text| text.parse().unwrap());
        v4.chain(v6).chain(far).collect()
    }

    proptest! {
        #[test]
        fn the_nearest_prefix_that_names_a_port_decides(
            claims in prop::collection::vec((networks(), 0_u16..40, 0_u16..40, 0_u32..5), 1..14),
        ) {
            let routes: Vec<TargetRoute> = claims
                .into_iter()
                .map(|(network, a, b, target)| TargetRoute {
                    network,
                    ports: a.min(b)..=a.max(b),
                    target,
                    preserve_client_address: false,
                })
                .collect();
            let targets = Targets::compile(&routes).unwrap();
            for address in addresses() {
                for port in 0..42 {
                    let address = SocketAddr::new(address, port);
                    let expected = model(&routes, address);
                    prop_assert_eq!(targets.lookup(address), expected, "{} in {:?}", address, routes);
                    prop_assert_eq!(in_maps(&targets, address), expected.is_some(), "{}", address);
                    // nft knows the same ones, and each by one element.
                    let elements = targets.outermost.iter().filter(|(network, range)| {
                        network.contains(&address.ip()) && (range.first..=range.last).contains(&port)
                    });
                    prop_assert_eq!(elements.count(), usize::from(expected.is_some()), "{}", address);
                }
            }
        }
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
        assert_eq!(
            elements(&targets),
            ["10.0.0.0/8 . 5432", "10.1.0.0/16 . 22"]
        );
    }

    #[test]
    fn too_many_targets_name_the_map() {
        let routes: Vec<_> = (0..=TARGETS_MAX)
            .map(|index| TargetRoute {
                network: IpNet::from(IpAddr::from((0x0a00_0000 + index).to_be_bytes())),
                ports: 1..=1,
                target: 0,
                preserve_client_address: false,
            })
            .collect();
        let error = Targets::compile(&routes).map(drop).unwrap_err();
        assert!(matches!(error, KernelError::MapFull { map: "targets", .. }));
    }

    #[test]
    fn equal_ports_share_a_rule_set() {
        let targets =
            Targets::compile(&[route("10.0.0.1/32", 5432, 1), route("10.0.0.2/32", 5432, 2)])
                .unwrap();
        assert_eq!(targets.rule_sets().len(), 1);
    }
}
