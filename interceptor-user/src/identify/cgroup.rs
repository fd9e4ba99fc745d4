//! What a cgroup's path says: the container, the pod, the systemd unit.
//!
//! A path is only as good as its directories: a user to whom a cgroup was delegated can name what is
//! below it after any container. So the path counts as far as its directories are root's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Cgroups that are remembered. An id is never used again, so an entry cannot be another's.
const CGROUPS_MAX: usize = 4096;

/// Writable for others than its owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What is known of a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CgroupFacts {
    /// Its path below the cgroup2 mount, with a leading slash.
    pub(super) path: Option<String>,
    /// What root's part of the path says.
    pub(super) names: Names,
}

/// What the names of directories say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Runtime and id, as in `docker://0123…`.
    pub(super) container: Option<String>,
    /// The Kubernetes pod's uid.
    pub(super) pod: Option<String>,
    /// The innermost systemd service or scope.
    pub(super) unit: Option<String>,
}

/// Facts by cgroup id.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    known: Mutex<HashMap<u64, CgroupFacts>>,
}

impl Cgroups {
    pub(super) fn facts(&self, id: u64, mount: &Path) -> CgroupFacts {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = lock().get(&id) {
            return facts.clone();
        }
        let Some(path) = cgroup_path(id, mount) else {
            return CgroupFacts::default();
        };
        let facts = CgroupFacts {
            names: names(roots_part(&path, mount)),
            path: Some(path),
        };
        let mut known = lock();
        if known.len() >= CGROUPS_MAX {
            known.clear();
        }
        known.insert(id, facts.clone());
        facts
    }
}

/// The beginning of the path up to the first directory that somebody else than root can fill.
fn roots_part<'a>(path: &'a str, mount: &Path) -> &'a str {
    let mut directory = mount.to_path_buf();
    let mut end = 0;
    for component in path.split('/').skip(1).filter(|name| !name.is_empty()) {
        directory.push(component);
        let is_roots = std::fs::metadata(&directory)
            .is_ok_and(|found| found.uid() == 0 && found.mode() & WRITABLE_BY_OTHERS == 0);
        if !is_roots {
            break;
        }
        end += 1 + component.len();
    }
    path.get(..end).unwrap_or_default()
}

/// Reads a path. The outermost container counts: what is inside it was named by its inhabitants.
fn names(path: &str) -> Names {
    let mut found = Names::default();
    let mut parent = "";
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if found.container.is_none() {
            found.container = container(parent, name);
            found.pod = found.pod.or_else(|| pod(name));
            if name.ends_with(".service") || name.ends_with(".scope") {
                found.unit = Some(name.to_owned());
            }
        }
        parent = name;
    }
    found
}

/// How runtimes name a container's scope with systemd as the cgroup manager, and without.
const PREFIXES: [(&str, &str); 5] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
];

fn container(parent: &str, name: &str) -> Option<String> {
    let plain = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = plain.strip_prefix(prefix)
            && is_id(id)
        {
            return Some(format!("{runtime}://{id}"));
        }
    }
    let runtime = match parent {
        "docker" => "docker",
        // Below a pod, a bare id is the container of whatever runtime the node has.
        _ if pod(parent).is_some() => "cri",
        _ => return None,
    };
    is_id(name).then(|| format!("{runtime}://{name}"))
}

/// 64 hexadecimal digits: the monitors beside containers (`libpod-conmon-…`) do not look so.
fn is_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// `pod<uid>`, or `kubepods-burstable-pod<uid, with underscores>.slice`.
fn pod(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.rsplit_once("-pod")?.1,
        Some(_) => return None,
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    uuid::Uuid::try_parse(&uid).is_ok().then_some(uid)
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
    let mut handle = CgroupHandle {
        handle_bytes: 8,
        handle_type: FILEID_KERNFS,
        id,
    };
    // SAFETY: the handle has the layout of `struct file_handle` with eight bytes after its head.
    let opened = unsafe {
        libc::open_by_handle_at(
            root.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_DIRECTORY,
        )
    };
    if opened < 0 {
        return None;
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    let cgroup = unsafe { OwnedFd::from_raw_fd(opened) };
    let path = std::fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).ok()?;
    let below = path.strip_prefix(mount).ok()?;
    OsStr::from_bytes(&[b"/", below.as_os_str().as_bytes()].concat())
        .to_str()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "5d8ae47f-6b5c-4a4f-9a8e-0123456789ab";

    fn path(template: &str) -> Names {
        names(
            &template
                .replace("ID", ID)
                .replace("POD", POD)
                .replace("P_D", &POD.replace('-', "_")),
        )
    }

    #[test]
    fn every_runtime_names_its_containers() {
        for (template, container, pod, unit) in [
            (
                "/system.slice/docker-ID.scope",
                "docker",
                false,
                "docker-ID.scope",
            ),
            ("/docker/ID", "docker", false, ""),
            ("/docker/ID/init", "docker", false, ""),
            (
                "/system.slice/nerdctl-ID.scope",
                "containerd",
                false,
                "nerdctl-ID.scope",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/cri-containerd-ID.scope",
                "containerd",
                true,
                "cri-containerd-ID.scope",
            ),
            (
                "/kubepods.slice/kubepods-podP_D.slice/crio-ID.scope",
                "cri-o",
                true,
                "crio-ID.scope",
            ),
            ("/kubepods/besteffort/podPOD/ID", "cri", true, ""),
            ("/kubepods/podPOD/crio-ID", "cri-o", true, ""),
            (
                "/machine.slice/libpod-ID.scope/container",
                "podman",
                false,
                "libpod-ID.scope",
            ),
            ("/libpod_parent/libpod-ID", "podman", false, ""),
        ] {
            let found = path(template);
            assert_eq!(
                found.container,
                Some(format!("{container}://{ID}")),
                "{template}"
            );
            assert_eq!(found.pod.is_some(), pod, "{template}");
            assert!(found.pod.is_none_or(|uid| uid == POD), "{template}");
            let unit = unit.replace("ID", ID);
            assert_eq!(found.unit.unwrap_or_default(), unit, "{template}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_none() {
        for template in [
            "/",
            "/user.slice/user-1000.slice/session-2.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/system.slice/docker-IDff.scope",
            "/system.slice/docker-0123.scope",
            "/elsewhere/ID",
            "/docker/ID0",
            "/system.slice/docker.service",
            "/podfoo/ID",
        ] {
            assert_eq!(path(template).container, None, "{template}");
        }
        let found = path("/system.slice/ssh.service/inner");
        assert_eq!(found.unit.as_deref(), Some("ssh.service"));
    }

    #[test]
    fn the_outermost_container_counts() {
        let inner = "f".repeat(64);
        let found = path(&format!(
            "/system.slice/docker-ID.scope/docker/{inner}/fake.service"
        ));
        assert_eq!(found.container, Some(format!("docker://{ID}")));
        assert_eq!(found.unit, Some(format!("docker-{ID}.scope")));
    }
}
