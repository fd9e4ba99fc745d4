//! Which target an address belongs to: the endpoints of the policy and what names stand for, in one
//! immutable value.
//!
//! It owns that answer, for the accepted connection and for the kernel alike. It must not know how
//! addresses are found out.
//!
//! The longest prefix that has the port wins; an address of a name counts as one of full length. Of
//! equals, what the policy names by address comes first, then the name that had the address first,
//! then what is only kept for the sessions on it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use interceptor_core::policy::{Snapshot, Target};
use ipnet::IpNet;

use super::in_use::Use;
use crate::kernel::TargetRoute;
use crate::resolve::{NameRow, Names};

/// The targets' addresses at one time.
#[derive(Debug)]
pub(super) struct Directory {
    policy: Arc<Snapshot>,
    /// What the kernel is to intercept; of equals the first counts.
    pub(super) routes: Vec<TargetRoute>,
    /// The unix sockets that the kernel is to refuse.
    pub(super) unix_sockets: Vec<PathBuf>,
    index: HashMap<IpNet, Vec<(RangeInclusive<u16>, u32)>>,
    /// The prefix lengths in `index`, longest first.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
    /// Addresses that two targets' names have, in words.
    pub(super) conflicts: BTreeSet<String>,
    /// Addresses of names that belong to another target by address, in words.
    pub(super) shadowed: BTreeSet<String>,
    /// What the policy names no more, and sessions still use.
    pub(super) kept: BTreeSet<SocketAddr>,
    /// The names, for people to look at.
    pub(super) names: Vec<NameRow>,
}

/// The directory in force, and while the kernel changes over the next one as well: a connection may
/// come by either.
#[derive(Debug, Clone)]
pub(super) struct Directories {
    pub(super) current: Arc<Directory>,
    pub(super) next: Option<Arc<Directory>>,
}

impl Directories {
    /// The target of an original destination.
    pub(super) fn target(&self, address: SocketAddr) -> Option<&Arc<Target>> {
        let next = self.next.as_ref();
        self.current
            .target(address)
            .or_else(|| next.and_then(|next| next.target(address)))
    }
}

/// An address that a target has by name.
struct Claim<'a> {
    order: u64,
    address: IpAddr,
    name: &'a str,
    ports: &'a RangeInclusive<u16>,
    target: u32,
}

impl Directory {
    /// Works it out.
    pub(super) fn new(policy: Arc<Snapshot>, names: &Names, in_use: &BTreeSet<Use>) -> Self {
        let mut directory = Self {
            routes: Vec::new(),
            unix_sockets: unix_sockets(&policy),
            index: HashMap::new(),
            lengths_v4: Vec::new(),
            lengths_v6: Vec::new(),
            conflicts: BTreeSet::new(),
            shadowed: BTreeSet::new(),
            kept: BTreeSet::new(),
            names: names.rows(),
            policy: Arc::clone(&policy),
        };
        for (number, target) in numbered(&policy) {
            for endpoint in &target.endpoints {
                directory.add(endpoint.network, endpoint.ports.clone(), number);
            }
        }
        directory.add_names(&policy, names);
        let by_name: HashMap<&str, u32> = numbered(&policy)
            .map(|(number, target)| (target.name.as_str(), number))
            .collect();
        for (address, target) in in_use {
            if let Some(number) = by_name.get(&**target)
                && directory.find(*address).is_none()
            {
                let port = address.port();
                directory.add(IpNet::from(address.ip()), port..=port, *number);
                directory.kept.insert(*address);
            }
        }
        directory
    }

    /// The target of an original destination.
    pub(super) fn target(&self, address: SocketAddr) -> Option<&Arc<Target>> {
        self.policy.targets.get(self.find(address)? as usize)
    }

    /// Whether an address is one of a name's.
    pub(super) fn has_address(&self, name: &str, address: IpAddr) -> bool {
        let row = self.names.iter().find(|row| row.name == name);
        row.is_some_and(|row| row.addresses.iter().any(|row| row.address == address))
    }

    fn find(&self, address: SocketAddr) -> Option<u32> {
        let ip = address.ip().to_canonical();
        let lengths = match ip {
            IpAddr::V4(_) => &self.lengths_v4,
            IpAddr::V6(_) => &self.lengths_v6,
        };
        lengths.iter().find_map(|bits| {
            let network = IpNet::new(ip, *bits).ok()?.trunc();
            let entries = self.index.get(&network)?;
            let entry = entries
                .iter()
                .find(|(ports, _)| ports.contains(&address.port()));
            entry.map(|(_, target)| *target)
        })
    }

    fn add(&mut self, network: IpNet, ports: RangeInclusive<u16>, target: u32) {
        let network = network.trunc();
        let entries = self.index.entry(network).or_default();
        let entry = (ports.clone(), target);
        if entries.contains(&entry) {
            return;
        }
        entries.push(entry);
        let lengths = match network {
            IpNet::V4(_) => &mut self.lengths_v4,
            IpNet::V6(_) => &mut self.lengths_v6,
        };
        let bits = network.prefix_len();
        if let Err(place) = lengths.binary_search_by(|known| bits.cmp(known)) {
            lengths.insert(place, bits);
        }
        let document = self.policy.targets.get(target as usize);
        self.routes.push(TargetRoute {
            network,
            ports,
            target,
            preserve_client_address: document.is_some_and(|target| target.preserve_client_address),
        });
    }

    /// Adds what names stand for, the oldest first, and notes where two targets meet.
    fn add_names(&mut self, policy: &Snapshot, names: &Names) {
        let mut claims = Vec::new();
        for (target, document) in numbered(policy) {
            for endpoint in &document.names {
                claims.extend(names.addresses(&endpoint.name).map(|row| Claim {
                    order: row.order,
                    address: row.address,
                    name: &endpoint.name,
                    ports: &endpoint.ports,
                    target,
                }));
            }
        }
        claims.sort_by_key(|claim| claim.order);
        // Up to here the index holds what is named by address alone.
        let mut owners: HashMap<IpAddr, Vec<&Claim<'_>>> = HashMap::new();
        for claim in &claims {
            let network = IpNet::from(claim.address);
            let fixed = self.index.get(&network).into_iter().flatten();
            for (ports, target) in fixed {
                if *target != claim.target && overlap(ports, claim.ports) {
                    let owner = name_of(policy, *target);
                    self.shadowed
                        .insert(describe(policy, claim, owner, "by address"));
                }
            }
            let earlier = owners.entry(claim.address).or_default();
            for other in earlier.iter() {
                if other.target != claim.target && overlap(other.ports, claim.ports) {
                    let owner = name_of(policy, other.target);
                    let by = format!("as {}", other.name);
                    self.conflicts.insert(describe(policy, claim, owner, &by));
                }
            }
            earlier.push(claim);
        }
        for claim in &claims {
            self.add(
                IpNet::from(claim.address),
                claim.ports.clone(),
                claim.target,
            );
        }
    }
}

fn numbered(policy: &Snapshot) -> impl Iterator<Item = (u32, &Arc<Target>)> {
    // There are fewer documents than numbers.
    (0_u32..).zip(&policy.targets)
}

fn unix_sockets(policy: &Snapshot) -> Vec<PathBuf> {
    let paths = policy
        .targets
        .iter()
        .flat_map(|target| &target.unix_sockets);
    paths.map(PathBuf::from).collect()
}

fn name_of(policy: &Snapshot, target: u32) -> &str {
    let target = policy.targets.get(target as usize);
    target.map_or("", |target| target.name.as_str())
}

fn overlap(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

fn describe(policy: &Snapshot, claim: &Claim<'_>, owner: &str, by: &str) -> String {
    let Claim { address, name, .. } = claim;
    let target = name_of(policy, claim.target);
    format!(
        "{name}: {address} belongs to the target {owner} {by}, and stays there; the target {target} does not get it"
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use interceptor_core::mask::HashKey;
    use interceptor_core::policy::{self, Source};

    use super::*;
    use crate::resolve::Answer;

    fn policy(targets: &[(&str, &str)]) -> Arc<Snapshot> {
        let documents = targets.iter().map(|(name, endpoints)| {
            format!("---\nkind: Target\nname: {name}\nspec: {{protocol: postgres, endpoints: [{endpoints}]}}\n")
        });
        let text: String = documents.collect();
        let sources = [Source {
            file: "policy.yaml",
            text: &text,
        }];
        Arc::new(policy::load(&sources, &HashKey::new([0; 32])).unwrap_or_else(|e| panic!("{e}")))
    }

    fn names(answers: &[(&str, &[&str])]) -> Names {
        let mut names = Names::new(Duration::from_secs(60));
        for (name, addresses) in answers {
            let answer = Answer {
                addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
                refused: BTreeSet::new(),
                surplus: 0,
                ttl: Duration::from_secs(5),
                missing: None,
            };
            names.insert((*name).to_owned(), answer, Instant::now());
        }
        names
    }

    fn owner<'a>(directory: &'a Directory, address: &str) -> Option<&'a str> {
        let target = directory.target(address.parse().unwrap());
        target.map(|target| target.name.as_str())
    }

    fn directory(policy: &Arc<Snapshot>, names: &Names, in_use: &[(&str, &str)]) -> Directory {
        let in_use = in_use
            .iter()
            .map(|(address, target)| (address.parse().unwrap(), (*target).into()));
        Directory::new(Arc::clone(policy), names, &in_use.collect())
    }

    #[test]
    fn the_longest_prefix_with_the_port_owns_an_address() {
        let policy = policy(&[
            ("wide", "'10.0.0.0/8:1000-6000'"),
            ("narrow", "'10.1.0.0/16:5432', '[fd00::/64]:5432-5433'"),
            ("single", "'10.1.2.3:5433'"),
            ("named", "'db.internal:5432'"),
        ]);
        let names = names(&[("db.internal", &["10.1.2.3", "10.9.9.9", "fd00::7"])]);
        let directory = directory(&policy, &names, &[]);
        for (address, expected) in [
            ("10.2.0.1:5432", Some("wide")),
            ("10.2.0.1:999", None),
            ("10.2.0.1:6000", Some("wide")),
            ("10.1.0.1:5432", Some("narrow")),
            // The longer prefix does not have this port.
            ("10.1.0.1:1000", Some("wide")),
            ("10.1.2.3:5433", Some("single")),
            ("10.1.2.3:5432", Some("named")),
            ("10.1.2.3:5000", Some("wide")),
            ("10.9.9.9:5432", Some("named")),
            ("[::ffff:10.9.9.9]:5432", Some("named")),
            ("[fd00::7]:5432", Some("named")),
            ("[fd00::7]:5433", Some("narrow")),
            ("[fd01::7]:5432", None),
            ("11.0.0.1:5432", None),
        ] {
            assert_eq!(owner(&directory, address), expected, "{address}");
        }
        assert!(directory.conflicts.is_empty() && directory.shadowed.is_empty());
    }

    #[test]
    fn an_address_by_number_is_stronger_than_one_by_name() {
        let policy = policy(&[("a", "'db.internal:5432'"), ("b", "'10.0.0.5:5432'")]);
        let directory = directory(&policy, &names(&[("db.internal", &["10.0.0.5"])]), &[]);
        assert_eq!(owner(&directory, "10.0.0.5:5432"), Some("b"));
        let said: Vec<&String> = directory.shadowed.iter().collect();
        assert!(
            said.len() == 1 && said[0].contains("belongs to the target b by address"),
            "{said:?}"
        );
        assert!(directory.conflicts.is_empty());
    }

    #[test]
    fn of_two_names_the_one_that_had_the_address_first_keeps_it() {
        let policy = policy(&[
            ("a", "'a.internal:5432'"),
            ("b", "'b.internal:5000-6000'"),
            ("c", "'c.internal:9999'"),
        ]);
        let names = names(&[
            ("b.internal", &["10.0.0.5"]),
            ("a.internal", &["10.0.0.5"]),
            ("c.internal", &["10.0.0.5"]),
        ]);
        let directory = directory(&policy, &names, &[]);
        assert_eq!(owner(&directory, "10.0.0.5:5432"), Some("b"));
        // Another port is no conflict.
        assert_eq!(owner(&directory, "10.0.0.5:9999"), Some("c"));
        let said: Vec<&String> = directory.conflicts.iter().collect();
        assert!(
            said.len() == 1
                && said[0].contains("a.internal: 10.0.0.5 belongs to the target b as b.internal"),
            "{said:?}"
        );
    }

    #[test]
    fn what_sessions_use_stays_with_its_target() {
        let old = policy(&[
            ("a", "'10.0.0.5:5432', '10.0.0.6:5432'"),
            ("b", "'10.0.0.7:5432'"),
        ]);
        let new = policy(&[("a", "'10.0.0.6:5432'"), ("c", "'10.0.0.8:5432'")]);
        let in_use = [
            ("10.0.0.5:5432", "a"),
            ("10.0.0.7:5432", "b"),
            ("10.0.0.6:5432", "a"),
        ];
        let none = names(&[]);
        let before = directory(&old, &none, &in_use);
        assert!(before.kept.is_empty());
        let after = directory(&new, &none, &in_use);
        assert_eq!(owner(&after, "10.0.0.5:5432"), Some("a"));
        assert_eq!(owner(&after, "10.0.0.5:5433"), None);
        // Its target is gone, and its sessions end.
        assert_eq!(owner(&after, "10.0.0.7:5432"), None);
        assert_eq!(after.kept.len(), 1);
        assert!(directory(&new, &none, &[]).kept.is_empty());

        let both = Directories {
            current: Arc::new(before),
            next: Some(Arc::new(after)),
        };
        let owner = |address: &str| {
            both.target(address.parse().unwrap())
                .map(|t| t.name.clone())
        };
        assert_eq!(owner("10.0.0.7:5432").as_deref(), Some("b"));
        assert_eq!(owner("10.0.0.8:5432").as_deref(), Some("c"));
    }

    #[test]
    fn the_kernel_gets_what_the_lookup_knows() {
        let policy = policy(&[("a", "'10.0.0.0/8:1-9', 'db.internal:5', 'db2.internal:5'")]);
        let names = names(&[
            ("db.internal", &["10.0.0.5"]),
            ("db2.internal", &["10.0.0.5"]),
        ]);
        let directory = directory(&policy, &names, &[("10.0.0.9:77", "a")]);
        let routes: Vec<String> = directory
            .routes
            .iter()
            .map(|route| format!("{} {:?} {}", route.network, route.ports, route.target))
            .collect();
        let expected = [
            "10.0.0.0/8 1..=9 0",
            "10.0.0.5/32 5..=5 0",
            "10.0.0.9/32 77..=77 0",
        ];
        assert_eq!(routes, expected);
    }
}
