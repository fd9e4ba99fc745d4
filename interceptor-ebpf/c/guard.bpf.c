// SPDX-License-Identifier: Apache-2.0
/* Target-bound packets: ingress hands them to the proxy, egress lets only the proxy's own leave.
 *
 * C, because aya's classifier has no call for sk_assign, socket storage or a SOCKMAP look-up. Most
 * maps of all programs are defined here: libbpf checks a pinned map against its definition before it
 * takes it over, and aya does not.
 *
 * Must not know what a policy is: a packet is a target's by address and port alone. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "contract.h"

/* From linux/bpf.h of 6.6. NEXT asks the programs after this one; OK would silence them. */
#define TCX_NEXT (-1)
#define TCX_DROP 2

/* From net/tcp_states.h. */
#define TCP_TIME_WAIT 6
#define TCP_LISTEN 10

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, TARGETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct prefix_key);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct port_key);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

/* The proxy's listening socket, at 0. The kernel empties the slot when the socket closes, so a dead
 * proxy is known at once and a socket that somebody else binds later captures nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} listener SEC(".maps");

/* Present on sockets that were made in the proxy's cgroup. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, __u32);
} exempt SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct flow_key);
	__type(value, __u8);
} flows SEC(".maps");

static __always_inline void count(__u32 verdict)
{
	__u64 *counter = bpf_map_lookup_elem(&verdicts, &verdict);

	if (counter)
		*counter += 1;
}

static __always_inline const struct config *settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

enum kind {
	NOT_A_TARGET,
	OPAQUE, /* to a target's address, and the port cannot be seen */
	UDP,
	TCP,
};

struct packet {
	struct flow_key flow;
	bool ipv6;
	bool syn;
	bool rst;
	bool closing; /* nothing but ACK or RST, and no payload */
};

/* Reads the ethertype; moves *offset to the network header. Tags inside the frame occur only where a
 * raw socket wrote them: the kernel keeps its own beside the packet. */
static __always_inline __u16 network_protocol(struct __sk_buff *skb, __u32 *offset)
{
	__be16 ethertype;
	__u8 first;

	if (*offset == 0) {
		if (bpf_skb_load_bytes(skb, 0, &first, 1))
			return 0;
		return first >> 4 == 6 ? ETH_P_IPV6 : first >> 4 == 4 ? ETH_P_IP : 0;
	}
#pragma unroll
	for (int tags = 0; tags < 3; tags++) {
		if (bpf_skb_load_bytes(skb, *offset - 2, &ethertype, 2))
			return 0;
		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			return bpf_ntohs(ethertype);
		*offset += 4;
	}
	return 0;
}

static __always_inline void map_v4(__u8 *mapped, __be32 address)
{
	__builtin_memset(mapped, 0, 10);
	mapped[10] = 0xff;
	mapped[11] = 0xff;
	__builtin_memcpy(mapped + 12, &address, 4);
}

/* Extension headers that can stand before TCP (RFC 8200, RFC 7045). Linux skips them, so a
 * target behind them is still reached; parsing them all is not worth it, since TCP has no use for
 * them. */
static __always_inline bool is_extension_header(__u8 next)
{
	switch (next) {
	case 0: case 43: case 44: case 60: case 135: case 139: case 140:
		return true;
	default:
		return false;
	}
}

static __always_inline bool target_has_port(__u32 rule_set, __u16 port)
{
	struct port_key key = { .rule_set = rule_set, .port = port, .protocol = IPPROTO_TCP };

	return bpf_map_lookup_elem(&ports, &key) != NULL;
}

static __always_inline enum kind classify_transport(struct __sk_buff *skb, __u32 offset, __u8 protocol,
						    __u32 payload, __u32 rule_set, struct packet *packet)
{
	struct tcphdr tcp;
	__be16 port[2];

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return NOT_A_TARGET;
	if (bpf_skb_load_bytes(skb, offset, port, sizeof(port)))
		return OPAQUE;
	packet->flow.source_port = bpf_ntohs(port[0]);
	packet->flow.destination_port = bpf_ntohs(port[1]);
	if (!target_has_port(rule_set, packet->flow.destination_port))
		return NOT_A_TARGET;
	if (protocol == IPPROTO_UDP)
		return UDP;
	if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
		return OPAQUE;
	packet->syn = tcp.syn;
	packet->rst = tcp.rst;
	packet->closing = !tcp.syn && !tcp.fin && (tcp.ack || tcp.rst) && payload == tcp.doff * 4;
	return TCP;
}

static __always_inline enum kind classify_v4(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	struct prefix_key prefix = { .bits = 128 };
	struct iphdr ip;
	__u32 *rule_set, header;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return NOT_A_TARGET;
	map_v4(packet->flow.source, ip.saddr);
	map_v4(packet->flow.destination, ip.daddr);
	__builtin_memcpy(prefix.address, packet->flow.destination, 16);
	rule_set = bpf_map_lookup_elem(&targets, &prefix);
	if (!rule_set)
		return NOT_A_TARGET;
	fragment = bpf_ntohs(ip.frag_off);
	if (fragment & 0x3fff && ip.protocol == IPPROTO_TCP)
		return OPAQUE;
	/* A later fragment of a datagram whose first one was judged by its port. */
	if (fragment & 0x1fff)
		return NOT_A_TARGET;
	header = ip.ihl * 4;
	return classify_transport(skb, offset + header, ip.protocol, bpf_ntohs(ip.tot_len) - header,
				  *rule_set, packet);
}

static __always_inline enum kind classify_v6(struct __sk_buff *skb, __u32 offset, struct packet *packet)
{
	struct prefix_key prefix = { .bits = 128 };
	struct ipv6hdr ip;
	__u32 *rule_set;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return NOT_A_TARGET;
	packet->ipv6 = true;
	__builtin_memcpy(packet->flow.source, &ip.saddr, 16);
	__builtin_memcpy(packet->flow.destination, &ip.daddr, 16);
	__builtin_memcpy(prefix.address, packet->flow.destination, 16);
	rule_set = bpf_map_lookup_elem(&targets, &prefix);
	if (!rule_set)
		return NOT_A_TARGET;
	if (is_extension_header(ip.nexthdr))
		return OPAQUE;
	return classify_transport(skb, offset + sizeof(ip), ip.nexthdr, bpf_ntohs(ip.payload_len),
				  *rule_set, packet);
}

/* link_header is 14 where frames begin with an Ethernet header and 0 where they begin with IP. */
static __always_inline enum kind classify(struct __sk_buff *skb, __u32 link_header, struct packet *packet)
{
	__u32 offset = link_header;

	switch (network_protocol(skb, &offset)) {
	case ETH_P_IP:
		return classify_v4(skb, offset, packet);
	case ETH_P_IPV6:
		return classify_v6(skb, offset, packet);
	default:
		return NOT_A_TARGET;
	}
}

enum delivery {
	DELIVERED,
	NO_LISTENER,
	SEVERED,
	REFUSED,
};

/* A connection of the proxy that this segment belongs to; DELIVERED if there is one. */
static __always_inline bool deliver_to_connection(struct __sk_buff *skb, const struct packet *packet,
						  enum delivery *delivery)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size, state;
	long error = 0;

	if (packet->ipv6) {
		__builtin_memcpy(tuple.ipv6.saddr, packet->flow.source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, packet->flow.destination, 16);
		tuple.ipv6.sport = bpf_htons(packet->flow.source_port);
		tuple.ipv6.dport = bpf_htons(packet->flow.destination_port);
		size = sizeof(tuple.ipv6);
		sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(&tuple.ipv4.saddr, packet->flow.source + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, packet->flow.destination + 12, 4);
		tuple.ipv4.sport = bpf_htons(packet->flow.source_port);
		tuple.ipv4.dport = bpf_htons(packet->flow.destination_port);
		size = sizeof(tuple.ipv4);
		sk = bpf_skc_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return false;
	state = sk->state;
	/* A SYN may reuse a connection in TIME_WAIT, but the kernel would look for a listener on the
	 * target's port: ours has another. Anything else is for TIME_WAIT itself, and the stack
	 * finds it by its addresses. */
	if (state == TCP_LISTEN || (state == TCP_TIME_WAIT && packet->syn)) {
		bpf_sk_release(sk);
		return false;
	}
	if (state != TCP_TIME_WAIT)
		error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	count(error ? INGRESS_ERROR : INGRESS_ESTABLISHED);
	*delivery = error ? REFUSED : DELIVERED;
	return true;
}

static __always_inline bool is_severed(const struct flow_key *flow)
{
	__u8 *value = bpf_map_lookup_elem(&flows, flow);

	return value && *value == FLOW_SEVERED;
}

/* Every segment without a connection goes to the listener, not only SYN: the third segment of a
 * handshake with SYN cookies has no socket yet, and a connection that predates the gateway gets its
 * reset at once. */
static __always_inline enum delivery deliver(struct __sk_buff *skb, const struct packet *packet)
{
	enum delivery delivery;
	struct bpf_sock *sk;
	__u32 zero = 0;
	long error;

	if (deliver_to_connection(skb, packet, &delivery))
		return delivery;
	/* Of a connection in another namespace of this host that was older than the gateway. */
	if (packet->rst && packet->closing && is_severed(&packet->flow))
		return SEVERED;
	if (packet->rst) {
		count(INGRESS_RESET);
		return REFUSED;
	}
	sk = bpf_map_lookup_elem(&listener, &zero);
	if (!sk) {
		count(INGRESS_NO_LISTENER);
		return NO_LISTENER;
	}
	error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	count(error ? INGRESS_ERROR : INGRESS_LISTENER);
	return error ? REFUSED : DELIVERED;
}

static __always_inline int ingress(struct __sk_buff *skb, __u32 link_header)
{
	const struct config *settings_now = settings();
	struct packet packet = {};

	if (!settings_now)
		return TCX_NEXT;
	/* Tagged: the VLAN's own device sees it next, without the tag. */
	if (skb->vlan_present)
		return TCX_NEXT;
	switch (classify(skb, link_header, &packet)) {
	case NOT_A_TARGET:
		return TCX_NEXT;
	case OPAQUE:
		count(INGRESS_OPAQUE);
		return TCX_DROP;
	case UDP:
		count(INGRESS_UDP);
		return TCX_DROP;
	case TCP:
		break;
	}
	switch (deliver(skb, &packet)) {
	case DELIVERED:
		skb->mark = (skb->mark & ~settings_now->mark_mask) | settings_now->mark_transit;
		return TCX_NEXT;
	case SEVERED:
		/* On to the target, which ends the connection as well. */
		return TCX_NEXT;
	case NO_LISTENER:
		/* Unmarked, it takes the way to the target, where the nft table answers with a reset:
		 * the client learns at once that the gateway is down. */
		return TCX_NEXT;
	default:
		return TCX_DROP;
	}
}

SEC("tcx/ingress")
int ingress_ether(struct __sk_buff *skb)
{
	return ingress(skb, ETH_HLEN);
}

SEC("tcx/ingress")
int ingress_ip(struct __sk_buff *skb)
{
	return ingress(skb, 0);
}

/* Only what `connect` marked: the proxy's own connections to a target on this host pass here too. */
SEC("tcx/ingress")
int ingress_lo(struct __sk_buff *skb)
{
	const struct config *settings_now = settings();
	struct packet packet = {};

	if (!settings_now || !settings_now->mark_mask ||
	    (skb->mark & settings_now->mark_mask) != settings_now->mark_local)
		return TCX_NEXT;
	switch (classify(skb, ETH_HLEN, &packet)) {
	case TCP:
		break;
	case NOT_A_TARGET:
		return TCX_NEXT;
	default:
		count(INGRESS_OPAQUE);
		return TCX_DROP;
	}
	/* Without a listener it must not reach a socket of this host that has the target's port. */
	return deliver(skb, &packet) == DELIVERED ? TCX_NEXT : TCX_DROP;
}

/* The proxy's own: made in its cgroup, by the storage, and in it still, by the socket. A forwarded
 * or bridged packet may carry a socket that ingress assigned, so the packet must not have come
 * from a device. */
static __always_inline bool is_proxy_socket(struct __sk_buff *skb, const struct config *settings_now)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk || skb->ingress_ifindex)
		return false;
	sk = bpf_sk_fullsock(sk);
	if (!sk || !bpf_sk_storage_get(&exempt, sk, NULL, 0))
		return false;
	return bpf_skb_cgroup_id(skb) == settings_now->proxy_cgroup;
}

static __always_inline int guard(struct __sk_buff *skb, __u32 link_header, bool loopback)
{
	const struct config *settings_now = settings();
	struct packet packet = {};
	__u8 proxy = FLOW_PROXY;

	if (!settings_now || !settings_now->proxy_cgroup)
		return TCX_NEXT;
	/* On its way to ingress_lo. */
	if (loopback && (skb->mark & settings_now->mark_mask) == settings_now->mark_local)
		return TCX_NEXT;
	switch (classify(skb, link_header, &packet)) {
	case NOT_A_TARGET:
		return TCX_NEXT;
	case TCP:
		break;
	default:
		count(EGRESS_DROPPED);
		return TCX_DROP;
	}
	if (is_proxy_socket(skb, settings_now)) {
		if (packet.syn)
			bpf_map_update_elem(&flows, &packet.flow, &proxy, BPF_ANY);
		count(EGRESS_PROXY);
		return TCX_NEXT;
	}
	/* After close the kernel answers for the connection without its socket. Unless that leaves,
	 * the target keeps the connection in LAST-ACK for minutes. */
	if (packet.closing && bpf_map_lookup_elem(&flows, &packet.flow)) {
		count(EGRESS_CLOSING);
		return TCX_NEXT;
	}
	count(EGRESS_DROPPED);
	return TCX_DROP;
}

SEC("tcx/egress")
int egress_ether(struct __sk_buff *skb)
{
	return guard(skb, ETH_HLEN, false);
}

SEC("tcx/egress")
int egress_ip(struct __sk_buff *skb)
{
	return guard(skb, 0, false);
}

SEC("tcx/egress")
int egress_lo(struct __sk_buff *skb)
{
	return guard(skb, ETH_HLEN, true);
}

/* No helper here is for GPL programs only. */
char LICENSE[] SEC("license") = "Apache-2.0";
