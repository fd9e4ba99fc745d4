//! Who calls `connect`: noted on the socket, completed and carried on by `c/identify.bpf.c`.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::SockAddrContext;
use interceptor_common::Identity;

use crate::maps::CONNECTING;

/// Notes the current task. Without memory for the note the client is "unknown" to user space, and
/// policy decides on that.
#[inline(always)]
pub(crate) fn record(ctx: &SockAddrContext, destination: [u8; 16], destination_port: u16) {
    // SAFETY: these helpers have no preconditions.
    let (cgroup, connected_boot_ns) =
        unsafe { (bpf_get_current_cgroup_id(), bpf_ktime_get_boot_ns()) };
    let mut identity = Identity {
        cgroup,
        connected_boot_ns,
        started_boot_ns: 0,
        exec_count: 0,
        address_space: 0,
        uid: ctx.uid(),
        gid: ctx.gid(),
        tgid: ctx.tgid(),
        tid: ctx.pid(),
        destination,
        comm: bpf_get_current_comm().unwrap_or_default(),
        netns: 0,
        destination_port,
        ambiguous: 0,
    };
    // SAFETY: the map's pointer is checked, and the socket is locked by the call that runs this.
    unsafe {
        let noted = CONNECTING.get_or_insert_ptr_mut(ctx, Some(&mut identity));
        // An earlier call that failed may have left a note.
        if !noted.is_null() {
            *noted = identity;
        }
    }
}
