//! Taking the plane away again, whole or half.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use interceptor_common::Config;
use libbpf_rs::Link;

use super::cgroup::Cgroup;
use super::maps::Maps;
use super::{
    KernelError, PlaneConfig, backstop, check_capabilities, filter, link, routing, shared_config,
};

/// Removes every trace of the plane: links, maps, nft table, rules, routes, the proxy's cgroup.
/// Connections go directly to the targets from then on. What is gone already is no error.
pub fn detach(cgroup: Option<&Path>, bpffs: &Path) -> Result<(), KernelError> {
    check_capabilities()?;
    let cgroup = match Cgroup::find(cgroup) {
        Err(KernelError::CgroupAbsent { .. }) => None, // Its links went with it.
        found => Some(found?),
    };
    if let Some(cgroup) = &cgroup
        && let Some(pid) = cgroup.occupant()?
    {
        return Err(KernelError::ProxyRuns {
            cgroup: cgroup.proxy.clone(),
            pid,
        });
    }
    let config = config(bpffs);
    // The guards go last: while it lasts, a connection is refused rather than half-way steered.
    remove_links(&link::directory(bpffs))?;
    filter::remove_all(bpffs)?;
    routing::remove(&config)?;
    backstop::remove()?;
    remove_tree(bpffs)?;
    cgroup.map_or(Ok(()), |cgroup| cgroup.remove())
}

/// The numbers that this plane was attached with; without its map, the default ones.
fn config(bpffs: &Path) -> Config {
    let attached = Maps::open(bpffs)
        .and_then(|maps| maps.config())
        .ok()
        .filter(|config| config.mark_mask != 0);
    attached.unwrap_or_else(|| shared_config(&PlaneConfig::default(), 0))
}

fn remove_links(directory: &Path) -> Result<(), KernelError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(KernelError::file("read", directory))?,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // Removing the pin alone would leave the program attached until the kernel gets to it. A link
        // whose device or cgroup is gone cannot be detached, and need not be.
        if let Ok(link) = Link::open(&path) {
            let _ = link.detach();
        }
        fs::remove_file(&path).map_err(KernelError::file("remove", &path))?;
    }
    Ok(())
}

fn remove_tree(directory: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(KernelError::file("remove", directory)(error))
        }
        _ => Ok(()),
    }
}
