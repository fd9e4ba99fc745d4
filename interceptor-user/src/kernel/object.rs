//! The embedded objects: loading them, and sharing their maps.
//!
//! libbpf goes first: it makes and pins the maps, or takes over pinned ones after comparing them
//! with their definition. aya then binds its programs to the same pins.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use libbpf_rs::{MapCore as _, MapHandle, ObjectBuilder, OpenObject, PrintLevel, set_print};

use super::{KernelError, maps};

static GUARD_OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard.bpf.o"));
static IDENTIFY_OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/identify.bpf.o"));
static UNIX_OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/unix.bpf.o"));
static CGROUP_OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/cgroup.o"));

/// The maps that aya's programs share. Their names are the pins'.
const SHARED: [&str; 7] = [
    "targets",
    "ports",
    "config",
    "verdicts",
    "listener",
    "exempt",
    "connecting",
];

/// The loaded programs.
#[derive(Debug)]
pub(super) struct Programs {
    /// By name.
    pub(super) descriptors: BTreeMap<String, OwnedFd>,
}

/// What [`load`] gives.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    /// The iterator over tasks, which is read and never attached.
    pub(super) task: OwnedFd,
    /// aya's object, for the log ring of the cgroup programs.
    pub(super) log: Ebpf,
}

/// Loads the objects, with their maps pinned under `bpffs`.
pub(super) fn load(bpffs: &Path) -> Result<Loaded, KernelError> {
    let directory = maps::directory(bpffs);
    std::fs::create_dir_all(&directory).map_err(KernelError::file("create", &directory))?;
    let mut descriptors = load_guard(&directory)?;
    let mut identify = load_c("identify", IDENTIFY_OBJECT, &directory)?;
    let task = identify
        .remove("task")
        .ok_or_else(|| load_error("identify", "the object lacks the program `task`"))?;
    descriptors.extend(identify);
    descriptors.extend(load_optional("unix", UNIX_OBJECT, &directory));
    let mut cgroup = load_cgroup(&directory)?;
    for (name, program) in cgroup.programs_mut() {
        let name = name.to_owned();
        let descriptor = load_program(program).map_err(|error| load_error("cgroup", error))?;
        descriptors.insert(name, descriptor);
    }
    Ok(Loaded {
        programs: Programs { descriptors },
        task,
        log: cgroup,
    })
}

/// Loads the programs of devices anew, with the maps that are pinned in `directory`.
pub(super) fn load_guard(directory: &Path) -> Result<BTreeMap<String, OwnedFd>, KernelError> {
    load_c("guard", GUARD_OBJECT, directory)
}

/// What a kernel may lack; whoever needs it says that it is missing.
pub(super) fn optional<T>(load: impl FnOnce() -> T) -> T {
    IS_OPTIONAL.store(true, Ordering::Relaxed);
    let loaded = load();
    IS_OPTIONAL.store(false, Ordering::Relaxed);
    loaded
}

fn load_optional(name: &'static str, bytes: &[u8], directory: &Path) -> BTreeMap<String, OwnedFd> {
    optional(|| load_c(name, bytes, directory)).unwrap_or_else(|error| {
        tracing::debug!(target: "interceptor::kernel", %error, "the {name} programs are left out");
        BTreeMap::new()
    })
}

/// Opens an object in C whose pinned maps are in `directory`.
pub(super) fn open_c(bytes: &[u8], directory: &Path) -> Result<OpenObject, libbpf_rs::Error> {
    take_libbpf_messages();
    ObjectBuilder::default()
        .name("interceptor")
        .and_then(|builder| builder.pin_root_path(directory))
        .and_then(|builder| builder.open_memory(bytes))
}

fn load_c(
    name: &'static str,
    bytes: &[u8],
    directory: &Path,
) -> Result<BTreeMap<String, OwnedFd>, KernelError> {
    let failed = |error: libbpf_rs::Error| load_error(name, error);
    let mut open = open_c(bytes, directory).map_err(failed)?;
    check_pins(&mut open, directory)?;
    let object = open.load().map_err(failed)?;
    object
        .progs()
        .map(|program| {
            let program_name = program.name().to_string_lossy().into_owned();
            let descriptor = program.as_fd().try_clone_to_owned();
            descriptor
                .map(|descriptor| (program_name, descriptor))
                .map_err(|error| load_error(name, error))
        })
        .collect()
}

/// A pinned map of another shape is another version's.
fn check_pins(open: &mut OpenObject, directory: &Path) -> Result<(), KernelError> {
    for map in open.maps() {
        let path = directory.join(map.name());
        if !path.exists() {
            continue;
        }
        let stale = |detail| KernelError::StalePins {
            path: path.clone(),
            detail,
        };
        let pinned =
            MapHandle::from_pinned_path(&path).map_err(|error| stale(error.to_string()))?;
        let is_same = pinned.map_type() == map.map_type()
            && pinned.key_size() == map.key_size()
            && pinned.value_size() == map.value_size()
            && pinned.max_entries() == map.max_entries();
        if !is_same {
            return Err(stale("its type or sizes differ".into()));
        }
    }
    Ok(())
}

fn load_cgroup(directory: &Path) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for name in SHARED {
        loader.map_pin_path(name, directory.join(name));
    }
    loader
        .load(CGROUP_OBJECT)
        .map_err(|error| load_error("cgroup", error))
}

fn load_program(program: &mut Program) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    match program {
        Program::CgroupSock(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSockopt(program) => program.load()?,
        Program::SockOps(program) => program.load()?,
        _ => return Err("the object holds a program of an unexpected type".into()),
    }
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

fn load_error(object: &'static str, error: impl Into<Box<dyn std::error::Error>>) -> KernelError {
    let error = error.into();
    // The loaders chain their causes; the last one is the kernel's.
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    // A verifier's account has many lines: all of them to the log, the last of them to the person.
    if detail.contains('\n') {
        tracing::debug!(target: "interceptor::kernel", "{detail}");
        detail = detail
            .lines()
            .rev()
            .take(5)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join(", ");
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    KernelError::Load {
        object,
        release: release.trim().to_owned(),
        detail,
    }
}

/// Whether what libbpf says now is about programs that may be missing.
static IS_OPTIONAL: AtomicBool = AtomicBool::new(false);

/// The verifier's words go to the log; libbpf would write them to standard error.
pub(super) fn take_libbpf_messages() {
    static PRINT: Once = Once::new();
    PRINT.call_once(|| {
        set_print(Some((PrintLevel::Warn, log_libbpf)));
    });
}

fn log_libbpf(_level: PrintLevel, message: String) {
    let message = message.trim_end();
    // netlink's words come with an error number, which whoever asked reports if it matters.
    let is_answer = message.contains("Kernel error message: ");
    if is_answer || IS_OPTIONAL.load(Ordering::Relaxed) {
        tracing::debug!(target: "interceptor::kernel", "{message}");
    } else {
        tracing::warn!(target: "interceptor::kernel", "{message}");
    }
}
