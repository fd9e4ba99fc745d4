//! What is attached, read from the pins: it needs no running proxy.

use std::fs;
use std::path::Path;

use libbpf_rs::Link;
use libbpf_rs::query::LinkTypeInfo;
use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::maps::Maps;
use super::{KernelError, backstop, cgroup_mount_point, check_capabilities, filter, link, routing};
use crate::identify;

/// The state of the plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The programs' links; none where the plane is detached.
    pub links: Vec<LinkStatus>,
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
        let (links, verdicts) = (Vec::new(), Vec::new());
        return Ok(Status {
            links,
            listener: false,
            nft_table,
            nft_frames,
            routing_rules: 0,
            target_prefixes: 0,
            verdicts,
        });
    }
    let maps = Maps::open(bpffs)?;
    let verdicts = maps.verdicts()?;
    Ok(Status {
        links: links(&link::directory(bpffs))?,
        listener: maps.has_listener(),
        nft_table,
        nft_frames,
        routing_rules: routing::count_rules(&maps.config()?)?,
        target_prefixes: maps.target_prefixes(),
        verdicts: verdicts
            .into_iter()
            .map(|(verdict, count)| VerdictStatus {
                name: verdict.name(),
                count,
            })
            .collect(),
    })
}

fn links(directory: &Path) -> Result<Vec<LinkStatus>, KernelError> {
    let mount = cgroup_mount_point()?;
    let mut links = Vec::new();
    for entry in fs::read_dir(directory)
        .map_err(KernelError::file("read", directory))?
        .flatten()
    {
        let info = match Link::open(entry.path()).and_then(|link| link.info()) {
            Ok(info) => info,
            // Its device went meanwhile, and the gateway took the pin away.
            Err(_) if !entry.path().exists() => continue,
            Err(error) => {
                return Err(KernelError::StalePins {
                    path: entry.path(),
                    detail: error.to_string(),
                });
            }
        };
        let place = match info.info {
            LinkTypeInfo::Cgroup(cgroup) => identify::cgroup_path(cgroup.cgroup_id, &mount),
            LinkTypeInfo::Tcx(tcx) => if_indextoname(tcx.ifindex)
                .ok()
                .and_then(|name| name.into_string().ok()),
            LinkTypeInfo::NetNs(namespace) if namespace.ino != 0 => {
                Some(format!("net:[{}]", namespace.ino))
            }
            _ => None,
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        links.push(LinkStatus {
            name,
            place,
            link_id: Some(info.id),
            program_id: info.prog_id,
        });
    }
    links.extend(filter::list()?.into_iter().map(|filter| LinkStatus {
        name: format!("{}_{}", filter.direction.name(), filter.index),
        place: Some(filter.device),
        link_id: None,
        program_id: filter.program_id,
    }));
    links.sort();
    Ok(links)
}
