//! Who a local client is: what the kernel saw at `connect`, joined with what `/proc` and the cgroup's
//! path say of that process.
//!
//! Must not guess. The kernel is asked again after `/proc` was read: only if the process is the same
//! and has executed no other program since it connected, what was read is this program's. Otherwise
//! the fields stay empty, and policy decides on "unknown".

mod cgroup;
mod command_line;
mod executable;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interceptor_common::{Identity, TaskNow, address_from_bytes};
use interceptor_core::command::Process;
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;

use crate::kernel::{TaskProbe, cgroup_mount_point};
use cgroup::Cgroups;
pub(crate) use cgroup::cgroup_path;
use executable::{FileHash, Hashes};

/// How long a session waits for what `/proc` and the executable's file say.
const READ_WAIT_MAX: Duration = Duration::from_secs(3);

/// Processes that are looked at at the same time. A process can make whoever reads its memory wait
/// for ever, so more than this wait or go without.
const READERS_MAX: usize = 64;

/// Bytes of a command line that are read; secrets are removed, and the rest cut, after that.
const RAW_BYTES_MAX: u64 = 64 * 1024;

/// From linux/magic.h, `FUSE_SUPER_MAGIC`: a program of any user answers for its files.
const FUSE: u64 = 0x6573_5546;
/// From linux/nsfs.h, `USER_NS_INIT_INO`: the first user namespace.
const FIRST_USERNS: u32 = 0xEFFF_FFFD;

/// The task that called `connect`, as the kernel saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelIdentity {
    found: Identity,
    is_own_netns: bool,
}

impl KernelIdentity {
    /// From the map's value, and the inode number of the gateway's own network namespace.
    pub(crate) fn new(found: Identity, own_netns: u32) -> Self {
        Self {
            found,
            is_own_netns: found.netns == own_netns,
        }
    }

    /// The id of the cgroup that the task was in.
    pub(crate) const fn cgroup_id(&self) -> u64 {
        self.found.cgroup
    }

    /// The address that it asked for.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(
            address_from_bytes(self.found.destination),
            self.found.destination_port,
        )
    }

    /// The thread's name.
    pub fn comm(&self) -> String {
        text(&self.found.comm)
    }

    /// What the kernel alone says.
    fn process(&self) -> Process {
        let found = &self.found;
        Process {
            uid: found.uid,
            gid: found.gid,
            pid: found.tgid,
            tid: found.tid,
            comm: self.comm(),
            started_unix_ns: started_unix_ns(found.started_boot_ns),
            netns: (found.netns != 0).then_some(found.netns),
            is_own_netns: self.is_own_netns,
            ..Process::default()
        }
    }

    /// Whether the process is the one that connected, and runs the program that connected.
    fn is_still(&self, now: &TaskNow) -> bool {
        let Identity {
            started_boot_ns,
            exec_count,
            address_space,
            ..
        } = self.found;
        // While a program is being executed, the memory is the new one's and the count the old one's.
        started_boot_ns != 0
            && address_space != 0
            && (started_boot_ns, exec_count, address_space)
                == (now.started_boot_ns, now.exec_count, now.address_space)
    }
}

/// Finds out who a client is. Clones share what is remembered.
#[derive(Debug, Clone)]
pub struct Identifier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    probe: TaskProbe,
    mount: Option<PathBuf>,
    cgroups: Cgroups,
    hashes: Hashes,
    readers: Arc<Semaphore>,
}

impl Identifier {
    /// Asks the kernel through `probe`.
    pub fn new(probe: TaskProbe) -> Self {
        Self {
            inner: Arc::new(Inner {
                probe,
                mount: cgroup_mount_point().ok(),
                cgroups: Cgroups::default(),
                hashes: Hashes::default(),
                readers: Arc::new(Semaphore::new(READERS_MAX)),
            }),
        }
    }

    /// All that is known of the process, within [`READ_WAIT_MAX`]. Files are read on the runtime's
    /// threads for blocking work. Cancel-safe: a reading that nobody waits for ends by itself.
    pub async fn process(&self, identity: KernelIdentity) -> Process {
        let known = identity.process();
        let readers = Arc::clone(&self.inner.readers);
        let inner = Arc::clone(&self.inner);
        let reading = async move {
            let permit = readers.acquire_owned().await.ok()?;
            // The permit goes when the reading has ended, not when nobody waits for it any more.
            tokio::task::spawn_blocking(move || {
                let process = inner.read(&identity);
                drop(permit);
                process
            })
            .await
            .ok()
        };
        match tokio::time::timeout(READ_WAIT_MAX, reading).await {
            Ok(Some(process)) => process,
            _ => {
                tracing::warn!(
                    pid = known.pid,
                    "a client's process could not be looked at in time: its program is unknown"
                );
                known
            }
        }
    }

    /// The same, by the calling thread, which waits for as long as it takes.
    pub fn process_blocking(&self, identity: &KernelIdentity) -> Process {
        self.inner.read(identity)
    }
}

impl Inner {
    fn read(&self, identity: &KernelIdentity) -> Process {
        let mut process = identity.process();
        if let Some(mount) = &self.mount {
            let facts = self.cgroups.facts(identity.found.cgroup, mount);
            process.cgroup = facts.path;
            process.container = facts.names.container;
            process.pod = facts.names.pod;
            process.unit = facts.names.unit;
        }
        let Some(program) = self.program(identity.found.tgid) else {
            return process;
        };
        // Last: what was read before is only worth something if nothing has changed until here.
        let Ok(Some(now)) = self.probe.now(identity.found.tgid) else {
            return process;
        };
        if !identity.is_still(&now) {
            return process;
        }
        let is_trusted = now.executable_magic != FUSE && now.executable_userns == FIRST_USERNS;
        process.command_line = program.command_line;
        process.executable_sha256 = program.hash.filter(|_| is_trusted);
        if program.is_here {
            process.executable = Some(program.path);
        } else {
            process.executable_elsewhere = Some(program.path);
        }
        process
    }

    fn program(&self, pid: u32) -> Option<Program> {
        // An open directory of /proc stays with its process: if the number goes to another
        // meanwhile, reading below it fails.
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = Dir::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok()?;
        let open = |name: &str| {
            openat(
                &process,
                name,
                OFlag::O_RDONLY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .map(File::from)
        };
        let path = readlinkat(&process, "exe").ok()?.into_string().ok()?;
        let file = open("exe").ok()?;
        let mut raw = Vec::new();
        let command_line = open("cmdline")
            .ok()
            .and_then(|file| file.take(RAW_BYTES_MAX).read_to_end(&mut raw).ok())
            .and_then(|_| command_line::readable(&raw));
        Some(Program {
            is_here: executable::is_here(Path::new(&path), &file),
            path,
            hash: self.hashes.hash(&file),
            command_line,
        })
    }
}

/// What `/proc` says of a process.
struct Program {
    path: String,
    is_here: bool,
    hash: FileHash,
    command_line: Option<String>,
}

/// When a process started that did so at this time since boot.
fn started_unix_ns(started_boot_ns: u64) -> Option<u64> {
    let ns = |clock| {
        let time = clock_gettime(clock).ok()?;
        let seconds = u64::try_from(time.tv_sec()).ok()?;
        seconds
            .checked_mul(1_000_000_000)?
            .checked_add(u64::try_from(time.tv_nsec()).ok()?)
    };
    let age = ns(ClockId::CLOCK_BOOTTIME)?.checked_sub(started_boot_ns)?;
    (started_boot_ns != 0)
        .then(|| ns(ClockId::CLOCK_REALTIME)?.checked_sub(age))
        .flatten()
}

/// The text before the first zero byte; a task can name itself anything.
fn text(bytes: &[u8]) -> String {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            started_boot_ns: 5,
            exec_count: 6,
            address_space: 7,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    #[test]
    fn a_process_is_the_same_only_if_nothing_changed() {
        let same = TaskNow {
            started_boot_ns: 5,
            exec_count: 6,
            address_space: 7,
            executable_magic: 0,
            executable_userns: 0,
            reserved: 0,
        };
        let still = |found: Identity, now: TaskNow| KernelIdentity::new(found, 1).is_still(&now);
        assert!(still(identity(), same));
        for other in [
            TaskNow {
                started_boot_ns: 8,
                ..same
            },
            TaskNow {
                exec_count: 8,
                ..same
            },
            TaskNow {
                address_space: 8,
                ..same
            },
            TaskNow {
                address_space: 0,
                ..same
            },
        ] {
            assert!(!still(identity(), other));
        }
        let unknown = Identity {
            address_space: 0,
            ..identity()
        };
        assert!(!still(
            unknown,
            TaskNow {
                address_space: 0,
                ..same
            }
        ));
    }

    #[test]
    fn a_start_is_in_the_past() {
        let started = started_unix_ns(1_000_000_000).unwrap();
        assert!(started < crate::audit::json::now_unix_ns());
        assert_eq!(started_unix_ns(0), None);
        assert_eq!(started_unix_ns(u64::MAX), None);
    }
}
