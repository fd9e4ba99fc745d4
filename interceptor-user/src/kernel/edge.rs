//! What depends on the devices, addresses and routes of this host: the programs on devices, rules and
//! routes, and the nft tables. They are brought up to date as a whole, whenever one of them changes.
//!
//! Must not know who says that something changed: that is [`watch`](super::watch).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use interceptor_common::Config;
use ipnet::IpNet;

use super::cgroup::Cgroup;
use super::device::{self, Device, Devices};
use super::drift::{Table, Tables};
use super::object::Programs;
use super::target::Targets;
use super::{KernelError, backstop, frames, link, routing};

/// How often covering starts over because devices came or went meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// The devices that are covered, and what covers them.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) bpffs: PathBuf,
    pub(super) programs: Programs,
    /// The devices that were asked for; `None` is every one.
    pub(super) names: Option<Vec<String>>,
    pub(super) covered: Devices,
    unrouted: BTreeSet<IpNet>,
    /// Whether the kernel has the table for raw frames; `None` before the first attempt.
    guards_frames: Option<bool>,
    pub(super) tables: Tables,
}

/// What is set from outside.
pub(super) struct Wanted<'a> {
    pub(super) config: &'a Config,
    pub(super) cgroup: &'a Cgroup,
    pub(super) targets: &'a Targets,
}

impl Edge {
    pub(super) fn new(bpffs: PathBuf, programs: Programs, names: Option<Vec<String>>) -> Self {
        Self {
            bpffs,
            programs,
            names,
            covered: Devices::default(),
            unrouted: BTreeSet::new(),
            guards_frames: None,
            tables: Tables::default(),
        }
    }

    /// Attaches the cgroup programs.
    pub(super) fn attach_cgroup(&self, cgroup: &Cgroup) -> Result<(), KernelError> {
        link::attach_cgroup(&self.bpffs, &self.programs, cgroup)
    }

    /// Remembers the nft tables as they are now, to see when somebody alters them.
    pub(super) fn remember_tables(&mut self) -> Result<(), KernelError> {
        self.tables = Tables::of_now()?;
        Ok(())
    }

    /// Covers the devices that are there now, with everything set anew. Gives a line for each change.
    pub(super) fn cover(&mut self, wanted: &Wanted<'_>) -> Result<Vec<String>, KernelError> {
        self.attempt(wanted, true)
    }

    /// The same, except that only what depends on the devices is set, where one of them changed.
    pub(super) fn refresh(&mut self, wanted: &Wanted<'_>) -> Result<Vec<String>, KernelError> {
        self.attempt(wanted, false)
    }

    /// A device that vanishes half-way makes a step fail that is not needed any more.
    fn attempt(&mut self, wanted: &Wanted<'_>, is_anew: bool) -> Result<Vec<String>, KernelError> {
        let mut found = device::list(self.names.as_deref())?;
        for _ in 1..ATTEMPTS_MAX {
            let result = self.cover_found(&found, wanted, is_anew);
            let Err(error) = result else {
                return result;
            };
            let now = device::list(self.names.as_deref())?;
            if now == found {
                return Err(error);
            }
            tracing::debug!(target: "interceptor::kernel", %error, "the devices changed meanwhile; once more");
            found = now;
        }
        self.cover_found(&found, wanted, is_anew)
    }

    fn cover_found(
        &mut self,
        found: &Devices,
        wanted: &Wanted<'_>,
        is_anew: bool,
    ) -> Result<Vec<String>, KernelError> {
        let is_changed = *found != self.covered;
        // Rules first: a packet that ingress marked, and that no rule delivers, would be lost.
        let networks = wanted.targets.networks();
        let mut changes = changes(&self.covered, found);
        if !is_anew && !is_changed {
            // Not by us, and not because of a device.
            let lost = routing::drift(wanted.config, &found.known, &networks)?;
            changes.extend(lost.iter().map(|lost| format!("repaired: routing: {lost}")));
        }
        let unrouted = routing::set(wanted.config, &found.known, &networks)?;
        self.warn_unrouted(unrouted);
        if is_anew || is_changed {
            let stale = |device: &&Device| is_anew || !self.covered.known.contains(device);
            let devices = found.known.iter().filter(stale);
            link::attach_devices(&self.bpffs, &self.programs, devices)?;
            link::detach_others(&self.bpffs, &found.known)?;
        }
        if is_anew {
            let guards_frames =
                backstop::set(wanted.config, wanted.cgroup, wanted.targets, &found.known)?;
            self.warn_frames(guards_frames);
            // Not looked at before the caller is done: a new target is refused until its map has it.
            self.tables = Tables::default();
        } else if is_changed && self.guards_frames == Some(true) {
            backstop::set_frames(wanted.targets, &found.known)?;
            self.tables.frames = Table::of_now(frames::TABLE)?;
        }
        self.covered = found.clone();
        Ok(changes)
    }

    fn warn_unrouted(&mut self, unrouted: BTreeSet<IpNet>) {
        if let Some(first) = unrouted.difference(&self.unrouted).next() {
            tracing::warn!(
                target: "interceptor::kernel",
                "there is no route to {} of the targets, the first is {first}; connections to them fail until there is one",
                unrouted.len()
            );
        }
        self.unrouted = unrouted;
    }

    fn warn_frames(&mut self, guards_frames: bool) {
        if !guards_frames && self.guards_frames != Some(false) {
            tracing::warn!(
                target: "interceptor::kernel",
                "this kernel has no netdev egress chains, or no CONFIG_IP_ROUTE_CLASSID: a process with CAP_NET_RAW \
                 can send frames to targets past the gateway"
            );
        }
        self.guards_frames = Some(guards_frames);
    }
}

/// What an operator wants to know of another set of devices, by index: a name can change.
fn changes(before: &Devices, now: &Devices) -> Vec<String> {
    let by_index = |devices: &Devices| -> BTreeMap<u32, Device> {
        let pairs = devices.known.iter().map(|one| (one.index, one.clone()));
        pairs.collect()
    };
    let (old, new) = (by_index(before), by_index(now));
    let gone = old
        .values()
        .filter(|device| !new.contains_key(&device.index))
        .map(|device| format!("device {} is gone", device.name));
    let others = new
        .values()
        .flat_map(|device| match old.get(&device.index) {
            None if device.has_plain_name() => vec![format!("device {} is covered", device.name)],
            None => vec![format!(
                "device {:?} is guarded by eBPF alone: its name cannot be written in a rule",
                device.name
            )],
            Some(old) => alterations(old, device),
        });
    let unknown = now
        .unknown
        .iter()
        .filter(|(name, _)| !before.unknown.contains_key(*name))
        .map(|(name, link_type)| {
            format!("device {name} cannot be guarded: its frames are of type {link_type}")
        });
    gone.chain(others).chain(unknown).collect()
}

fn alterations(old: &Device, new: &Device) -> Vec<String> {
    let mut lines = Vec::new();
    if old.name != new.name {
        lines.push(format!("device {} is called {} now", old.name, new.name));
    }
    match (old.is_member, new.is_member) {
        (false, true) => lines.push(format!("device {} joined a bridge or bond", new.name)),
        (true, false) => lines.push(format!("device {} left its bridge or bond", new.name)),
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::device::Framing;

    fn devices(list: &[(u32, &str, bool)]) -> Devices {
        let device = |(index, name, is_member): &(u32, &str, bool)| Device {
            name: (*name).into(),
            index: *index,
            framing: Framing::Ether,
            is_member: *is_member,
        };
        Devices {
            known: list.iter().map(device).collect(),
            unknown: BTreeMap::new(),
        }
    }

    #[test]
    fn a_device_is_its_index() {
        let before = devices(&[(1, "lo", false), (2, "eth0", false), (3, "eth1", false)]);
        let now = devices(&[(1, "lo", false), (2, "wan", true), (4, "eth1", false)]);
        assert_eq!(
            changes(&before, &now),
            [
                "device eth1 is gone",
                "device eth0 is called wan now",
                "device wan joined a bridge or bond",
                "device eth1 is covered",
            ]
        );
        assert_eq!(changes(&now, &now), [""; 0]);
    }

    #[test]
    fn a_name_with_signs_is_not_given_to_tools() {
        let changed = changes(&devices(&[]), &devices(&[(9, "a\"#b", false)]));
        assert!(changed[0].contains("eBPF alone"), "{changed:?}");
    }
}
