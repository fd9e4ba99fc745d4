//! The packet programs as tc filters, where the kernel has no tcx (before Linux 6.6).
//!
//! A filter belongs to its device: it outlives the proxy without a pin, and goes with the device. It
//! is ours by its place (priority and handle) and by the name of its program; what others have on the
//! device is left alone. A new program takes the old one's place in one step.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::Program;
use libbpf_rs::libbpf_sys::{
    BPF_TC_EGRESS, BPF_TC_F_REPLACE, BPF_TC_INGRESS, bpf_prog_get_info_by_fd, bpf_prog_info,
    bpf_tc_attach, bpf_tc_attach_point, bpf_tc_detach, bpf_tc_hook, bpf_tc_hook_create,
    bpf_tc_hook_destroy, bpf_tc_opts, bpf_tc_query,
};
use nix::net::if_::{Interface, if_nameindex};

use super::device::Device;
use super::tool::Tool;
use super::{KernelError, feature, object};

/// First in line. Among filters of one priority the newest comes first.
const PRIORITY: u32 = 1;
/// Tells our filter from others of the same priority.
const HANDLE: u32 = 15001;
/// What the names of our programs begin with.
const NAMES: [&str; 2] = ["ingress_", "egress_"];

/// The direction of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    const fn attach_point(self) -> bpf_tc_attach_point {
        match self {
            Self::Ingress => BPF_TC_INGRESS,
            Self::Egress => BPF_TC_EGRESS,
        }
    }
}

/// One of our filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) device: String,
    pub(super) index: u32,
    pub(super) direction: Direction,
    pub(super) program_id: u32,
}

/// Attaches a program to a device, or exchanges it for the one that is there.
pub(super) fn attach(
    bpffs: &Path,
    index: u32,
    direction: Direction,
    program: &OwnedFd,
) -> io::Result<()> {
    create_qdisc(bpffs, index)?;
    let mut options = options();
    options.prog_fd = program.as_raw_fd();
    match occupant(index, direction) {
        Ok(id) if is_ours(id) => options.flags = BPF_TC_F_REPLACE,
        Ok(_) => return Err(taken()),
        // Nobody, or a classic filter, which has no program: the kernel refuses to replace it.
        Err(_) => {}
    }
    let hook = hook(index, direction.attach_point())?;
    // SAFETY: both live until the call returns.
    match check(unsafe { bpf_tc_attach(&raw const hook, &raw mut options) }) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken()),
        done => done,
    }
}

fn taken() -> io::Error {
    io::Error::other(format!(
        "another program has the tc filter of priority {PRIORITY} and handle {HANDLE:#x}"
    ))
}

/// The filters of this plane in this network namespace.
pub(super) fn list() -> Result<Vec<Filter>, KernelError> {
    let mut filters = Vec::new();
    if feature::has_tcx() {
        return Ok(filters);
    }
    object::take_libbpf_messages();
    for (index, device) in names()? {
        for direction in Direction::BOTH {
            let program_id = match occupant(index, direction) {
                Ok(id) if is_ours(id) => id,
                Err(error) if !is_absence(&error) => {
                    return Err(failed(&device, direction)(error));
                }
                Ok(_) | Err(_) => continue,
            };
            filters.push(Filter {
                device: device.clone(),
                index,
                direction,
                program_id,
            });
        }
    }
    Ok(filters)
}

/// Removes this plane's filters, and the qdiscs that it made if nobody else uses them by now.
pub(super) fn remove_all(bpffs: &Path) -> Result<(), KernelError> {
    remove_others(bpffs, &[])
}

/// The same on every device but these.
pub(super) fn remove_others(bpffs: &Path, devices: &[Device]) -> Result<(), KernelError> {
    let is_other = |index: u32| devices.iter().all(|device| device.index != index);
    for filter in list()?.iter().filter(|filter| is_other(filter.index)) {
        detach(filter.index, filter.direction).map_err(failed(&filter.device, filter.direction))?;
    }
    let Ok(marks) = fs::read_dir(qdisc_directory(bpffs)) else {
        return Ok(()); // There is none where the kernel has tcx.
    };
    let names = names()?;
    for mark in marks.flatten() {
        let index = mark.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(index) = index.filter(|index| is_other(*index)) else {
            continue;
        };
        // The index of a device that is gone may be another's one day.
        if let Some(name) = names.get(&index) {
            remove_qdisc(index, name)?;
        }
        fs::remove_dir(mark.path()).map_err(KernelError::file("remove", mark.path()))?;
    }
    Ok(())
}

/// Removes our filter of one direction from a device, if it is there.
pub(super) fn remove(device: &Device, direction: Direction) -> Result<(), KernelError> {
    match occupant(device.index, direction) {
        Ok(id) if is_ours(id) => {
            detach(device.index, direction).map_err(failed(&device.name, direction))
        }
        _ => Ok(()),
    }
}

fn detach(index: u32, direction: Direction) -> io::Result<()> {
    let (hook, options) = (hook(index, direction.attach_point())?, options());
    // SAFETY: both live until the call returns.
    match check(unsafe { bpf_tc_detach(&raw const hook, &raw const options) }) {
        Err(error) if !is_absence(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Makes the qdisc that filters hang on. A mark says that it was not there before.
fn create_qdisc(bpffs: &Path, index: u32) -> io::Result<()> {
    let mark = qdisc_mark(bpffs, index);
    let was_marked = mark.exists();
    // Before the qdisc, so that none of ours is ever without one.
    fs::create_dir_all(&mark)?;
    let mut hook = hook(index, BPF_TC_INGRESS)?;
    // SAFETY: the hook lives until the call returns.
    let created = check(unsafe { bpf_tc_hook_create(&raw mut hook) });
    if created.is_err() && !was_marked {
        let _ = fs::remove_dir(&mark);
    }
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

fn remove_qdisc(index: u32, device: &str) -> Result<(), KernelError> {
    for direction in Direction::BOTH {
        let arguments = ["-json", "filter", "show", "dev", device, direction.name()];
        let output = Tool::Tc.run(&arguments, "")?;
        let filters: Vec<serde_json::Value> = serde_json::from_slice(&output).unwrap_or_default();
        if !filters.is_empty() {
            return Ok(()); // Somebody came to use it too.
        }
    }
    let destroyed = hook(index, BPF_TC_INGRESS | BPF_TC_EGRESS)
        // SAFETY: the hook lives until the call returns.
        .and_then(|mut hook| check(unsafe { bpf_tc_hook_destroy(&raw mut hook) }));
    match destroyed {
        Err(error) if !is_absence(&error) => Err(failed(device, Direction::Ingress)(error)),
        _ => Ok(()),
    }
}

/// The program in our place, whoever's it is.
fn occupant(index: u32, direction: Direction) -> io::Result<u32> {
    let hook = hook(index, direction.attach_point())?;
    let mut options = options();
    // SAFETY: both live until the call returns.
    check(unsafe { bpf_tc_query(&raw const hook, &raw mut options) })?;
    Ok(options.prog_id)
}

/// No filter, no qdisc, or no device any more.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)
    )
}

fn is_ours(program_id: u32) -> bool {
    let Ok(program) = Program::fd_from_id(program_id) else {
        return false;
    };
    let mut info = bpf_prog_info::default();
    let mut size = size_of::<bpf_prog_info>() as u32;
    // SAFETY: the descriptor is open and the struct has the size that is given.
    let result =
        unsafe { bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) };
    let name: Vec<u8> = info
        .name
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| byte.cast_unsigned())
        .collect();
    result == 0 && NAMES.iter().any(|begin| name.starts_with(begin.as_bytes()))
}

fn options() -> bpf_tc_opts {
    bpf_tc_opts {
        sz: size_of::<bpf_tc_opts>() as u64,
        handle: HANDLE,
        priority: PRIORITY,
        ..Default::default()
    }
}

fn hook(index: u32, attach_point: bpf_tc_attach_point) -> io::Result<bpf_tc_hook> {
    Ok(bpf_tc_hook {
        sz: size_of::<bpf_tc_hook>() as u64,
        ifindex: i32::try_from(index).map_err(io::Error::other)?,
        attach_point,
        ..Default::default()
    })
}

/// libbpf returns the negative error number.
fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(())
    }
}

/// Every device of this network namespace by its index.
fn names() -> Result<BTreeMap<u32, String>, KernelError> {
    let list = if_nameindex().map_err(|errno| KernelError::ToolFailed {
        command: "if_nameindex".into(),
        message: errno.to_string(),
    })?;
    let named = |interface: &Interface| {
        let name = interface.name().to_string_lossy().into_owned();
        (interface.index(), name)
    };
    Ok(list.iter().map(named).collect())
}

fn qdisc_directory(bpffs: &Path) -> PathBuf {
    bpffs.join("qdiscs")
}

/// A directory, as a BPF file system has nothing simpler.
fn qdisc_mark(bpffs: &Path, index: u32) -> PathBuf {
    qdisc_directory(bpffs).join(index.to_string())
}

fn failed(device: &str, direction: Direction) -> impl FnOnce(io::Error) -> KernelError {
    let (program, place) = (
        format!("the tc {} filter", direction.name()),
        device.to_owned(),
    );
    move |source| KernelError::Attach {
        program,
        place,
        source,
    }
}
