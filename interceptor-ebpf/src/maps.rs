//! The maps that these programs share with those in `c/`, which create and pin them, and the
//! questions that all programs ask of them.
//!
//! Sizes here are for the record: the loader replaces each map by the pinned one of the same name.

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_sk_release};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, PerCpuArray, SockMap};
use interceptor_common::{
    Config, Identity, PORT_PREFIX_BITS, PORTS_MAX, PROTOCOL_TCP, TARGETS_MAX, VERDICTS, Verdict,
};

#[map(name = "targets")]
static TARGETS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(2 * TARGETS_MAX, 0);

#[map(name = "ports")]
static PORTS: LpmTrie<PortData, u32> = LpmTrie::with_max_entries(2 * PORTS_MAX, 0);

/// A `PortKey` without its number of bits, which aya's key has.
#[repr(C)]
struct PortData {
    rule_set: u32,
    protocol: u8,
    reserved: u8,
    port: [u8; 2],
}

#[map(name = "config")]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map(name = "verdicts")]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICTS, 0);

#[map(name = "listener")]
static LISTENER: SockMap = SockMap::with_max_entries(1, 0);

/// Defined by `c/identify.bpf.c`.
#[btf_map(name = "connecting")]
pub(crate) static CONNECTING: SkStorage<Identity> = SkStorage::new();

#[btf_map(name = "exempt")]
pub(crate) static EXEMPT: SkStorage<u32> = SkStorage::new();

pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

pub(crate) fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: the map is per CPU and a program is not preempted by itself.
        unsafe { *counter += 1 };
    }
}

/// Whether the address and port are a target's.
pub(crate) fn is_target(address: [u8; 16], port: u16) -> bool {
    let Some(&rule_set) = TARGETS.get(Key::new(128, address)) else {
        return false;
    };
    let data = PortData {
        rule_set,
        protocol: PROTOCOL_TCP,
        reserved: 0,
        port: port.to_be_bytes(),
    };
    PORTS.get(Key::new(PORT_PREFIX_BITS + 16, data)).is_some()
}

/// Whether a proxy listens: the kernel empties the slot when the socket closes.
pub(crate) fn has_listener() -> bool {
    let zero = 0_u32;
    // SAFETY: `SockMap` is transparent over the map's definition, which is what the helper takes, and
    // aya has no call for it. The verifier demands the release of what was found.
    unsafe {
        let map = core::ptr::from_ref(&LISTENER).cast_mut().cast();
        let socket = bpf_map_lookup_elem(map, core::ptr::from_ref(&zero).cast());
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket);
    }
    true
}
