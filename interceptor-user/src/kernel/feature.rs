//! What the running kernel can do, found by asking it, never by its version.
//!
//! A probe loads a small program, or asks for what is attached; it attaches nothing. Must not know
//! who asks: the plane goes another way where a feature is missing, and `interceptor doctor` says
//! which.

use std::ffi::CString;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use libbpf_rs::btf::{Btf, types};
use libbpf_rs::libbpf_sys::{
    BPF_CGROUP_UNIX_CONNECT, BPF_FUNC_get_netns_cookie, BPF_FUNC_set_retval, BPF_FUNC_sk_assign,
    BPF_FUNC_sk_storage_get, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_TCX_INGRESS, bpf_func_id,
    bpf_insn, bpf_prog_load, bpf_prog_load_opts, bpf_prog_query_opts,
};
use libbpf_rs::{MapType, ProgramType};

use super::doctor::Check;

static HAS_TCX: OnceLock<bool> = OnceLock::new();

/// Whether programs attach to devices by tcx links; otherwise they are tc filters.
pub(super) fn has_tcx() -> bool {
    *HAS_TCX.get_or_init(|| {
        let mut options = bpf_prog_query_opts {
            sz: size_of::<bpf_prog_query_opts>() as u64,
            ..Default::default()
        };
        // SAFETY: the options live until the call returns, and ask for numbers only.
        unsafe { bpf_prog_query_opts(LOOPBACK, BPF_TCX_INGRESS, &raw mut options) == 0 }
    })
}

/// Lets this process use tc filters on a kernel that has tcx, so that tests reach them everywhere.
pub fn assume_no_tcx() {
    let _ = HAS_TCX.set(false);
}

/// The index of `lo` in every network namespace.
const LOOPBACK: i32 = 1;

/// Everything that the plane uses, and what it does without.
pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![btf()];
    checks.extend(PROGRAM_TYPES.map(program_type));
    checks.extend(MAP_TYPES.map(map_type));
    checks.extend(HELPERS.map(helper));
    checks.push(Check::or_fallback(
        "tcx links on devices",
        has_tcx(),
        "asked for those on `lo`",
        "clsact filters of priority 1, exchanged in place",
    ));
    checks.push(sock_destroy());
    checks.push(connect_unix());
    checks
}

const PROGRAM_TYPES: [(&str, ProgramType); 6] = [
    ("packet programs", ProgramType::SchedCls),
    (
        "connect, sendmsg and bind hooks",
        ProgramType::CgroupSockAddr,
    ),
    ("socket creation hook", ProgramType::CgroupSock),
    ("setsockopt hook", ProgramType::CgroupSockopt),
    ("TCP events of a cgroup", ProgramType::SockOps),
    ("socket look-up programs", ProgramType::SkLookup),
];

const MAP_TYPES: [(&str, MapType); 5] = [
    ("prefix maps", MapType::LpmTrie),
    ("maps of sockets", MapType::Sockmap),
    ("storage of sockets", MapType::SkStorage),
    ("maps that forget", MapType::LruHash),
    ("ring buffers", MapType::RingBuf),
];

const HELPERS: [(&str, ProgramType, bpf_func_id, &str); 4] = [
    (
        "handing a packet to a socket",
        ProgramType::SchedCls,
        BPF_FUNC_sk_assign,
        "sk_assign",
    ),
    (
        "storage of a packet's socket",
        ProgramType::SchedCls,
        BPF_FUNC_sk_storage_get,
        "sk_storage_get",
    ),
    (
        "choosing the error of a refusal",
        ProgramType::CgroupSockAddr,
        BPF_FUNC_set_retval,
        "set_retval",
    ),
    (
        "network namespace of a TCP event",
        ProgramType::SockOps,
        BPF_FUNC_get_netns_cookie,
        "get_netns_cookie",
    ),
];

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    Check::required("type information (BTF)", Path::new(path).exists(), path)
}

fn program_type((name, kind): (&str, ProgramType)) -> Check {
    let is_there = kind.is_supported().unwrap_or(false);
    Check::required(name, is_there, format!("{kind:?} program loaded"))
}

fn map_type((name, kind): (&str, MapType)) -> Check {
    let is_there = kind.is_supported().unwrap_or(false);
    Check::required(name, is_there, format!("{kind:?} map made"))
}

fn helper((name, kind, helper, shown): (&str, ProgramType, bpf_func_id, &str)) -> Check {
    let is_there = kind.is_helper_supported(helper).unwrap_or(false);
    Check::required(
        name,
        is_there,
        format!("{kind:?} program with {shown} loaded"),
    )
}

fn sock_destroy() -> Check {
    let name = "ending a connection from a program";
    let function = "bpf_sock_destroy";
    let is_there = Btf::from_vmlinux()
        .is_ok_and(|btf| btf.type_by_name::<types::Func<'_>>(function).is_some());
    Check::or_fallback(
        name,
        is_there,
        format!("{function} is in the kernel's types"),
        "ss -K, which asks by netlink",
    )
}

fn connect_unix() -> Check {
    Check::or_weaker(
        "connect hook of unix sockets",
        loads_connect_unix(),
        "CgroupSockAddr program for it loaded",
        "a target's unix socket is not refused: close it by its file mode",
    )
}

/// Loads `return 1` for the hook.
fn loads_connect_unix() -> bool {
    // From linux/bpf_common.h and linux/bpf.h: r0 = 1, exit.
    const MOV_IMMEDIATE: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let program = [
        bpf_insn {
            code: MOV_IMMEDIATE,
            imm: 1,
            ..Default::default()
        },
        bpf_insn {
            code: EXIT,
            ..Default::default()
        },
    ];
    let mut options = bpf_prog_load_opts {
        sz: size_of::<bpf_prog_load_opts>() as u64,
        expected_attach_type: BPF_CGROUP_UNIX_CONNECT,
        ..Default::default()
    };
    let (name, license) = (CString::default(), c"Apache-2.0");
    // SAFETY: everything lives until the call returns, and the count is the program's.
    let descriptor = unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
            name.as_ptr(),
            license.as_ptr(),
            program.as_ptr(),
            program.len() as u64,
            &raw mut options,
        )
    };
    if descriptor < 0 {
        return false;
    }
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    true
}
