//! What belongs to the gateway and nobody else may take: the mark's bits and the proxy's port.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{cgroup_sock_addr, cgroup_sockopt};
use aya_ebpf::programs::{SockAddrContext, SockoptContext};
use aya_log_ebpf::warn;
use interceptor_common::Verdict;

use crate::connect::{SO_MARK, SOL_SOCKET};
use crate::maps::{self, count};
use crate::{ALLOW, REFUSE, is_proxy};

/// The kernel shows a program at most one page of an option's value.
const OPTION_BYTES_MAX: i32 = 4096;
/// From linux/in.h.
const IPPROTO_TCP: u32 = 6;

/// A mark never exempts, but one of ours on a foreign socket would steer its packets.
#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    // SAFETY: the verifier admits these loads from this context.
    let (level, option, length) =
        unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname, (*ctx.sockopt).optlen) };
    if level != SOL_SOCKET || option != SO_MARK {
        if length > OPTION_BYTES_MAX {
            // Take the caller's bytes, of which only a page was shown here: without this the call fails.
            // SAFETY: the verifier admits this store.
            unsafe { (*ctx.sockopt).optlen = 0 };
        }
        return ALLOW;
    }
    // SAFETY: as above.
    let (value, end) = unsafe {
        ((*ctx.sockopt).__bindgen_anon_2.optval, (*ctx.sockopt).__bindgen_anon_3.optval_end)
    };
    if value as usize + 4 > end as usize {
        return ALLOW; // Too short to be a mark; the kernel refuses it.
    }
    // SAFETY: four bytes lie before the end.
    let mark = unsafe { value.cast::<u32>().read() };
    // An over-long value would be read again from the caller, who could have changed it.
    if length <= OPTION_BYTES_MAX && maps::config().is_none_or(|config| mark & config.mark_mask == 0) {
        return ALLOW;
    }
    count(Verdict::MarkRefused);
    warn!(&ctx, "refused process {} the reserved socket mark {:x}", ctx.tgid(), mark);
    REFUSE
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    bind(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    bind(&ctx)
}

#[inline(always)]
fn bind(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the verifier admits these loads from this context.
    let (port, protocol) = unsafe { ((*ctx.sock_addr).user_port, (*ctx.sock_addr).protocol) };
    let reserved = maps::config().is_some_and(|config| config.listen_port == u16::from_be(port as u16));
    if !reserved || protocol != IPPROTO_TCP || is_proxy() {
        return ALLOW;
    }
    count(Verdict::BindRefused);
    warn!(ctx, "refused process {} the proxy's port", ctx.tgid());
    REFUSE
}
