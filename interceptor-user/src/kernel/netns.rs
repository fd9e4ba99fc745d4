//! The network namespaces that the gateway has a say in: its own, and those of the processes below
//! the cgroup that its programs are attached to.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::KernelError;

/// Namespaces that are visited; in the others nothing is severed, and a warning says so.
pub(super) const NAMESPACES_MAX: usize = 4096;

/// The inode number of this network namespace, by which the kernel programs know it.
pub(super) fn own() -> Result<u32, KernelError> {
    let path = Path::new("/proc/self/ns/net");
    let metadata = fs::metadata(path).map_err(KernelError::file("read", path))?;
    // The kernel numbers namespaces in 32 bits; 0 is none.
    Ok(u32::try_from(metadata.ino()).unwrap_or(0))
}

/// Every one, open, the own one first. Processes that end meanwhile are left out.
pub(super) fn guarded(cgroup: &Path) -> Result<Vec<File>, KernelError> {
    let path = Path::new("/proc/self/ns/net");
    let mut found = Found {
        inodes: BTreeSet::from([u64::from(own()?)]),
        open: vec![File::open(path).map_err(KernelError::file("open", path))?],
        has_more: false,
    };
    found.walk(cgroup);
    if found.has_more {
        tracing::warn!(
            target: "interceptor::kernel",
            limit = NAMESPACES_MAX,
            "there are more network namespaces than are visited: connections in the others end at their next packet"
        );
    }
    Ok(found.open)
}

struct Found {
    inodes: BTreeSet<u64>,
    open: Vec<File>,
    has_more: bool,
}

impl Found {
    /// A cgroup and those below it. The kernel limits their depth.
    fn walk(&mut self, cgroup: &Path) {
        // A threaded cgroup has no such list; its processes are in its parent's.
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for process in processes.lines() {
            self.process(process);
        }
        for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&entry.path());
            }
        }
    }

    /// Each thread can be in a namespace of its own.
    fn process(&mut self, process: &str) {
        let threads = fs::read_dir(format!("/proc/{process}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let path = thread.path().join("ns/net");
            let Ok(inode) = fs::metadata(&path).map(|metadata| metadata.ino()) else {
                continue;
            };
            if self.inodes.contains(&inode) {
                continue;
            }
            if self.open.len() >= NAMESPACES_MAX {
                self.has_more = true;
                return;
            }
            if let Ok(file) = File::open(&path) {
                self.inodes.insert(inode);
                self.open.push(file);
            }
        }
    }
}
