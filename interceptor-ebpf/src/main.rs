//! The cgroup programs: they see a socket call with the task that makes it.
//!
//! Owns the decision whether a local socket may go to a target and how, and the identity of the task
//! behind it. Must not know what a policy is. Packets are `c/guard.bpf.c`'s.
//!
//! Every program returns 1 to allow the call and 0 to refuse it.
#![no_std]
#![no_main]

mod connect;
mod identity;
mod maps;
mod reserved;

use aya_ebpf::helpers::bpf_get_current_cgroup_id;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

/// From linux/bpf.h: make the storage where there is none.
const STORAGE_CREATE: u64 = 1;

pub(crate) const ALLOW: i32 = 1;
pub(crate) const REFUSE: i32 = 0;

/// Remembers that the proxy made this socket. The current cgroup alone would not do at `connect`: a
/// task can make a socket elsewhere and move into the proxy's cgroup.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    if !is_proxy() {
        return ALLOW;
    }
    let mut exempt = 1_u32;
    // SAFETY: the context of this program type is the socket; the value outlives the call. Without
    // memory for the storage the socket counts as anybody's, which fails closed.
    unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&maps::EXEMPT).cast_mut().cast(),
            ctx.sock.cast(),
            core::ptr::from_mut(&mut exempt).cast(),
            STORAGE_CREATE,
        )
    };
    ALLOW
}

/// Whether the current task is in the proxy's cgroup.
pub(crate) fn is_proxy() -> bool {
    // SAFETY: the helper has no preconditions.
    maps::config().is_some_and(|config| unsafe { bpf_get_current_cgroup_id() } == config.proxy_cgroup)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// No helper here is for GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
