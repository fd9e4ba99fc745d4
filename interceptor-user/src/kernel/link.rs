//! Attaching programs by pinned links, which outlive the proxy.
//!
//! Where a link is pinned already, its program is exchanged in place (`BPF_LINK_UPDATE`), so that a
//! restart or an upgrade has no moment without enforcement.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use libbpf_rs::Link;
use libbpf_rs::libbpf_sys::{
    BPF_CGROUP_INET_SOCK_CREATE, BPF_CGROUP_INET4_BIND, BPF_CGROUP_INET4_CONNECT,
    BPF_CGROUP_INET6_BIND, BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_SETSOCKOPT, BPF_CGROUP_SOCK_OPS,
    BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG, BPF_CGROUP_UNIX_CONNECT, BPF_F_BEFORE,
    BPF_SK_LOOKUP, BPF_TCX_EGRESS, BPF_TCX_INGRESS, bpf_attach_type, bpf_link_create,
    bpf_link_create_opts, bpf_link_update, bpf_obj_pin,
};
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use nix::net::if_::if_indextoname;

use super::KernelError;
use super::cgroup::Cgroup;
use super::device::{Device, Framing};
use super::feature;
use super::filter::{self, Direction};
use super::object::Programs;

/// The cgroup programs by name, in the order in which they are attached: a socket of the proxy must
/// be known before `connect` asks.
const CGROUP_PROGRAMS: [(&str, bpf_attach_type); 9] = [
    ("sock_create", BPF_CGROUP_INET_SOCK_CREATE),
    ("handshake", BPF_CGROUP_SOCK_OPS),
    ("connect4", BPF_CGROUP_INET4_CONNECT),
    ("connect6", BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", BPF_CGROUP_UDP6_SENDMSG),
    ("bind4", BPF_CGROUP_INET4_BIND),
    ("bind6", BPF_CGROUP_INET6_BIND),
    ("setsockopt", BPF_CGROUP_SETSOCKOPT),
];

/// Directory of the link pins below the pin directory.
pub(super) fn directory(bpffs: &Path) -> PathBuf {
    bpffs.join("links")
}

/// What a program is attached to.
enum Place<'a> {
    Cgroup {
        descriptor: BorrowedFd<'a>,
        id: u64,
    },
    Device {
        index: u32,
    },
    Namespace {
        descriptor: BorrowedFd<'a>,
        inode: u32,
    },
}

/// The network namespace that this process is in.
const NAMESPACE: &str = "/proc/self/ns/net";
/// Answers for the listener where a connection in TIME_WAIT is used anew.
const NAMESPACE_PROGRAM: &str = "answer_reuse";

/// Programs that a kernel may lack; the plane says so and does without.
const OPTIONAL_PROGRAMS: [(&str, bpf_attach_type); 1] = [("connect_unix", BPF_CGROUP_UNIX_CONNECT)];

/// A link that has to be there.
pub(super) struct WantedLink {
    /// The name of its pin.
    pub(super) pin: String,
    pub(super) program: &'static str,
    attach_type: bpf_attach_type,
    /// The id of its cgroup, the index of its device, or its namespace's inode.
    pub(super) place: u64,
}

impl WantedLink {
    pub(super) fn is_on_device(&self) -> bool {
        [BPF_TCX_INGRESS, BPF_TCX_EGRESS].contains(&self.attach_type)
    }
}

/// The names of the programs that are on no device, which are those of their pins.
pub(super) fn other_programs() -> impl Iterator<Item = &'static str> {
    let names = CGROUP_PROGRAMS.into_iter().map(|(name, _)| name);
    names.chain([NAMESPACE_PROGRAM])
}

/// Every link that has to be there.
pub(super) fn wanted(programs: &Programs, cgroup: &Cgroup, devices: &[Device]) -> Vec<WantedLink> {
    // Without its cgroup no link can be right, and zero is the place of a detached one.
    let place = Cgroup::id(&cgroup.attach).unwrap_or(u64::MAX);
    let of_cgroup =
        CGROUP_PROGRAMS
            .into_iter()
            .chain(OPTIONAL_PROGRAMS)
            .map(|(program, attach_type)| WantedLink {
                pin: program.to_owned(),
                program,
                attach_type,
                place,
            });
    let of_devices = devices.iter().flat_map(|device| {
        hooks(device)
            .into_iter()
            .filter(|(_, _, direction)| !device.is_member || *direction == Direction::Egress)
            .map(|(program, attach_type, direction)| WantedLink {
                pin: format!("{}_{}", direction.name(), device.index),
                program,
                attach_type,
                place: u64::from(device.index),
            })
    });
    let namespace = fs::metadata(NAMESPACE).map_or(u64::MAX, |metadata| metadata.ino());
    let of_namespace = WantedLink {
        pin: NAMESPACE_PROGRAM.to_owned(),
        program: NAMESPACE_PROGRAM,
        attach_type: BPF_SK_LOOKUP,
        place: namespace,
    };
    of_cgroup
        .chain(of_devices)
        .chain([of_namespace])
        .filter(|wanted| programs.descriptors.contains_key(wanted.program))
        .collect()
}

/// The pinned links, by name.
pub(super) fn pinned(directory: &Path) -> Result<Vec<(String, LinkInfo)>, KernelError> {
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
        links.push((entry.file_name().to_string_lossy().into_owned(), info));
    }
    links.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(links)
}

/// Attaches a program that is not attached yet first in line, in the place of the pinned link.
pub(super) fn attach_first(
    bpffs: &Path,
    program: &OwnedFd,
    wanted: &WantedLink,
) -> Result<(), KernelError> {
    let failed = |source| KernelError::Attach {
        program: wanted.program.into(),
        place: wanted.pin.clone(),
        source,
    };
    let index = u32::try_from(wanted.place).map_err(|error| failed(io::Error::other(error)))?;
    let link = create(program, wanted.attach_type, &Place::Device { index }).map_err(failed)?;
    let pin = directory(bpffs).join(&wanted.pin);
    remove_pin(&pin)?;
    pin_link(&link, &pin).map_err(KernelError::file("pin a link at", pin))
}

/// Attaches the cgroup programs, and the namespace's.
pub(super) fn attach_cgroup(
    bpffs: &Path,
    programs: &Programs,
    cgroup: &Cgroup,
) -> Result<(), KernelError> {
    let directory = directory(bpffs);
    fs::create_dir_all(&directory).map_err(KernelError::file("create", &directory))?;
    let opened =
        fs::File::open(&cgroup.attach).map_err(KernelError::file("open", &cgroup.attach))?;
    let id = Cgroup::id(&cgroup.attach)?;
    let optional = OPTIONAL_PROGRAMS
        .into_iter()
        .filter(|(name, _)| programs.descriptors.contains_key(*name));
    for (name, attach_type) in CGROUP_PROGRAMS.into_iter().chain(optional) {
        let place = Place::Cgroup {
            descriptor: opened.as_fd(),
            id,
        };
        let shown = cgroup.attach.display().to_string();
        attach_one(
            programs,
            name,
            attach_type,
            &place,
            &shown,
            &directory.join(name),
        )?;
    }
    attach_namespace(programs, &directory)
}

/// Attaches ingress and the guard to each device. One that vanishes meanwhile is no error.
pub(super) fn attach_devices<'a>(
    bpffs: &Path,
    programs: &Programs,
    devices: impl Iterator<Item = &'a Device>,
) -> Result<(), KernelError> {
    let directory = directory(bpffs);
    for device in devices {
        let result = attach_device(programs, device, &directory);
        if if_indextoname(device.index).is_ok() {
            result?;
        }
    }
    Ok(())
}

fn attach_namespace(programs: &Programs, directory: &Path) -> Result<(), KernelError> {
    let failed = |source| KernelError::file("open", NAMESPACE)(source);
    let opened = fs::File::open(NAMESPACE).map_err(failed)?;
    let inode = opened.metadata().map_err(failed)?.ino();
    let place = Place::Namespace {
        descriptor: opened.as_fd(),
        inode: u32::try_from(inode).unwrap_or_default(),
    };
    attach_one(
        programs,
        NAMESPACE_PROGRAM,
        BPF_SK_LOOKUP,
        &place,
        NAMESPACE,
        &directory.join(NAMESPACE_PROGRAM),
    )
}

fn attach_device(
    programs: &Programs,
    device: &Device,
    directory: &Path,
) -> Result<(), KernelError> {
    for (name, attach_type, direction) in hooks(device) {
        // By index: a name can change, and bpffs allows no dots, which names may have.
        let pin = directory.join(format!("{}_{}", direction.name(), device.index));
        // A frame that a bridge passes on must not carry a socket of this host; what the bridge
        // itself receives comes by the bridge's device.
        if device.is_member && direction == Direction::Ingress {
            if feature::has_tcx() {
                detach(&pin)?;
            } else {
                filter::remove(device, direction)?;
            }
            continue;
        }
        if !feature::has_tcx() {
            attach_filter(programs, name, device, direction, directory)?;
            continue;
        }
        let place = Place::Device {
            index: device.index,
        };
        attach_one(programs, name, attach_type, &place, &device.name, &pin)?;
    }
    Ok(())
}

/// For a kernel without tcx.
fn attach_filter(
    programs: &Programs,
    name: &str,
    device: &Device,
    direction: Direction,
    links: &Path,
) -> Result<(), KernelError> {
    let failed = |source| KernelError::Attach {
        program: name.into(),
        place: device.name.clone(),
        source,
    };
    let program = programs
        .descriptors
        .get(name)
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let bpffs = links.parent().unwrap_or(links);
    filter::attach(bpffs, device.index, direction, program).map_err(failed)
}

/// A device's programs: name, hook and direction.
fn hooks(device: &Device) -> [(&'static str, bpf_attach_type, Direction); 2] {
    let (ingress, egress) = match device.framing {
        Framing::Ether => ("ingress_ether", "egress_ether"),
        Framing::Ip => ("ingress_ip", "egress_ip"),
        Framing::Loopback => ("ingress_lo", "egress_lo"),
    };
    [
        (ingress, BPF_TCX_INGRESS, Direction::Ingress),
        (egress, BPF_TCX_EGRESS, Direction::Egress),
    ]
}

fn attach_one(
    programs: &Programs,
    name: &str,
    attach_type: bpf_attach_type,
    place: &Place<'_>,
    shown: &str,
    pin: &Path,
) -> Result<(), KernelError> {
    let failed = |source| KernelError::Attach {
        program: name.into(),
        place: shown.into(),
        source,
    };
    let program = programs
        .descriptors
        .get(name)
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    match pinned_at(pin, place)? {
        Some(link) => update(&link, program).map_err(failed),
        None => {
            // The new link works before the old pin goes.
            let link = create(program, attach_type, place).map_err(failed)?;
            remove_pin(pin)?;
            pin_link(&link, pin).map_err(KernelError::file("pin a link at", pin))
        }
    }
}

/// The pinned link, if it is still attached to this place: a device or cgroup that was made anew has
/// another id, and a link whose device is gone has none.
fn pinned_at(pin: &Path, place: &Place<'_>) -> Result<Option<Link>, KernelError> {
    if !pin.exists() {
        return Ok(None);
    }
    let stale = |error: libbpf_rs::Error| KernelError::StalePins {
        path: pin.into(),
        detail: error.to_string(),
    };
    let link = Link::open(pin).map_err(stale)?;
    let is_same = match (link.info().map_err(stale)?.info, place) {
        (LinkTypeInfo::Cgroup(info), Place::Cgroup { id, .. }) => info.cgroup_id == *id,
        (LinkTypeInfo::Tcx(info), Place::Device { index }) => info.ifindex == *index,
        (LinkTypeInfo::NetNs(info), Place::Namespace { inode, .. }) => info.ino == *inode,
        _ => false,
    };
    Ok(is_same.then_some(link))
}

/// Takes the programs away from devices that are not ours to guard any more. One that vanished took
/// them with it; one that moved to another namespace, as a container's does, has them still, and
/// would drop there what it should bring to us.
pub(super) fn detach_others(bpffs: &Path, devices: &[Device]) -> Result<(), KernelError> {
    let directory = directory(bpffs);
    for entry in fs::read_dir(&directory)
        .map_err(KernelError::file("read", &directory))?
        .flatten()
    {
        let name = entry.file_name();
        let index = name
            .to_str()
            .and_then(|name| name.split_once('_'))
            .filter(|(direction, _)| ["ingress", "egress"].contains(direction))
            .and_then(|(_, index)| index.parse::<u32>().ok());
        if index.is_some_and(|index| devices.iter().all(|device| device.index != index)) {
            detach(&entry.path())?;
        }
    }
    filter::remove_others(bpffs, devices)
}

/// Takes a program away, if it is there.
fn detach(pin: &Path) -> Result<(), KernelError> {
    if let Ok(link) = Link::open(pin) {
        // One whose device is gone cannot be detached, and need not be.
        let _ = link.detach();
    }
    remove_pin(pin)
}

fn remove_pin(pin: &Path) -> Result<(), KernelError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::file("remove", pin)(error))
        }
        _ => Ok(()),
    }
}

fn create(
    program: &OwnedFd,
    attach_type: bpf_attach_type,
    place: &Place<'_>,
) -> io::Result<OwnedFd> {
    let mut options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as u64,
        ..Default::default()
    };
    let target = match place {
        Place::Cgroup { descriptor, .. } | Place::Namespace { descriptor, .. } => {
            descriptor.as_raw_fd()
        }
        Place::Device { index } => {
            // First in line: an earlier program that says OK would end the chain.
            options.flags = BPF_F_BEFORE;
            i32::try_from(*index).map_err(io::Error::other)?
        }
    };
    // SAFETY: both descriptors are open and the options live until the call returns.
    let link =
        unsafe { bpf_link_create(program.as_raw_fd(), target, attach_type, &raw const options) };
    if link < 0 {
        return Err(io::Error::from_raw_os_error(-link));
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

fn update(link: &Link, program: &OwnedFd) -> io::Result<()> {
    // SAFETY: both descriptors are open; no options means that any old program is replaced.
    check(unsafe {
        bpf_link_update(
            link.as_fd().as_raw_fd(),
            program.as_raw_fd(),
            std::ptr::null(),
        )
    })
}

fn pin_link(link: &OwnedFd, pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // SAFETY: the descriptor is open and the path ends in a zero byte.
    check(unsafe { bpf_obj_pin(link.as_raw_fd(), path.as_ptr()) })
}

/// libbpf returns the negative error number.
fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(())
    }
}
