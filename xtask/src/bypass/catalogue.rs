//! The rows: what is tried, as whom, from where, and what should come of it.
//!
//! `Passes` is said of what no gateway on this host can stop; docs/threat-model.md names what does.

use std::path::Path;

use super::rows::Expected::{Carried, Kept, Passes, Refused};
use super::rows::Live::{Cgroup, Pid};
use super::rows::Place::{Client, Container, Late};
use super::rows::Row;
use super::rows::Stage::{Broken, Dead, Held, Stopped};
use super::rows::Who::{BareRoot, NetAdmin, NetRaw, Root, User};
use super::stage;

/// Marks of the gateway: of this host's packets, and of those that a device received.
const MARK_LOCAL: u32 = 0x1000_0000;
const MARK_TRANSIT: u32 = 0x2000_0000;

/// An address of the target that no policy names.
const UNNAMED: &str = "10.77.2.3";
/// A port of the target that no policy names.
const UNNAMED_PORT: u16 = 5432;

/// Every row, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    [
        streams(),
        datagrams(),
        raw_packets(),
        frames(),
        routed(),
        paths(),
        proxy(),
        local_targets(),
        broken(),
        gone(),
    ]
    .concat()
}

/// A policy that makes every row's port a target. The rows' tokens are no PostgreSQL, so that the gateway
/// never dials for them: whatever arrives came past it.
pub(crate) fn policy(rows: &[Row], unix_socket: Option<&Path>) -> String {
    let mut endpoints = vec![r#""10.77.2.2:5432""#.to_owned()];
    endpoints.extend(unix_socket.map(|path| format!(r#""unix:{}""#, path.display())));
    let named = stage::number(rows)
        .into_iter()
        .filter(|row| !row.unnamed_port);
    for row in named {
        let port = row.port;
        if row.local_target {
            endpoints.push(format!(r#""127.0.0.1:{port}""#));
            endpoints.push(format!(r#""[::1]:{port}""#));
        } else {
            endpoints.push(format!(r#""10.77.2.2:{port}""#));
            endpoints.push(format!(r#""[fd77:2::2]:{port}""#));
        }
    }
    format!(
        "kind: Target
name: bypass
spec:
  protocol: postgres
  endpoints: [{}]
  default: allow
",
        endpoints.join(", ")
    )
}

/// Sockets with connections, of a process on the gateway host or in a container.
fn streams() -> Vec<Row> {
    vec![
        Row::new("tcp", "tcp", Carried).what("connect()"),
        Row::new("tcp-v6", "tcp", Carried)
            .ipv6()
            .what("connect() over IPv6"),
        Row::new("tcp-nonblocking", "tcp-nonblocking", Carried),
        Row::new("tcp-v4-mapped", "tcp-mapped", Carried).what("::ffff:10.77.2.2 on an IPv6 socket"),
        Row::new("tcp-mptcp", "tcp-mptcp", Carried).what("multipath TCP"),
        Row::new("tcp-fastopen", "tcp-fastopen", Carried)
            .what("sendto(MSG_FASTOPEN), no connect()"),
        Row::new("tcp-fastopen-connect", "tcp-fastopen-connect", Carried)
            .what("TCP_FASTOPEN_CONNECT: connect() sends nothing"),
        Row::new("tcp-ip-options", "tcp-ip-options", Carried)
            .what("IP options make headers longer"),
        Row::new("tcp-bind-to-device", "tcp-bound-device", Refused)
            .what("SO_BINDTODEVICE to the uplink"),
        Row::new("tcp-bind-later", "tcp-bound-later", Refused)
            .what("SO_BINDTODEVICE once the connection is there"),
        Row::new("tcp-do-not-route", "tcp-do-not-route", Kept).what("SO_DONTROUTE"),
        Row::new("tcp-mark-cleared", "tcp-mark-cleared", Refused)
            .who(NetRaw)
            .what("SO_MARK 0 once the connection is there"),
        Row::new("tcp-unicast-if", "tcp-unicast-if", Carried).what("IP_UNICAST_IF to the uplink"),
        Row::new("tcp-unicast-if-v6", "tcp-unicast-if", Carried).ipv6(),
        Row::new("tcp-source-route", "tcp-source-route", Refused)
            .who(NetRaw)
            .set("via", UNNAMED)
            .what("IP_OPTIONS: loose source route to the target by another address"),
        Row::new("tcp-segment-route", "tcp-segment-route", Refused)
            .ipv6()
            .set("via", "fd77:2::3")
            .may_be_absent()
            .what("IPV6_RTHDR: segment route to the target by another address"),
        Row::new("tcp-sticky-options", "tcp-sticky-options", Carried)
            .who(NetRaw)
            .ipv6()
            .what("IPv6 destination options before TCP"),
        Row::new("tcp-connect-twice", "tcp-connect-twice", Carried)
            .set("elsewhere", UNNAMED)
            .set("elsewhere_port", UNNAMED_PORT)
            .what("connected elsewhere, AF_UNSPEC, connected to the target"),
        Row::new("tcp-mark-local", "tcp-mark", Carried)
            .who(NetRaw)
            .set("mark", MARK_LOCAL)
            .what("SO_MARK with the gateway's bits"),
        Row::new("tcp-mark-transit", "tcp-mark", Carried)
            .who(NetAdmin)
            .set("mark", MARK_TRANSIT),
        Row::new("tcp-repair", "tcp-repair", Refused)
            .who(NetAdmin)
            .what("TCP_REPAIR: a connection without a handshake"),
        Row::new("tcp-io_uring", "ring-connect", Carried),
        Row::new("tcp-io_uring-sqpoll", "ring-polled-connect", Carried),
        Row::new("tcp-passed", "tcp-passed", Carried)
            .what("a socket of another process (SCM_RIGHTS)"),
        Row::new("tcp-passed-from-outside", "tcp-passed", Refused)
            .who(Root)
            .set("outside-cgroup", true)
            .what("a socket from a cgroup that the gateway does not watch"),
        Row::new("tcp-from-outside", "tcp-outside", Refused)
            .who(Root)
            .what("a process in a cgroup that the gateway does not watch"),
        Row::new("tcp-forwarded", "tcp-forwarder", Carried).what("a port forwarder on the host"),
        Row::new("tcp-held", "tcp-held", Refused)
            .stage(Held)
            .what("connected before the gateway started"),
        Row::new("sctp", "stream-sctp", Refused).may_be_absent(),
        Row::new("dccp", "stream-dccp", Refused).may_be_absent(),
        Row::new("container-tcp", "tcp", Carried)
            .at(Container)
            .what("connect() in a container"),
        Row::new("container-tcp-v6", "tcp", Carried)
            .at(Container)
            .ipv6(),
        Row::new("container-held", "tcp-held", Refused)
            .at(Container)
            .stage(Held),
        Row::new("container-bind-device", "tcp-bound-device", Refused)
            .at(Container)
            .what("SO_BINDTODEVICE in a container"),
    ]
}

fn datagrams() -> Vec<Row> {
    vec![
        Row::new("udp-connect", "udp-connect", Refused),
        Row::new("udp-sendto", "udp-sendto", Refused),
        Row::new("udp-sendto-v6", "udp-sendto", Refused).ipv6(),
        Row::new("udp-v4-mapped", "udp-mapped", Refused),
        Row::new("udp-sendmmsg", "udp-sendmmsg", Refused),
        Row::new("udp-segmented", "udp-segmented", Refused).what("UDP_SEGMENT"),
        Row::new("udp-quic", "udp-quic", Refused).what("the first packet of QUIC"),
        Row::new("udp-pktinfo", "udp-pktinfo", Refused).what("IP_PKTINFO names the uplink"),
        Row::new("udp-reconnected", "udp-reconnected", Refused)
            .set("elsewhere", UNNAMED)
            .what("connected elsewhere, sendto() the target"),
        Row::new("udp-io_uring", "ring-sendmsg", Refused),
        Row::new("udp-large", "udp-large", Refused).what("a datagram in fragments"),
        Row::new("udp-mark", "udp-mark-message", Refused)
            .who(NetRaw)
            .set("mark", MARK_LOCAL)
            .what("SO_MARK as a control message"),
        Row::new("udp-held", "udp-held", Refused)
            .stage(Held)
            .what("connected before the gateway started"),
        Row::new("udp-lite", "udp-lite", Refused).may_be_absent(),
        Row::new("container-udp", "udp-sendto", Refused).at(Container),
        Row::new("container-udp-held", "udp-held", Refused)
            .at(Container)
            .stage(Held),
    ]
}

/// Raw sockets, on the gateway host and in a container.
fn raw_packets() -> Vec<Row> {
    let raw = |name, attempt, expected| Row::new(name, attempt, expected).who(NetRaw);
    vec![
        raw("raw-hdrincl", "raw-hdrincl", Refused).what("a SYN with its IP header"),
        raw("raw-spoofed", "raw-spoofed", Refused)
            .set("source", "10.77.1.2")
            .what("the same as if from a client"),
        raw("raw-mark-local", "raw-mark-message", Refused)
            .set("mark", MARK_LOCAL)
            .what("the same with the gateway's mark"),
        raw("raw-mark-transit", "raw-mark-message", Refused).set("mark", MARK_TRANSIT),
        raw("raw-tcp", "raw-tcp", Refused).what("SOCK_RAW with IPPROTO_TCP"),
        raw("raw-udp", "raw-udp", Refused),
        raw("raw-v6", "raw-ipv6", Refused).ipv6(),
        raw("raw-ip-options", "raw-options", Refused),
        raw("raw-fragments", "raw-fragments", Refused).what("a SYN in two fragments"),
        raw("raw-icmp", "raw-icmp", Passes).what("an echo request: no port, no target"),
        raw("raw-ipip", "raw-ipip", Passes).what("a SYN in an IP-in-IP packet"),
        raw("container-raw", "raw-hdrincl", Refused).at(Container),
        raw("container-raw-v6", "raw-ipv6", Refused)
            .at(Container)
            .ipv6(),
    ]
}

/// Packet sockets and what else hands frames to a device.
fn frames() -> Vec<Row> {
    let raw = |name, attempt, expected| Row::new(name, attempt, expected).who(NetRaw);
    vec![
        raw("packet", "frame", Refused).what("AF_PACKET on the uplink"),
        raw("packet-v6", "frame-v6", Refused).ipv6(),
        raw("packet-udp", "frame-udp", Refused),
        raw("packet-cooked", "frame-cooked", Refused).what("SOCK_DGRAM"),
        raw("packet-lying", "frame-lying", Refused).what("another protocol number than the frame's"),
        raw("packet-vlan", "frame-vlan", Refused).what("with a VLAN's tag"),
        raw("packet-qinq", "frame-qinq", Refused).what("with two"),
        raw("packet-ring", "frame-ring", Refused).what("PACKET_TX_RING"),
        raw("packet-qdisc-bypass", "frame-bypass", Refused).what("PACKET_QDISC_BYPASS"),
        raw("packet-qdisc-bypass-v6", "frame-bypass-v6", Refused).ipv6(),
        raw("packet-qdisc-bypass-vlan", "frame-bypass-vlan", Refused),
        raw("packet-elsewhere", "frame", Passes)
            .set("target", UNNAMED)
            .what("to an address that no policy names: it is left alone"),
        raw("packet-qdisc-bypass-elsewhere", "frame-bypass", Refused)
            .set("target", UNNAMED)
            .what("to an address that no policy names: no layer can read such a frame, so none leaves"),
        raw("packet-source-route", "frame-source-route", Refused)
            .set("via", UNNAMED)
            .what("a loose source route to the target by another address"),
        raw("packet-qdisc-bypass-source-route", "frame-bypass-source-route", Refused)
            .set("via", UNNAMED),
        raw("packet-qdisc-bypass-ring", "frame-ring-bypass", Refused),
        raw("packet-into-lo", "frame-inject", Refused)
            .set("device", "lo")
            .set("source", "10.77.1.2")
            .set("from_mac", "00:00:00:00:00:00")
            .set("to_mac", "00:00:00:00:00:00")
            .before(Root, "sysctl -qw net.ipv4.conf.lo.rp_filter=0 net.ipv4.conf.all.rp_filter=0")
            .what("a client's frame on lo, to be forwarded"),
        raw("af-xdp", "xsk", Passes).what("AF_XDP on the uplink"),
        raw("container-packet", "frame", Refused).at(Container),
        raw("container-packet-bypass", "frame-bypass", Refused).at(Container),
        raw("container-af-xdp", "xsk", Refused)
            .at(Container)
            .what("AF_XDP on a container's device"),
        Row::new("tun", "tun", Refused)
            .who(Root)
            .set("source", "10.77.1.77")
            .what("a VPN's device that appears after the start, and forwards"),
        Row::new("macvlan", "tcp", Carried)
            .who(User)
            .before(NetAdmin, "ip link add byp-mac link target0 type macvlan mode bridge && ip link set byp-mac up && ip address add 10.77.2.9/24 dev byp-mac")
            .after("ip link del byp-mac")
            .what("a second device on the uplink, made by CAP_NET_ADMIN"),
    ]
}

/// Another machine's packets.
fn routed() -> Vec<Row> {
    let client = |name, attempt, expected| Row::new(name, attempt, expected).at(Client).who(Root);
    vec![
        client("client-tcp", "tcp", Carried),
        client("client-tcp-v6", "tcp", Carried).ipv6(),
        client("client-mptcp", "tcp-mptcp", Carried),
        client("client-fastopen", "tcp-fastopen", Carried),
        client("client-udp", "udp-sendto", Refused),
        client("client-quic", "udp-quic", Refused),
        client("client-held", "tcp-held", Refused).stage(Held),
        client("client-udp-held", "udp-held", Refused).stage(Held),
        client("client-ip-options", "tcp-ip-options", Carried),
        client("client-source-route", "tcp-source-route", Refused).set("via", UNNAMED),
        client("client-segment-route", "tcp-segment-route", Refused)
            .ipv6()
            .set("via", "fd77:2::3")
            .may_be_absent(),
        client("client-fragments", "raw-fragments", Refused),
        client("client-tiny-fragment", "raw-tiny-fragment", Refused)
            .what("ports in one fragment, flags in the next"),
        client("client-overlap", "raw-overlap", Refused)
            .what("a fragment that writes the target's port over another"),
        client("client-v6-options", "raw-v6-destination-options", Refused).ipv6(),
        client("client-v6-hop-by-hop", "raw-v6-hop-by-hop", Refused).ipv6(),
        client("client-v6-routing", "raw-v6-routing", Refused).ipv6(),
        client("client-v6-fragments", "raw-v6-fragments", Refused).ipv6(),
        client("client-v6-many-headers", "raw-v6-many-headers", Refused).ipv6(),
        client("client-udp-large", "udp-large", Refused).what("a datagram in fragments"),
        client("client-icmp", "raw-icmp", Passes).what("an echo request: no port, no target"),
        client("client-ipip", "raw-ipip", Passes).what("IP in IP, past the gateway"),
        client("client-vxlan-to-gateway", "tcp-from", Carried)
            .set("source", "10.77.9.2")
            .what("a VXLAN that ends on the gateway"),
        client("client-vxlan-past-gateway", "tcp-from", Passes)
            .set("source", "10.77.10.2")
            .what("a VXLAN that ends at the target"),
        client("late-tcp", "tcp", Carried)
            .at(Late)
            .what("through a device that appeared after the start"),
        client("late-udp", "udp-sendto", Refused).at(Late),
        client("late-raw", "raw-hdrincl", Refused).at(Late),
    ]
}

const DNAT: &str = "nft add table ip operator
nft add chain ip operator in '{ type nat hook prerouting priority dstnat; }'
nft add chain ip operator out '{ type nat hook output priority -100; }'
nft add rule ip operator in ip daddr 10.77.8.8 dnat to 10.77.2.2
nft add rule ip operator out ip daddr 10.77.8.8 dnat to 10.77.2.2
ip route add 10.77.8.8/32 via 10.77.2.2";
const NO_DNAT: &str = "ip route del 10.77.8.8/32; nft delete table ip operator";

/// Other addresses, other routes, other devices.
fn paths() -> Vec<Row> {
    vec![
        Row::new("other-address", "tcp", Passes)
            .set("target", UNNAMED)
            .what("an address of the target that no policy names"),
        Row::new("other-port", "tcp", Passes)
            .unnamed_port()
            .what("a port of the target that no policy names"),
        Row::new("client-other-port", "tcp", Passes)
            .at(Client)
            .unnamed_port(),
        Row::new("client-other-port-fragments", "raw-fragments", Passes)
            .at(Client)
            .who(Root)
            .unnamed_port(),
        Row::new("link-local-address", "tcp-link-local", Passes)
            .ipv6()
            .what("the target's link-local address, which no policy names"),
        Row::new("client-other-address", "tcp", Passes)
            .at(Client)
            .set("target", UNNAMED),
        Row::new("dnat", "tcp", Refused)
            .set("target", "10.77.8.8")
            .before(Root, DNAT)
            .after(NO_DNAT)
            .what("the operator's DNAT from another address to the target"),
        Row::new("client-dnat", "tcp", Refused)
            .at(Client)
            .set("target", "10.77.8.8")
            .before(Root, DNAT)
            .after(NO_DNAT),
        Row::new("policy-route", "policy-route", Refused)
            .who(NetAdmin)
            .what("an ip rule before the gateway's"),
        Row::new("policy-route-others", "tcp", Refused)
            .before(
                NetAdmin,
                "ip route add 10.77.2.2 dev target0 table 77 && ip rule add to 10.77.2.2 priority 7 lookup 77",
            )
            .after("ip rule del priority 7; ip route flush table 77")
            .what("the same, for another user's connect()"),
        Row::new("client-policy-route", "tcp", Refused)
            .at(Client)
            .before(
                NetAdmin,
                "ip route add 10.77.2.2 dev target0 table 77 && ip rule add iif client0 priority 7 lookup 77",
            )
            .after("ip rule del priority 7; ip route flush table 77")
            .what("the same, for a client's packets"),
        Row::new("client-redirect", "tcp", Refused)
            .at(Client)
            .before(
                NetAdmin,
                "tc qdisc add dev client0 clsact && tc filter add dev client0 ingress protocol ip prio 1 u32 match ip dst 10.77.2.2/32 action mirred egress redirect dev target0",
            )
            .after("tc qdisc del dev client0 clsact")
            .what("a tc filter that moves a client's frames to the uplink"),
        Row::new("client-bridge", "tcp", Refused)
            .at(Client)
            .who(Root)
            .before(
                NetAdmin,
                "ip link add byp-br type bridge && ip link set byp-br up && ip link set client0 master byp-br && ip link set target0 master byp-br",
            )
            .before(Root, "nsenter --net=/run/netns/icpt-bypass-client ip route add 10.77.2.2/32 dev eth0; nsenter --net=/run/netns/icpt-bypass-target ip route add 10.77.1.2/32 dev eth0")
            .after("nsenter --net=/run/netns/icpt-bypass-client ip route del 10.77.2.2/32 dev eth0; nsenter --net=/run/netns/icpt-bypass-target ip route del 10.77.1.2/32 dev eth0; ip link set client0 nomaster; ip link set target0 nomaster; ip link del byp-br")
            .stage(Broken)
            .what("a bridge over the client's device and the uplink"),
        Row::new("user-namespace", "tcp-unshared", Refused)
            .no_control("a namespace that a user makes has no way out")
            .what("a network namespace of the user's own"),
    ]
}

/// The proxy itself.
fn proxy() -> Vec<Row> {
    vec![
        Row::new("cgroup-procs", "tcp-self-moved", Carried)
            .live(Cgroup)
            .what("a user writes itself into the proxy's cgroup"),
        Row::new("cgroup-bare-root", "tcp-self-moved", Passes)
            .who(BareRoot)
            .live(Cgroup)
            .what("uid 0 owns the proxy's cgroup, with or without capabilities"),
        Row::new("cgroup-moved", "tcp-moved", Kept)
            .who(Root)
            .live(Cgroup)
            .what("a socket made before its task moved into the proxy's cgroup: the gateway closes it"),
        Row::new("pidfd-getfd", "steal-descriptor", Refused)
            .live(Pid)
            .what("the proxy's own descriptors, as a user"),
        Row::new("pidfd-getfd-uid-0", "steal-descriptor", Refused)
            .who(BareRoot)
            .live(Pid)
            .what("the same as its uid"),
        Row::new("proc-mem", "write-memory", Refused)
            .live(Pid)
            .what("/proc/PID/mem"),
        Row::new("proc-mem-uid-0", "write-memory", Refused)
            .who(BareRoot)
            .live(Pid),
        Row::new("ptrace", "trace", Refused).live(Pid),
        Row::new("ptrace-uid-0", "trace", Refused)
            .who(BareRoot)
            .live(Pid),
        Row::new("proxy-port-bind", "bind-port", Refused)
            .what("binding the proxy's port with SO_REUSEPORT"),
        Row::new("proxy-port-dial", "dial-port", Refused)
            .set("proxy", "127.0.0.1")
            .no_control("there is no proxy to dial")
            .what("dialling the proxy's port"),
        Row::new("client-proxy-port-dial", "dial-port", Refused)
            .at(Client)
            .set("proxy", "10.77.1.1")
            .no_control("there is no proxy to dial"),
        Row::new("capture-target", "capture-target", Carried)
            .who(NetAdmin)
            .what("IP_TRANSPARENT on the target's address, to take its clients"),
    ]
}

/// Servers on the gateway's own host.
fn local_targets() -> Vec<Row> {
    let local =
        |name, attempt, expected, address| Row::new(name, attempt, expected).on_host(address);
    vec![
        local("local-server", "tcp", Carried, "127.0.0.1").what("a server on the gateway host"),
        local("local-server-v6", "tcp", Carried, "::1").ipv6(),
        local("local-server-any", "tcp", Refused, "0.0.0.0")
            .what("0.0.0.0, which the kernel takes for 127.0.0.1"),
        local("local-server-any-v6", "tcp", Refused, "::").ipv6(),
        local("local-server-other", "tcp", Passes, "10.77.1.1")
            .what("another address of the host that no policy names"),
        local("local-server-raw", "raw-hdrincl", Refused, "127.0.0.1")
            .who(NetRaw)
            .set("source", "127.0.0.1")
            .no_control("only accepted connections count on the gateway host"),
        local("local-server-unix", "unix", Refused, "127.0.0.1").what("its unix socket"),
        local("local-server-unix-dots", "unix", Refused, "127.0.0.1")
            .set("way", "dots")
            .what("the same path by way of .."),
        local("local-server-unix-relative", "unix", Refused, "127.0.0.1").set("way", "relative"),
        local("local-server-unix-link", "unix", Passes, "127.0.0.1")
            .set("way", "link")
            .what("the same by a symbolic link"),
    ]
}

/// With a part of the plane gone. The gateway starts anew after each.
fn broken() -> Vec<Row> {
    let flush = "nft flush ruleset";
    let rules = "for family in -4 -6; do while ip $family rule del priority 150 2>/dev/null; do :; done; done";
    vec![
        Row::new("nft-flushed", "tcp", Carried)
            .before(NetAdmin, flush)
            .stage(Broken)
            .what("CAP_NET_ADMIN flushed nftables: the eBPF programs hold"),
        Row::new("nft-flushed-client", "udp-sendto", Refused)
            .at(Client)
            .before(NetAdmin, flush)
            .stage(Broken),
        Row::new("nft-flushed-raw", "raw-hdrincl", Refused)
            .who(NetRaw)
            .before(NetAdmin, flush)
            .stage(Broken),
        Row::new("rules-deleted", "tcp", Kept)
            .before(NetAdmin, rules)
            .stage(Broken)
            .what(
                "CAP_NET_ADMIN deleted the gateway's rules: nothing is steered, and nothing leaves",
            ),
        Row::new("rules-and-nft", "tcp", Kept)
            .before(NetAdmin, rules)
            .before(NetAdmin, flush)
            .stage(Broken)
            .what("both"),
    ]
}

/// Without a gateway that answers.
fn gone() -> Vec<Row> {
    let dead = |name, attempt| Row::new(name, attempt, Refused).stage(Dead);
    vec![
        Row::new("stopped-tcp", "tcp", Refused)
            .stage(Stopped)
            .what("the gateway's process is stopped"),
        Row::new("stopped-client-tcp", "tcp", Refused)
            .at(Client)
            .stage(Stopped),
        Row::new("stopped-raw", "raw-hdrincl", Refused)
            .who(NetRaw)
            .stage(Stopped),
        dead("dead-tcp", "tcp").what("the gateway was killed"),
        dead("dead-tcp-v6", "tcp").ipv6(),
        dead("dead-io_uring", "ring-connect"),
        dead("dead-bind-to-device", "tcp-bound-device"),
        dead("dead-container-tcp", "tcp").at(Container),
        dead("dead-client-tcp", "tcp").at(Client),
        dead("dead-client-tcp-v6", "tcp").at(Client).ipv6(),
        dead("dead-late-tcp", "tcp").at(Late),
        dead("dead-udp", "udp-sendto"),
        dead("dead-client-udp", "udp-sendto").at(Client),
        dead("dead-raw", "raw-hdrincl").who(NetRaw),
        dead("dead-packet", "frame").who(NetRaw),
        dead("dead-packet-qdisc-bypass", "frame-bypass").who(NetRaw),
        dead("dead-port-bind", "bind-port").what("taking the dead proxy's port"),
        dead("dead-client-fragments", "raw-fragments")
            .at(Client)
            .who(Root),
    ]
}
