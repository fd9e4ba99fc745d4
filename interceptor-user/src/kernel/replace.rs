//! Replacing the targets in the maps: never half, and without a gap.
//!
//! The new rule sets are written first, then each prefix changes over in one step, then the old go. An
//! address that was and stays a target is one at every moment. Rule sets that stay keep their id, so
//! that a change of one target among thousands writes little.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use interceptor_common::{PORT_PREFIX_BITS, PORTS_MAX, PortKey, PrefixKey, TARGETS_MAX};

use super::KernelError;
use super::maps::PinnedMap;
use super::ports::{Ports, prefix_ports};
use super::target::{Prefix, Targets, port_entries, prefix_key};

/// The maps `targets` and `ports` hold twice their limit, for the old and the new.
const ROOM: u32 = 2;
/// Where the kernel cannot be asked to wait for its readers: far longer than a program runs.
const READERS_WAIT: Duration = Duration::from_millis(100);

/// What the two maps hold.
struct Present {
    prefixes: BTreeMap<Prefix, u32>,
    rule_sets: BTreeMap<u32, Ports>,
}

impl Present {
    fn read(
        prefixes: &PinnedMap<PrefixKey, u32>,
        ports: &PinnedMap<PortKey, u32>,
    ) -> Result<Self, KernelError> {
        let prefix = |(key, rule_set): (PrefixKey, u32)| {
            let bits = u8::try_from(key.bits).ok()?;
            let address = key.address;
            Some((Prefix { bits, address }, rule_set))
        };
        let mut rule_sets: BTreeMap<u32, Ports> = BTreeMap::new();
        for (key, target) in ports.entries()? {
            let bits = key.bits.saturating_sub(PORT_PREFIX_BITS);
            let range = prefix_ports(
                u8::try_from(bits).unwrap_or(u8::MAX),
                u16::from_be_bytes(key.port),
            );
            rule_sets
                .entry(key.rule_set)
                .or_default()
                .fill(range, target);
        }
        Ok(Self {
            prefixes: prefixes.entries()?.into_iter().filter_map(prefix).collect(),
            rule_sets,
        })
    }

    /// The ids of the new rule sets: of equal content the one that is there, else one that is free.
    fn ids(&self, targets: &Targets) -> Vec<u32> {
        let known: HashMap<&Ports, u32> = self
            .rule_sets
            .iter()
            .map(|(id, ports)| (ports, *id))
            .collect();
        let in_use: BTreeSet<u32> = self
            .rule_sets
            .keys()
            .chain(self.prefixes.values())
            .copied()
            .collect();
        let mut free = (0..=u32::MAX).filter(|id| !in_use.contains(id));
        targets
            .rule_sets()
            .iter()
            .filter_map(|ports| known.get(ports).copied().or_else(|| free.next()))
            .collect()
    }
}

/// Makes the two maps hold these targets.
///
/// # Errors
/// If they do not fit beside the old ones, before anything is changed; if the kernel does not take an
/// entry, after what was changed has been undone.
pub(super) fn replace(
    prefix_map: &PinnedMap<PrefixKey, u32>,
    port_map: &PinnedMap<PortKey, u32>,
    targets: &Targets,
) -> Result<(), KernelError> {
    let present = Present::read(prefix_map, port_map)?;
    let ids = present.ids(targets);
    let wanted: BTreeMap<Prefix, u32> = targets
        .prefixes()
        .filter_map(|(prefix, index)| Some((prefix, *ids.get(index)?)))
        .collect();
    let added: BTreeMap<u32, &Ports> = ids
        .iter()
        .copied()
        .zip(targets.rule_sets())
        .filter(|(id, _)| !present.rule_sets.contains_key(id))
        .collect();
    check_room(&present, &wanted, &added)?;

    let written = write(prefix_map, port_map, &present, &wanted, &added);
    if let Err(error) = written {
        undo(prefix_map, port_map, &present, &wanted, &added);
        return Err(error);
    }
    for prefix in present
        .prefixes
        .keys()
        .filter(|prefix| !wanted.contains_key(prefix))
    {
        prefix_map.remove(&prefix_key(*prefix))?;
    }
    // A program may have read a prefix before, and look for its rule set now.
    wait_for_readers();
    let kept: BTreeSet<u32> = ids.into_iter().collect();
    for (id, ports) in present
        .rule_sets
        .iter()
        .filter(|(id, _)| !kept.contains(id))
    {
        remove_rule_set(port_map, *id, ports)?;
    }
    Ok(())
}

/// The limits leave room for the old and the new; what a gateway left that died in the middle of this
/// does not count to them.
fn check_room(
    present: &Present,
    wanted: &BTreeMap<Prefix, u32>,
    added: &BTreeMap<u32, &Ports>,
) -> Result<(), KernelError> {
    let prefixes = wanted
        .keys()
        .filter(|prefix| !present.prefixes.contains_key(prefix))
        .count()
        + present.prefixes.len();
    let entries = |ports: &Ports| ports.prefixes().count();
    let ports = present.rule_sets.values().map(entries).sum::<usize>()
        + added.values().map(|ports| entries(ports)).sum::<usize>();
    for (map, max, wanted) in [
        ("targets", ROOM * TARGETS_MAX, prefixes),
        ("ports", ROOM * PORTS_MAX, ports),
    ] {
        if wanted > max as usize {
            return Err(KernelError::MapFull { map, max, wanted });
        }
    }
    Ok(())
}

fn write(
    prefix_map: &PinnedMap<PrefixKey, u32>,
    port_map: &PinnedMap<PortKey, u32>,
    present: &Present,
    wanted: &BTreeMap<Prefix, u32>,
    added: &BTreeMap<u32, &Ports>,
) -> Result<(), KernelError> {
    for (id, ports) in added {
        for (key, target) in port_entries(*id, ports) {
            port_map.insert(&key, &target)?;
        }
    }
    for (prefix, id) in wanted
        .iter()
        .filter(|(prefix, id)| present.prefixes.get(prefix) != Some(id))
    {
        prefix_map.insert(&prefix_key(*prefix), id)?;
    }
    Ok(())
}

/// Puts the old prefixes back, as far as the kernel lets it: it refuses for want of memory only.
fn undo(
    prefix_map: &PinnedMap<PrefixKey, u32>,
    port_map: &PinnedMap<PortKey, u32>,
    present: &Present,
    wanted: &BTreeMap<Prefix, u32>,
    added: &BTreeMap<u32, &Ports>,
) {
    let mut is_restored = true;
    for (prefix, id) in wanted {
        let key = prefix_key(*prefix);
        match present.prefixes.get(prefix) {
            Some(old) if old == id => {}
            Some(old) => is_restored &= prefix_map.insert(&key, old).is_ok(),
            // It may not have been written yet.
            None => drop(prefix_map.remove(&key)),
        }
    }
    if !is_restored {
        // The new rule sets stay, as a prefix may still point to one of them.
        tracing::error!(target: "interceptor::kernel", "the old targets could not all be put back; reload the policy");
        return;
    }
    wait_for_readers();
    for (id, ports) in added {
        for (key, _) in port_entries(*id, ports) {
            let _ = port_map.remove(&key);
        }
    }
}

fn remove_rule_set(
    port_map: &PinnedMap<PortKey, u32>,
    id: u32,
    ports: &Ports,
) -> Result<(), KernelError> {
    for (key, _) in port_entries(id, ports) {
        port_map.remove(&key)?;
    }
    Ok(())
}

/// Waits until every program that runs now has ended: they run within RCU, and the global membarrier
/// is its grace period (kernel/sched/membarrier.c). Where it is refused, as with `nohz_full`, time has
/// to do.
fn wait_for_readers() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three numbers and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(READERS_WAIT);
    }
}
