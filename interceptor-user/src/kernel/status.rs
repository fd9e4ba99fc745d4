//! What is attached, read from the pins: it needs no running proxy.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use libbpf_rs::query::{LinkInfo, LinkTypeInfo, ProgInfoIter, ProgramInfo};
use libbpf_rs::{MapCore as _, MapHandle, MapType};
use nix::net::if_::if_indextoname;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::drift::{self, Drift};
use super::maps::{self, Maps};
use super::{
    KernelError, backstop, cgroup_mount_point, chain, check_capabilities, filter, link, routing,
};
use crate::identify;

/// The state of the plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The programs' links; none where the plane is detached.
    pub links: Vec<LinkStatus>,
    /// The order of all programs on each guarded hook of a device.
    pub devices: Vec<DeviceStatus>,
    /// The pinned maps.
    pub maps: Vec<MapStatus>,
    /// Whether a proxy listens; if none does, targets are refused.
    pub listener: bool,
    /// Whether the nft table is there.
    pub nft_table: bool,
    /// Whether the nft table for raw frames is there.
    pub nft_frames: bool,
    /// How many routing rules are there.
    pub routing_rules: usize,
    /// How many address prefixes are targets.
    pub target_prefixes: usize,
    /// What the pins show not to be as a gateway sets it. One that runs knows more.
    pub drift: Vec<Drift>,
    /// Counters, since the first attachment.
    pub verdicts: Vec<VerdictStatus>,
}

/// One program and where it is attached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LinkStatus {
    /// The pin's name: the program, or the direction and the device's index.
    pub name: String,
    /// The cgroup's path, the device's name or the network namespace; `None` where that is gone.
    pub place: Option<String>,
    /// The link's id; `None` for a tc filter, which the kernel has instead of a link before 6.6.
    pub link_id: Option<u32>,
    /// The program's id.
    pub program_id: u32,
    /// The program's name.
    pub program: String,
    /// A digest of the program's instructions, as `bpftool prog` shows it.
    pub tag: String,
    /// When it was loaded, in seconds since the Unix epoch.
    pub loaded_unix_s: Option<u64>,
}

/// The programs on one hook of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceStatus {
    /// The device's name.
    pub device: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Names and ids, first to last: `egress_ether (7)`.
    pub order: Vec<String>,
    /// Whether ours is the first.
    pub is_ours_first: bool,
}

/// One pinned map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Its entries, where they can be counted and some can be missing.
    pub entries: Option<usize>,
    /// The most that it holds.
    pub max: u32,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerdictStatus {
    /// The verdict's name.
    pub name: &'static str,
    /// How often.
    pub count: u64,
}

/// Reads the state of the plane whose pins are in `bpffs`.
pub fn status(bpffs: &Path) -> Result<Status, KernelError> {
    check_capabilities()?;
    let (nft_table, nft_frames) = backstop::are_present()?;
    if !bpffs.exists() {
        return Ok(Status {
            links: Vec::new(),
            devices: Vec::new(),
            maps: Vec::new(),
            listener: false,
            nft_table,
            nft_frames,
            routing_rules: 0,
            target_prefixes: 0,
            drift: Vec::new(),
            verdicts: Vec::new(),
        });
    }
    let programs: HashMap<u32, ProgramInfo> = ProgInfoIter::default()
        .map(|program| (program.id, program))
        .collect();
    let pinned = link::pinned(&link::directory(bpffs))?;
    let maps = Maps::open(bpffs)?;
    Ok(Status {
        links: links(&pinned, &programs)?,
        devices: devices(&pinned, &programs),
        maps: map_statuses(&maps::directory(bpffs))?,
        listener: maps.has_listener(),
        nft_table,
        nft_frames,
        routing_rules: routing::count_rules(&maps.config()?)?,
        target_prefixes: maps.target_prefixes(),
        drift: drift::of_pins(bpffs)?,
        verdicts: maps
            .verdicts()?
            .into_iter()
            .map(|(verdict, count)| VerdictStatus {
                name: verdict.name(),
                count,
            })
            .collect(),
    })
}

fn links(
    pinned: &[(String, LinkInfo)],
    programs: &HashMap<u32, ProgramInfo>,
) -> Result<Vec<LinkStatus>, KernelError> {
    let mount = cgroup_mount_point()?;
    let booted = booted();
    let status = |name: String, place, link_id, program_id| {
        let program = programs.get(&program_id);
        LinkStatus {
            name,
            place,
            link_id,
            program_id,
            program: program.map(name_of).unwrap_or_default(),
            tag: program
                .map(|program| hex::encode(program.tag.0))
                .unwrap_or_default(),
            loaded_unix_s: program.and_then(|program| {
                let loaded = booted?.checked_add(program.load_time)?;
                let since = loaded.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                Some(since.as_secs())
            }),
        }
    };
    let links = pinned.iter().map(|(name, info)| {
        let place = match &info.info {
            LinkTypeInfo::Cgroup(at) => identify::cgroup_path(at.cgroup_id, &mount),
            LinkTypeInfo::Tcx(at) => device_name(at.ifindex),
            LinkTypeInfo::NetNs(at) if at.ino != 0 => Some(format!("net:[{}]", at.ino)),
            _ => None,
        };
        status(name.clone(), place, Some(info.id), info.prog_id)
    });
    let filters = filter::list()?;
    let filters = filters.into_iter().map(|filter| {
        let name = format!("{}_{}", filter.direction.name(), filter.index);
        status(name, Some(filter.device), None, filter.program_id)
    });
    let mut all: Vec<LinkStatus> = links.chain(filters).collect();
    all.sort();
    Ok(all)
}

/// When the host was started: programs know the time from then, suspends included.
fn booted() -> Option<SystemTime> {
    let since = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    SystemTime::now().checked_sub(since)
}

fn devices(
    pinned: &[(String, LinkInfo)],
    programs: &HashMap<u32, ProgramInfo>,
) -> Vec<DeviceStatus> {
    let status = pinned.iter().filter_map(|(name, info)| {
        let LinkTypeInfo::Tcx(at) = &info.info else {
            return None;
        };
        let (direction, _) = name.split_once('_')?;
        let order = chain::on_device(at.ifindex, at.attach_type.clone() as u32).ok()?;
        let show = |id: &u32| match programs.get(id) {
            Some(program) => format!("{} ({id})", name_of(program)),
            None => format!("({id})"),
        };
        Some(DeviceStatus {
            device: device_name(at.ifindex)?,
            direction: direction.to_owned(),
            is_ours_first: order.first() == Some(&info.prog_id),
            order: order.iter().map(show).collect(),
        })
    });
    status.collect()
}

fn map_statuses(directory: &Path) -> Result<Vec<MapStatus>, KernelError> {
    let mut statuses = Vec::new();
    for entry in std::fs::read_dir(directory)
        .map_err(KernelError::file("read", directory))?
        .flatten()
    {
        let Ok(map) = MapHandle::from_pinned_path(entry.path()) else {
            continue;
        };
        // An array always has all of its entries; other kinds do not list theirs.
        let is_counted = matches!(
            map.map_type(),
            MapType::Hash | MapType::LruHash | MapType::LpmTrie
        );
        statuses.push(MapStatus {
            name: entry.file_name().to_string_lossy().into_owned(),
            entries: is_counted.then(|| map.keys().count()),
            max: map.max_entries(),
        });
    }
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(statuses)
}

fn device_name(index: u32) -> Option<String> {
    if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
}

/// The kernel keeps 15 characters of it.
fn name_of(program: &ProgramInfo) -> String {
    program.name.to_string_lossy().into_owned()
}
