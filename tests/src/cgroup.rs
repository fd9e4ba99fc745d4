//! A child cgroup, and the end of everything that runs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::poll_until;

/// A cgroup of the cgroup2 hierarchy. Dropping the handle leaves it in place: the world removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes `name` below the cgroup2 root, or opens it if it is there.
    pub(crate) fn create(name: &str) -> Result<Self> {
        Self::at(mount_point()?.join(name))
    }

    /// Makes a child of it.
    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        Self::at(self.path.join(name))
    }

    fn at(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that a process writes itself into.
    pub(crate) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

/// Where cgroup2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified in hybrid mode.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (Some(_), Some(point), Some("cgroup2")) =
            (fields.next(), fields.next(), fields.next())
        {
            return Ok(PathBuf::from(point));
        }
    }
    bail!("no cgroup2 mount; mount one: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Every process in the cgroup at `path` and below.
pub(crate) fn processes(path: &Path) -> Vec<Pid> {
    let mut found: Vec<Pid> = fs::read_to_string(path.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        // Zero is how the kernel shows a process of another PID namespace: not ours to signal.
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
        .collect();
    for child in children(path) {
        found.extend(processes(&child));
    }
    found
}

/// Kills every process in the cgroup at `path` and below, then removes it.
pub(crate) fn destroy(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let empty = poll_until(Duration::from_secs(10), || {
        let left = processes(path);
        for pid in &left {
            // It may have gone in between, which is what we want.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        left.is_empty()
    });
    if !empty {
        bail!("processes in {} do not die", path.display());
    }
    // A cgroup stays busy for a moment after its last process.
    let gone = poll_until(Duration::from_secs(5), || remove(path).is_ok());
    if !gone {
        remove(path).with_context(|| format!("cannot remove cgroup {}", path.display()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    for child in children(path) {
        remove(&child)?;
    }
    fs::remove_dir(path)
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
