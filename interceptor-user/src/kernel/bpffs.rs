//! The pin directory, on a BPF file system.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::KernelError;

/// Where systemd and bpftool mount it; the one place where a mount of ours surprises nobody.
const MOUNT: &str = "/sys/fs/bpf";

/// Mounts the BPF file system where it is missing, and makes the pin directory.
pub(super) fn prepare(directory: &Path) -> Result<(), KernelError> {
    let failed =
        |errno: nix::Error| KernelError::file("mount a BPF file system at", MOUNT)(errno.into());
    if directory.starts_with(MOUNT) && !is_bpffs(Path::new(MOUNT)) {
        mount(
            Some("bpf"),
            MOUNT,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=700"),
        )
        .map_err(failed)?;
    }
    fs::create_dir_all(directory).map_err(KernelError::file("create", directory))?;
    if !is_bpffs(directory) {
        let source = std::io::Error::other("it is not on a BPF file system");
        return Err(KernelError::File {
            action: "pin programs in",
            path: directory.into(),
            source,
        });
    }
    Ok(())
}

/// Whether it is where everybody looks for it.
pub(super) fn is_mounted() -> bool {
    is_bpffs(Path::new(MOUNT))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}
