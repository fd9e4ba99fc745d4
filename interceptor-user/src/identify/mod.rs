//! Who a local client is: what the kernel saw at `connect`, joined with what `/proc` says now.
//!
//! Must not guess: a process that is gone, or another with its number, leaves the field empty, and
//! policy decides on "unknown". What `/proc` shows is of the moment of the look, so a process that
//! ran another program since it connected shows that one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use interceptor_core::command::Process;
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use crate::kernel::cgroup_mount_point;

/// The task that called `connect`, as the kernel saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelIdentity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name.
    pub comm: String,
    /// Id of the task's cgroup.
    pub cgroup_id: u64,
    /// When, in nanoseconds since boot.
    pub connected_boot_ns: u64,
    /// The address that it asked for.
    pub destination: SocketAddr,
}

impl KernelIdentity {
    /// Adds what is known outside the kernel. Reads a few small files, which does not block for long.
    pub fn process(&self) -> Process {
        Process {
            uid: self.uid,
            gid: self.gid,
            pid: self.pid,
            comm: self.comm.clone(),
            executable: executable(self.pid, self.connected_boot_ns),
            cgroup: cgroup_mount_point().ok().and_then(|mount| cgroup_path(self.cgroup_id, &mount)),
        }
    }
}

/// The executable of the process, if it is the one that lived at `connected_boot_ns`.
fn executable(pid: u32, connected_boot_ns: u64) -> Option<String> {
    // An open directory of /proc stays with its process: if the number goes to another meanwhile,
    // reading below it fails.
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let process = Dir::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok()?;
    let stat = openat(&process, "stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(stat).read_to_string(&mut text).ok()?;
    if start_boot_ns(&text, ticks_per_second()?)? > connected_boot_ns {
        return None;
    }
    readlinkat(&process, "exe").ok()?.into_string().ok()
}

/// When a process started, from its `stat`: field 22, in clock ticks since boot (proc_pid_stat(5)).
fn start_boot_ns(stat: &str, ticks_per_second: u64) -> Option<u64> {
    // The second field is the name in parentheses, which may hold both blanks and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: u64 = rest.split(' ').nth(19)?.parse().ok()?;
    ticks.checked_mul(1_000_000_000)?.checked_div(ticks_per_second)
}

fn ticks_per_second() -> Option<u64> {
    // SAFETY: the call has no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()
}

/// A file handle of kernfs (linux/exportfs.h, `FILEID_KERNFS`): the cgroup's id and nothing else.
#[repr(C)]
struct CgroupHandle {
    handle_bytes: u32,
    handle_type: i32,
    id: u64,
}
const FILEID_KERNFS: i32 = 0xfe;

/// The path of a cgroup below the cgroup2 mount, with a leading slash; `None` where it is gone.
pub(crate) fn cgroup_path(id: u64, mount: &Path) -> Option<String> {
    let root = File::open(mount).ok()?;
    let mut handle = CgroupHandle { handle_bytes: 8, handle_type: FILEID_KERNFS, id };
    // SAFETY: the handle has the layout of `struct file_handle` with eight bytes after its head.
    let opened = unsafe {
        libc::open_by_handle_at(root.as_raw_fd(), (&raw mut handle).cast(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY)
    };
    if opened < 0 {
        return None;
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    let cgroup = unsafe { OwnedFd::from_raw_fd(opened) };
    let path = std::fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).ok()?;
    let below = path.strip_prefix(mount).ok()?;
    OsStr::from_bytes(&[b"/", below.as_os_str().as_bytes()].concat()).to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_after_a_hostile_name() {
        let fields = (4..=52).map(|field| if field == 22 { "1234".into() } else { field.to_string() });
        let stat = format!("7 (a) S b) S {}", fields.collect::<Vec<String>>().join(" "));
        assert_eq!(start_boot_ns(&stat, 100), Some(12_340_000_000));
    }

    #[test]
    fn this_process_has_an_executable_that_a_younger_one_would_not() {
        let executable_now = std::env::current_exe().unwrap();
        let found = executable(std::process::id(), u64::MAX);
        assert_eq!(found.as_deref(), executable_now.to_str());
        assert_eq!(executable(std::process::id(), 0), None);
    }
}
