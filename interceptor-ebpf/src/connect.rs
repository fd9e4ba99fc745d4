//! `connect` and `sendto` to a target: steer, exempt or refuse.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_set_retval, bpf_setsockopt};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::{info, warn};
use interceptor_common::{Config, PROTOCOL_UDP, Verdict};

use crate::maps::{self, count};
use crate::{ALLOW, REFUSE, identity, is_proxy};

/// From asm-generic/errno.h.
const ECONNREFUSED: i32 = 111;
/// From asm-generic/socket.h.
pub(crate) const SOL_SOCKET: i32 = 1;
/// From asm-generic/socket.h.
pub(crate) const SO_MARK: i32 = 36;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, address_v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, address_v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, address_v4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, address_v6(&ctx))
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, address: [u8; 16]) -> i32 {
    let Some(config) = maps::config() else {
        return ALLOW;
    };
    let port = port(ctx);
    if !maps::is_target(address, port) {
        return clear_mark(ctx, config);
    }
    // SAFETY: the verifier admits these loads from this context.
    let (protocol, socket) = unsafe { ((*ctx.sock_addr).protocol, (*ctx.sock_addr).__bindgen_anon_1.sk) };
    if protocol == u32::from(PROTOCOL_UDP) {
        return refuse(ctx, Verdict::ConnectUdp, address, port);
    }
    // SAFETY: the map's pointer is only compared.
    if is_proxy() && !unsafe { maps::EXEMPT.get_ptr_mut(ctx) }.is_null() {
        count(Verdict::ConnectExempt);
        return ALLOW;
    }
    // SAFETY: the socket of this context is never null.
    if unsafe { (*socket).bound_dev_if } != 0 {
        return refuse(ctx, Verdict::ConnectDevice, address, port);
    }
    if !maps::has_listener() {
        return refuse(ctx, Verdict::ConnectNoListener, address, port);
    }
    // SAFETY: as above.
    let mark = unsafe { (*socket).mark };
    if !set_mark(ctx, (mark & !config.mark_mask) | config.mark_local) {
        return refuse(ctx, Verdict::ConnectError, address, port);
    }
    identity::record(ctx, address, port);
    count(Verdict::ConnectSteered);
    ALLOW
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, address: [u8; 16]) -> i32 {
    let port = port(ctx);
    if !maps::is_target(address, port) {
        return ALLOW;
    }
    refuse(ctx, Verdict::SendmsgUdp, address, port)
}

/// A socket that was refused at a target may be used for another address next; with the mark its
/// packets would still go to `lo`.
#[inline(always)]
fn clear_mark(ctx: &SockAddrContext, config: &Config) -> i32 {
    // SAFETY: the socket of this context is never null.
    let mark = unsafe { (*(*ctx.sock_addr).__bindgen_anon_1.sk).mark };
    if mark & config.mark_mask == config.mark_local && config.mark_mask != 0 {
        set_mark(ctx, mark & !config.mark_mask);
    }
    ALLOW
}

#[inline(always)]
fn set_mark(ctx: &SockAddrContext, mut mark: u32) -> bool {
    // SAFETY: the value outlives the call and has the length that is given.
    let error = unsafe {
        bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_MARK, core::ptr::from_mut(&mut mark).cast(), 4)
    };
    error == 0
}

/// Refuses as a host without a listener would, so that a client tries again instead of hanging.
#[inline(always)]
fn refuse(ctx: &SockAddrContext, verdict: Verdict, address: [u8; 16], port: u16) -> i32 {
    count(verdict);
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    let pid = ctx.tgid();
    match verdict {
        Verdict::ConnectUdp | Verdict::SendmsgUdp => {
            info!(ctx, "refused UDP of process {} to target {:i} port {}", pid, address, port);
        }
        Verdict::ConnectDevice => {
            warn!(ctx, "refused process {}: bound to a device, to target {:i} port {}", pid, address, port);
        }
        Verdict::ConnectNoListener => {
            info!(ctx, "refused process {}: no proxy for target {:i} port {}", pid, address, port);
        }
        _ => {
            warn!(ctx, "refused process {}: not marked, to target {:i} port {}", pid, address, port);
        }
    }
    REFUSE
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: the verifier admits this load from this context.
    u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16)
}

#[inline(always)]
fn address_v4(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: the verifier admits this load from this context.
    mapped(unsafe { (*ctx.sock_addr).user_ip4 })
}

/// IPv4-mapped addresses arrive in this form already.
#[inline(always)]
fn address_v6(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: the verifier admits these loads from this context, word by word.
    let words = unsafe {
        let address = &raw const (*ctx.sock_addr).user_ip6;
        [(*address)[0], (*address)[1], (*address)[2], (*address)[3]]
    };
    bytes(words)
}

/// The 16-byte form of an IPv4 address in network order.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> [u8; 16] {
    bytes([0, 0, 0xffff_u32.to_be(), address])
}

/// The bytes of an IPv6 address that was read as four words in network order.
#[inline(always)]
pub(crate) fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(words) }
}
