//! The proxy's cgroup: where it is, making it, moving in, leaving no trace.
//!
//! The kernel programs know the proxy by this cgroup. It belongs to root: whoever may write its
//! `cgroup.procs` may become the proxy.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::KernelError;

/// Name of the proxy's cgroup below the one that the programs attach to.
const PROXY: &str = "interceptor";
/// Where nft looks for cgroup paths.
const NFT_ROOT: &str = "/sys/fs/cgroup";

/// The cgroup that the programs attach to and, in it, the proxy's.
#[derive(Debug, Clone)]
pub(super) struct Cgroup {
    /// Where cgroup2 is mounted.
    mount: PathBuf,
    /// Where the programs attach.
    pub(super) attach: PathBuf,
    /// The proxy's own.
    pub(super) proxy: PathBuf,
}

impl Cgroup {
    /// Finds the cgroup; `None` is the root of cgroup2.
    pub(super) fn find(path: Option<&Path>) -> Result<Self, KernelError> {
        let mount = mount_point()?;
        let attach = path.map_or_else(|| mount.clone(), Path::to_path_buf);
        if !attach.starts_with(&mount) {
            return Err(KernelError::CgroupOutside { path: attach, expected: mount });
        }
        if !attach.join("cgroup.procs").exists() {
            return Err(KernelError::CgroupAbsent { path: attach });
        }
        Ok(Self { proxy: attach.join(PROXY), mount, attach })
    }

    /// Makes the proxy's cgroup and moves this process, with all its threads, into it.
    pub(super) fn enter(&self) -> Result<(), KernelError> {
        match fs::create_dir(&self.proxy) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(KernelError::file("create", &self.proxy)(error));
            }
            _ => {}
        }
        let procs = self.proxy.join("cgroup.procs");
        // Zero stands for the process that writes.
        fs::write(&procs, "0").map_err(KernelError::file("write", procs))
    }

    /// The id by which the kernel programs know a cgroup: its directory's inode.
    pub(super) fn id(path: &Path) -> Result<u64, KernelError> {
        let metadata = fs::metadata(path).map_err(KernelError::file("read", path))?;
        Ok(metadata.ino())
    }

    /// The proxy's cgroup as nft writes it: how deep it is, and its path.
    pub(super) fn nft_match(&self) -> Result<(usize, String), KernelError> {
        let outside = || KernelError::CgroupOutside { path: self.proxy.clone(), expected: NFT_ROOT.into() };
        let level = self.proxy.strip_prefix(&self.mount).map_err(|_| outside())?.components().count();
        // With cgroup2 mounted at /sys/fs/cgroup/unified (hybrid mode), the path keeps that prefix.
        let path = self.proxy.strip_prefix(NFT_ROOT).map_err(|_| outside())?;
        Ok((level, path.to_str().ok_or_else(outside)?.to_owned()))
    }

    /// A process that is in the proxy's cgroup, if there is one.
    pub(super) fn occupant(&self) -> Result<Option<u32>, KernelError> {
        let procs = self.proxy.join("cgroup.procs");
        match fs::read_to_string(&procs) {
            Ok(text) => Ok(text.lines().find_map(|line| line.parse().ok())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KernelError::file("read", procs)(error)),
        }
    }

    /// Removes the proxy's cgroup, if it is there.
    pub(super) fn remove(&self) -> Result<(), KernelError> {
        match fs::remove_dir(&self.proxy) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(KernelError::file("remove", &self.proxy)(error)),
            _ => Ok(()),
        }
    }
}

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
pub(crate) fn mount_point() -> Result<PathBuf, KernelError> {
    let mounts = Path::new("/proc/self/mounts");
    let text = fs::read_to_string(mounts).map_err(KernelError::file("read", mounts))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(point))
        })
        .ok_or(KernelError::NoCgroupMount)
}
