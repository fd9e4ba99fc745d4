//! The contract between the kernel programs and user space: map keys, map values and limits.
//!
//! Owns the layout of everything that both sides read. It must not know what a policy or a protocol
//! is. `interceptor-ebpf/c/contract.h` mirrors this file by hand; both assert the same sizes, so a
//! change in one alone does not build.
//!
//! Addresses are always 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`. Ports are in host order,
//! but for [`PortKey`].
#![no_std]

use core::net::{IpAddr, Ipv6Addr};

/// Most address prefixes that can be targets.
pub const TARGETS_MAX: u32 = 16_384;
/// Most entries of all rule sets together; a range of ports is at most [`PORT_PREFIXES_MAX`] of them.
///
/// The maps `targets` and `ports` are twice as large as their limits: while targets are replaced, the
/// old and the new ones are in them.
pub const PORTS_MAX: u32 = 524_288;
/// Most prefixes that a range of ports takes: 1 to 65534.
pub const PORT_PREFIXES_MAX: u32 = 30;
/// Bits of a [`PortKey`] before the port.
pub const PORT_PREFIX_BITS: u32 = 48;
/// Local connections whose identity is kept; the least recently used go first.
pub const IDENTITIES_MAX: u32 = 65_536;
/// Connections of the proxy to targets whose closing segments are let through.
pub const FLOWS_MAX: u32 = 65_536;
/// Names of unix sockets that are refused.
pub const UNIX_NAMES_MAX: u32 = 1024;
/// SYNs on their way through the stack that reuse a connection in TIME_WAIT.
pub const REUSES_MAX: u32 = 16_384;
/// Most IPv6 extension headers between the IP header and TCP.
pub const EXTENSION_HEADERS_MAX: u32 = 8;
/// Flag of [`Config`]: some target sees its clients' addresses, so answers to those are looked for.
pub const CONFIG_PRESERVES_CLIENTS: u16 = 1;
/// Connections older than the gateway that are ended at its start.
pub const SEVERED_MAX: u32 = 65_536;

/// Value of `flows`: a connection of the proxy.
pub const FLOW_PROXY: u8 = 1;
/// Value of `flows`: a connection that was older than the gateway and was severed.
pub const FLOW_SEVERED: u8 = 2;

/// The IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// The IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// Derives what a type needs to live in a map: `Pod` proves that it has no padding.
macro_rules! map_type {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* } size $size:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(bytemuck::Pod, bytemuck::Zeroable))]
        #[repr(C)]
        pub struct $name { $($body)* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

map_type! {
    /// Key of `targets`, a longest-prefix trie; the value is a rule set's id (`u32`).
    pub struct PrefixKey {
        /// How many leading bits of the address count, 0 to 128.
        pub bits: u32,
        /// The prefix.
        pub address: [u8; 16],
    } size 20
}

map_type! {
    /// Key of `ports`, a longest-prefix trie, as a range of ports is a few prefixes; only the
    /// presence of the value (`u32`) counts.
    pub struct PortKey {
        /// How many leading bits of what follows count: [`PORT_PREFIX_BITS`] and 0 to 16 of the port.
        pub bits: u32,
        /// The rule set that the address belongs to.
        pub rule_set: u32,
        /// The IP protocol.
        pub protocol: u8,
        /// Zero.
        pub reserved: u8,
        /// The target port, in network order: a trie compares from the most significant bit.
        pub port: [u8; 2],
    } size 12
}

map_type! {
    /// The one value of `config`.
    pub struct Config {
        /// Id of the proxy's cgroup: the inode of its directory in cgroup2.
        pub proxy_cgroup: u64,
        /// Mark of target-bound sockets of this host: routes their packets to `lo`.
        pub mark_local: u32,
        /// Mark of target-bound packets that a device received: routes them to the proxy.
        pub mark_transit: u32,
        /// The bits that both marks live in.
        pub mark_mask: u32,
        /// The routing table that delivers marked packets locally.
        pub route_table: u32,
        /// Priority of the rules that look into that table.
        pub rule_priority: u32,
        /// The proxy's port, which nobody else may bind.
        pub listen_port: u16,
        /// [`CONFIG_PRESERVES_CLIENTS`], or zero.
        pub flags: u16,
    } size 32
}

map_type! {
    /// Key of `tuples`: a local connection that nobody has accepted yet; the value is an [`Identity`].
    ///
    /// The sequence number is the client kernel's own, drawn for this one attempt: with it, neither an
    /// earlier connection nor another namespace's of the same addresses is mistaken for this one.
    pub struct TupleKey {
        /// The connection's own address.
        pub client: [u8; 16],
        /// The address that it connects to.
        pub target: [u8; 16],
        /// The connection's own port.
        pub client_port: u16,
        /// The port that it connects to.
        pub target_port: u16,
        /// The sequence number of its SYN.
        pub initial_sequence: u32,
    } size 40
}

map_type! {
    /// Value of `connecting`, of `tuples` and of `clients`: who called `connect`, as the kernel saw it.
    pub struct Identity {
        /// Id of the cgroup that the task was in.
        pub cgroup: u64,
        /// When, in nanoseconds since boot, suspends included.
        pub connected_boot_ns: u64,
        /// When the process started, on the same clock; 0 if unknown.
        pub started_boot_ns: u64,
        /// How often the process and its ancestors had executed a program.
        pub exec_count: u64,
        /// The kernel's address of the process's memory; 0 if unknown.
        pub address_space: u64,
        /// User id.
        pub uid: u32,
        /// Group id.
        pub gid: u32,
        /// Process id.
        pub tgid: u32,
        /// Thread id.
        pub tid: u32,
        /// The address that the task asked for.
        pub destination: [u8; 16],
        /// The thread's name, ended by a zero byte.
        pub comm: [u8; 16],
        /// Inode number of the socket's network namespace; 0 if unknown.
        pub netns: u32,
        /// The port that the task asked for.
        pub destination_port: u16,
        /// 1 if two connections had the same key: nobody knows which is whose.
        pub ambiguous: u16,
    } size 96
}

map_type! {
    /// What the iterator `task` writes: a process as it is now, to be compared with an [`Identity`].
    pub struct TaskNow {
        /// When the process started, in nanoseconds since boot.
        pub started_boot_ns: u64,
        /// How often it and its ancestors executed a program.
        pub exec_count: u64,
        /// The kernel's address of its memory; 0 if it has none.
        pub address_space: u64,
        /// Magic number of the file system that its executable is on.
        pub executable_magic: u64,
        /// Inode number of the user namespace that mounted that file system.
        pub executable_userns: u32,
        /// Zero.
        pub reserved: u32,
    } size 40
}

map_type! {
    /// What the iterators over sockets write: a connected socket that may be older than the gateway.
    pub struct OldSocket {
        /// Its cookie.
        pub cookie: u64,
        /// Its own address.
        pub local: [u8; 16],
        /// Its peer's address.
        pub remote: [u8; 16],
        /// Its own port.
        pub local_port: u16,
        /// Its peer's port.
        pub remote_port: u16,
        /// The IP protocol number.
        pub protocol: u32,
    } size 48
}

map_type! {
    /// Key of `flows`: a connection to a target whose last segments may leave; the value is a `u8`,
    /// [`FLOW_PROXY`] or [`FLOW_SEVERED`].
    pub struct FlowKey {
        /// The proxy's address.
        pub source: [u8; 16],
        /// The target's address.
        pub destination: [u8; 16],
        /// The proxy's port.
        pub source_port: u16,
        /// The target's port.
        pub destination_port: u16,
    } size 36
}

map_type! {
    /// Key of `unix_names`: a unix socket that is refused; the value is a `u8` that says nothing.
    pub struct UnixName {
        /// An abstract name without its leading zero byte, or the last component of a path; zeros
        /// behind it. As long as the kernel's `sun_path`.
        pub name: [u8; 108],
        /// Bytes of the name.
        pub length: u16,
        /// 1 for an abstract name, 0 for a path's.
        pub is_abstract: u16,
    } size 112
}

map_type! {
    /// The one value of `any_port`: a bit for each port that some target has, the lowest first. By it
    /// the programs tell most packets apart without looking at their addresses.
    pub struct PortBits {
        /// Port 0 is the first word's lowest bit.
        pub words: [u64; 1024],
    } size 8192
}

/// Declares the verdicts once: the enum, all of them in order, and their names.
macro_rules! verdicts {
    ($($(#[$meta:meta])* $variant:ident = $value:literal => $name:literal,)*) => {
        /// What a kernel program decided; indexes the counters in `verdicts`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict { $($(#[$meta])* $variant = $value,)* }

        impl Verdict {
            /// Every verdict, in the order of its counter.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$variant,)*];

            /// The name that status and metrics show.
            pub const fn name(self) -> &'static str {
                match self { $(Verdict::$variant => $name,)* }
            }
        }
    };
}

verdicts! {
    /// A local connection was steered to the proxy.
    ConnectSteered = 0 => "connect_steered",
    /// The proxy itself connected to a target.
    ConnectExempt = 1 => "connect_exempt",
    /// No proxy listens, so the connection was refused.
    ConnectNoListener = 2 => "connect_refused_no_listener",
    /// A UDP socket was refused a target.
    ConnectUdp = 3 => "connect_refused_udp",
    /// A socket that is bound to a device was refused a target.
    ConnectDevice = 4 => "connect_refused_device",
    /// A connection could not be marked, so it was refused.
    ConnectError = 5 => "connect_refused_error",
    /// A UDP datagram to a target was refused.
    SendmsgUdp = 6 => "sendmsg_refused_udp",
    /// A process was refused the reserved bits of `SO_MARK`.
    MarkRefused = 7 => "mark_refused",
    /// A process was refused the proxy's port.
    BindRefused = 8 => "bind_refused",
    /// A segment went to the listener: a new connection, or one that the proxy does not know.
    IngressListener = 9 => "ingress_to_listener",
    /// A segment went to a connection of the proxy.
    IngressEstablished = 10 => "ingress_to_connection",
    /// A target-bound segment met no listener: rejected by nft, or dropped on `lo`.
    IngressNoListener = 11 => "ingress_no_listener",
    /// To a target's address, and the port cannot be seen: dropped.
    IngressOpaque = 12 => "ingress_dropped_opaque",
    /// UDP to a target: dropped.
    IngressUdp = 13 => "ingress_dropped_udp",
    /// A reset for a connection that the proxy does not have: dropped.
    IngressReset = 14 => "ingress_dropped_reset",
    /// The kernel did not take the segment's socket: dropped.
    IngressError = 15 => "ingress_dropped_error",
    /// A segment of the proxy to a target left.
    EgressProxy = 16 => "egress_proxy",
    /// An empty ACK or RST of a closed connection of the proxy left.
    EgressClosing = 17 => "egress_closing",
    /// A target-bound packet that is not the proxy's: dropped.
    EgressDropped = 18 => "egress_dropped",
    /// A connection to a unix socket of a target was refused.
    ConnectUnix = 19 => "connect_refused_unix",
    /// The first fragment of a packet to a target: dropped.
    IngressFragment = 20 => "ingress_dropped_fragment",
    /// An ICMP error about a connection of the proxy went to it.
    IngressIcmp = 21 => "ingress_icmp_to_connection",
    /// A new connection with the addresses and ports of one in TIME_WAIT.
    IngressReuse = 22 => "ingress_reuses_time_wait",
}

/// How many verdicts there are.
pub const VERDICTS: u32 = Verdict::ALL.len() as u32;

/// The 16-byte form of an address, IPv4 mapped.
pub const fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address behind its 16-byte form, a mapped IPv4 address as IPv4.
pub fn address_from_bytes(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_numbered_without_gaps() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
        }
    }

    #[test]
    fn an_address_survives_its_mapped_form() {
        for text in ["10.0.0.1", "fd00::1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_from_bytes(address_bytes(address)), address);
        }
    }
}
