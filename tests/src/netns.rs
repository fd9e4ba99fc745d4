//! A network namespace that lives as long as its name in /run/netns.
//!
//! Never `ip netns exec`: it mounts a fresh /sys, which hides bpffs and the cgroup mount.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

/// A named network namespace. Dropping the handle leaves it in place: the world removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with `lo` up.
    pub fn create(name: &str) -> Result<Self> {
        ip(None, &format!("netns add {name}"))?;
        let namespace = Self {
            name: name.to_owned(),
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` takes.
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Runs lines of `ip -batch` in it.
    pub fn ip(&self, batch: &str) -> Result<()> {
        ip(Some(&self.name), batch)
    }

    /// Sets a `net.*` sysctl; `key` is a path below /proc/sys/net.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&file, value).with_context(|| format!("cannot set {file}")))?
    }

    /// Runs `work` on a thread inside the namespace. Sockets that it returns stay inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = self.open()?;
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(&handle, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("cannot enter network namespace {}", self.name))?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A descriptor that keeps it alive and with which a child can enter it.
    pub(crate) fn open(&self) -> Result<File> {
        let path = self.path();
        File::open(&path).with_context(|| format!("cannot open {}", path.display()))
    }
}

/// Removes a namespace by name, with all devices, addresses, rules and nft tables in it.
pub(crate) fn delete(name: &str) -> Result<()> {
    if path_of(name).exists() {
        ip(None, &format!("netns delete {name}"))?;
    }
    Ok(())
}

pub(crate) fn path_of(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

fn ip(namespace: Option<&str>, batch: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-netns", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip`; run `cargo xtask setup`")?;
    let mut stdin = child.stdin.take().ok_or_else(|| anyhow!("no stdin"))?;
    stdin.write_all(batch.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "`ip` failed on\n{batch}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A C string of `text`, for the system calls of a child.
pub(crate) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{text:?} holds a NUL byte"))
}
