//! Who is behind a local connection: the task at `connect`, found again by the connection's
//! addresses when the proxy accepts it.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use interceptor_common::{Identity, TupleKey};

use crate::connect::{bytes, mapped};
use crate::maps::{IDENTITIES, TUPLES};

/// From linux/bpf.h, `BPF_SOCK_OPS_TCP_CONNECT_CB`: the source port is chosen, no segment has left.
const TCP_CONNECT: u32 = 3;
/// From linux/socket.h.
const AF_INET: u32 = 2;

/// Keeps the identity of the current task under its socket's cookie. A connection whose identity
/// does not fit is "unknown" to user space, and policy decides on that.
#[inline(always)]
pub(crate) fn record(ctx: &SockAddrContext, destination: [u8; 16], destination_port: u16) {
    // SAFETY: these helpers take this context.
    let (cookie, netns_cookie, cgroup, connected_boot_ns) = unsafe {
        (
            bpf_get_socket_cookie(ctx.as_ptr()),
            bpf_get_netns_cookie(ctx.as_ptr()),
            bpf_get_current_cgroup_id(),
            bpf_ktime_get_boot_ns(),
        )
    };
    let identity = Identity {
        netns_cookie,
        cgroup,
        connected_boot_ns,
        uid: ctx.uid(),
        gid: ctx.gid(),
        tgid: ctx.tgid(),
        tid: ctx.pid(),
        destination,
        comm: bpf_get_current_comm().unwrap_or_default(),
        destination_port,
        reserved: [0; 6],
    };
    let _ = IDENTITIES.insert(&cookie, &identity, 0);
}

/// Ties a steered connection's addresses to its socket.
#[sock_ops]
pub fn tcp_connect(ctx: SockOpsContext) -> u32 {
    if ctx.op() != TCP_CONNECT {
        return 1;
    }
    // SAFETY: these helpers take this context.
    let (cookie, netns_cookie) =
        unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), bpf_get_netns_cookie(ctx.as_ptr())) };
    // SAFETY: only presence is asked.
    if unsafe { IDENTITIES.get(&cookie) }.is_none() {
        return 1;
    }
    let (client, target) = addresses(&ctx);
    let key = TupleKey {
        netns_cookie,
        client,
        target,
        client_port: ctx.local_port() as u16,
        target_port: u16::from_be((ctx.remote_port() >> REMOTE_PORT_SHIFT) as u16),
        reserved: 0,
    };
    let _ = TUPLES.insert(&key, &cookie, 0);
    1
}

/// The port is in network order in the first two bytes of a word (linux/bpf.h).
const REMOTE_PORT_SHIFT: u32 = if cfg!(target_endian = "little") { 16 } else { 0 };

#[inline(always)]
fn addresses(ctx: &SockOpsContext) -> ([u8; 16], [u8; 16]) {
    if ctx.family() == AF_INET {
        return (mapped(ctx.local_ip4()), mapped(ctx.remote_ip4()));
    }
    let target = bytes(ctx.remote_ip6());
    // An IPv6 socket on an IPv4-mapped address: its IPv6 source is not set yet.
    if target[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
        return (mapped(ctx.local_ip4()), target);
    }
    (bytes(ctx.local_ip6()), target)
}
