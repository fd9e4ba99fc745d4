// SPDX-License-Identifier: Apache-2.0
/* Target-bound packets: ingress hands them to the proxy, egress lets only the proxy's own leave.
 *
 * C, because aya's classifier has no call for sk_assign, socket storage or a SOCKMAP look-up. The
 * maps of all programs are defined here: libbpf checks a pinned map against its definition before it
 * takes it over, and aya does not.
 *
 * Must not know what a policy is: a packet is a target's by address and port alone. */
#include <linux/bpf.h>
#include <linux/icmpv6.h>
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

/* From net/ip.h. */
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* From linux/icmp.h, which drags in the C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_HEADER_BYTES 8 /* of ICMPv6, too */

/* From linux/socket.h. */
#define AF_INET 2

/* From net/ipv6.h. */
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_AUTH 51
#define NEXTHDR_DEST 60
#define NEXTHDR_MOBILITY 135
#define NEXTHDR_HIP 139
#define NEXTHDR_SHIM6 140

/* Between ingress and the stack's look-up lies one pass through the network code. */
#define REUSE_NS_MAX 1000000000ULL

/* From net/tcp_states.h. */
#define TCP_TIME_WAIT 6
#define TCP_LISTEN 10

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 2 * TARGETS_MAX); /* the old ones and the new, while they are replaced */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct prefix_key);
	__type(value, __u32);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 2 * PORTS_MAX);
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

/* Present on sockets that were made in the proxy's cgroup, and on those that its listener accepts: their
 * packets are bound for a target where clients have addresses and ports that are a target's. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, __u32);
} exempt SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, IDENTITIES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u64);
	__type(value, struct identity);
} identities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, IDENTITIES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct tuple_key);
	__type(value, __u64);
} tuples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct flow_key);
	__type(value, __u8);
} flows SEC(".maps");

/* SYNs that ingress left to the stack, and when. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, REUSES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct flow_key);
	__type(value, __u64);
} reuses SEC(".maps");

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
	OPAQUE,	  /* to a target's address, and the port cannot be seen */
	FRAGMENT, /* the first fragment of a packet to a target */
	ICMP,	  /* to a target's address */
	UDP,
	TCP,
};

struct packet {
	struct flow_key flow;
	__u32 offset; /* of the transport header, once it has been reached */
	__u32 length; /* from there on, as the IP header says */
	__u8 protocol;
	bool ipv6;
	bool fragment; /* the first one of several */
	bool later;    /* not the first one */
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

/* The fixed IP header; the addresses are all that most packets are asked for. link_header is 14 where
 * frames begin with an Ethernet header and 0 where they begin with IP. */
static __always_inline bool read_ip(struct __sk_buff *skb, __u32 link_header, struct packet *packet)
{
	__u32 offset = link_header;

	switch (network_protocol(skb, &offset)) {
	case ETH_P_IP: {
		struct iphdr ip;
		__u16 fragment;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return false;
		map_v4(packet->flow.source, ip.saddr);
		map_v4(packet->flow.destination, ip.daddr);
		fragment = bpf_ntohs(ip.frag_off);
		packet->later = fragment & IP_OFFSET;
		packet->fragment = fragment & IP_MF;
		packet->protocol = ip.protocol;
		packet->offset = offset + ip.ihl * 4;
		packet->length = bpf_ntohs(ip.tot_len) - ip.ihl * 4;
		return true;
	}
	case ETH_P_IPV6: {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return false;
		packet->ipv6 = true;
		__builtin_memcpy(packet->flow.source, &ip.saddr, 16);
		__builtin_memcpy(packet->flow.destination, &ip.daddr, 16);
		packet->protocol = ip.nexthdr;
		packet->offset = offset + sizeof(ip);
		packet->length = bpf_ntohs(ip.payload_len);
		return true;
	}
	default:
		return false;
	}
}

/* The headers that can stand between IPv6 and TCP (RFC 8200, RFC 7045). */
static __always_inline bool is_extension_header(__u8 next)
{
	switch (next) {
	case NEXTHDR_HOP: case NEXTHDR_ROUTING: case NEXTHDR_FRAGMENT: case NEXTHDR_AUTH:
	case NEXTHDR_DEST: case NEXTHDR_MOBILITY: case NEXTHDR_HIP: case NEXTHDR_SHIM6:
		return true;
	default:
		return false;
	}
}

/* Moves to the transport header. False where it cannot be told: the headers are too many or cut off,
 * or the packet has further to go than its destination says. A later fragment has none. */
static __always_inline bool reach_transport(struct __sk_buff *skb, struct packet *packet)
{
	struct {
		__u8 next;
		__u8 length;
		__u8 high; /* of a routing header: its type */
		__u8 low;  /* of a routing header: segments left */
	} header;
	__u32 size;

	if (!packet->ipv6)
		return true;
	for (int headers = 0; headers <= EXTENSION_HEADERS_MAX; headers++) {
		if (!is_extension_header(packet->protocol))
			return true;
		if (headers == EXTENSION_HEADERS_MAX ||
		    bpf_skb_load_bytes(skb, packet->offset, &header, sizeof(header)))
			return false;
		size = (header.length + 1) * 8;
		switch (packet->protocol) {
		case NEXTHDR_FRAGMENT:
			if (header.high || header.low & 0xf8) {
				packet->later = true;
				return true;
			}
			packet->fragment = packet->fragment || header.low & 1;
			size = 8;
			break;
		case NEXTHDR_AUTH:
			size = (header.length + 2) * 4;
			break;
		case NEXTHDR_ROUTING:
			if (header.low)
				return false;
			break;
		}
		packet->protocol = header.next;
		packet->offset += size;
		packet->length -= size;
	}
	return false;
}

static __always_inline bool read_ports(struct __sk_buff *skb, __u32 offset, struct flow_key *flow)
{
	__be16 port[2];

	if (bpf_skb_load_bytes(skb, offset, port, sizeof(port)))
		return false;
	flow->source_port = bpf_ntohs(port[0]);
	flow->destination_port = bpf_ntohs(port[1]);
	return true;
}

static __always_inline const __u32 *rule_set_of(const __u8 *address)
{
	struct prefix_key prefix = { .bits = 128 };

	__builtin_memcpy(prefix.address, address, 16);
	return bpf_map_lookup_elem(&targets, &prefix);
}

static __always_inline bool target_has_port(__u32 rule_set, __u16 port)
{
	struct port_key key = {
		.bits = PORT_PREFIX_BITS + 16,
		.rule_set = rule_set,
		.protocol = IPPROTO_TCP,
		.port = bpf_htons(port),
	};

	return bpf_map_lookup_elem(&ports, &key) != NULL;
}

static __always_inline enum kind classify_transport(struct __sk_buff *skb, __u32 rule_set,
						    struct packet *packet)
{
	struct tcphdr tcp;

	if (!reach_transport(skb, packet))
		return OPAQUE;
	/* It is of no use without the first one, which is judged by its port. */
	if (packet->later)
		return NOT_A_TARGET;
	if (packet->protocol == (packet->ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return packet->fragment ? NOT_A_TARGET : ICMP;
	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return NOT_A_TARGET;
	if (!read_ports(skb, packet->offset, &packet->flow))
		return OPAQUE;
	if (!target_has_port(rule_set, packet->flow.destination_port))
		return NOT_A_TARGET;
	if (packet->fragment)
		return FRAGMENT;
	if (packet->protocol == IPPROTO_UDP)
		return UDP;
	if (bpf_skb_load_bytes(skb, packet->offset, &tcp, sizeof(tcp)))
		return OPAQUE;
	packet->syn = tcp.syn;
	packet->rst = tcp.rst;
	packet->closing = !tcp.syn && !tcp.fin && (tcp.ack || tcp.rst) && packet->length == tcp.doff * 4;
	return TCP;
}

static __always_inline enum kind classify(struct __sk_buff *skb, __u32 link_header, struct packet *packet)
{
	const __u32 *rule_set;

	if (!read_ip(skb, link_header, packet))
		return NOT_A_TARGET;
	rule_set = rule_set_of(packet->flow.destination);
	return rule_set ? classify_transport(skb, *rule_set, packet) : NOT_A_TARGET;
}

/* The socket of this host that a segment belongs to; the caller releases it. */
static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb, bool ipv6,
						    const struct flow_key *flow)
{
	struct bpf_sock_tuple tuple = {};

	if (ipv6) {
		__builtin_memcpy(tuple.ipv6.saddr, flow->source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, flow->destination, 16);
		tuple.ipv6.sport = bpf_htons(flow->source_port);
		tuple.ipv6.dport = bpf_htons(flow->destination_port);
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(&tuple.ipv4.saddr, flow->source + 12, 4);
	__builtin_memcpy(&tuple.ipv4.daddr, flow->destination + 12, 4);
	tuple.ipv4.sport = bpf_htons(flow->source_port);
	tuple.ipv4.dport = bpf_htons(flow->destination_port);
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

enum delivery {
	DELIVERED,
	NO_CONNECTION,
	REUSES_TIME_WAIT,
	NO_LISTENER,
	REFUSED,
};

/* To the connection that this segment belongs to. */
static __always_inline enum delivery deliver_to_connection(struct __sk_buff *skb,
							   const struct packet *packet)
{
	struct bpf_sock *sk = find_socket(skb, packet->ipv6, &packet->flow);
	__u32 state;
	long error = 0;

	if (!sk)
		return NO_CONNECTION;
	state = sk->state;
	/* What is in TIME_WAIT cannot be assigned, and need not be: the stack finds it by its addresses. */
	if (state != TCP_LISTEN && state != TCP_TIME_WAIT)
		error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (state == TCP_LISTEN)
		return NO_CONNECTION;
	if (state == TCP_TIME_WAIT && packet->syn)
		return REUSES_TIME_WAIT;
	count(error ? INGRESS_ERROR : INGRESS_ESTABLISHED);
	return error ? REFUSED : DELIVERED;
}

/* Every segment without a connection goes to the listener, not only SYN: the third segment of a
 * handshake with SYN cookies has no socket yet, and a connection that predates the gateway gets its
 * reset at once. */
static __always_inline enum delivery deliver(struct __sk_buff *skb, const struct packet *packet)
{
	enum delivery found = deliver_to_connection(skb, packet);
	struct bpf_sock *sk;
	__u32 zero = 0;
	long error = 0;

	if (found != NO_CONNECTION && found != REUSES_TIME_WAIT)
		return found;
	if (packet->rst) {
		count(INGRESS_RESET);
		return REFUSED;
	}
	sk = bpf_map_lookup_elem(&listener, &zero);
	if (!sk) {
		count(INGRESS_NO_LISTENER);
		return NO_LISTENER;
	}
	/* Given to the listener, this SYN would be in the way of its own connection, which is in
	 * TIME_WAIT still. The stack ends that if the SYN is newer, and then asks answer_reuse. */
	if (found == REUSES_TIME_WAIT) {
		__u64 now = bpf_ktime_get_ns();

		error = bpf_map_update_elem(&reuses, &packet->flow, &now, BPF_ANY);
	} else {
		error = bpf_sk_assign(skb, sk, 0);
	}
	bpf_sk_release(sk);
	count(error ? INGRESS_ERROR : found == REUSES_TIME_WAIT ? INGRESS_REUSE : INGRESS_LISTENER);
	return error ? REFUSED : DELIVERED;
}

/* Asked for the listener of a SYN that reuses a connection in TIME_WAIT. It knows only what ingress
 * has just left to the stack: the proxy's own connection to a target on this host looks the same, and
 * must reach that target. */
SEC("sk_lookup")
int answer_reuse(struct bpf_sk_lookup *ctx)
{
	struct flow_key flow __attribute__((aligned(8))) = {};
	struct bpf_sock *sk;
	__u64 *since, age;
	__u32 zero = 0;
	long error;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (ctx->family == AF_INET) {
		map_v4(flow.source, ctx->remote_ip4);
		map_v4(flow.destination, ctx->local_ip4);
	} else {
		/* The context is read word by word. */
#pragma unroll
		for (int word = 0; word < 4; word++) {
			__u32 remote = *(volatile __u32 *)&ctx->remote_ip6[word];
			__u32 local = *(volatile __u32 *)&ctx->local_ip6[word];

			__builtin_memcpy(flow.source + 4 * word, &remote, 4);
			__builtin_memcpy(flow.destination + 4 * word, &local, 4);
		}
	}
	flow.source_port = bpf_ntohs(ctx->remote_port);
	flow.destination_port = ctx->local_port;
	since = bpf_map_lookup_elem(&reuses, &flow);
	if (!since)
		return SK_PASS;
	age = bpf_ktime_get_ns() - *since;
	bpf_map_delete_elem(&reuses, &flow);
	if (age > REUSE_NS_MAX)
		return SK_PASS;
	sk = bpf_map_lookup_elem(&listener, &zero);
	if (!sk)
		return SK_DROP;
	error = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return error ? SK_DROP : SK_PASS;
}

/* What an ICMP error is about: the TCP packet that it quotes, seen as if its answer came in. */
static __always_inline bool read_quote(struct __sk_buff *skb, const struct packet *packet,
				       struct flow_key *flow)
{
	__u32 offset = packet->offset + ICMP_HEADER_BYTES;
	__be16 port[2];
	__u8 type;

	if (bpf_skb_load_bytes(skb, packet->offset, &type, 1))
		return false;
	if (packet->ipv6) {
		struct ipv6hdr ip;

		if (type < ICMPV6_DEST_UNREACH || type > ICMPV6_PARAMPROB ||
		    bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
			return false;
		__builtin_memcpy(flow->source, &ip.daddr, 16);
		__builtin_memcpy(flow->destination, &ip.saddr, 16);
		offset += sizeof(ip);
	} else {
		struct iphdr ip;

		if (type != ICMP_DEST_UNREACH && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETERPROB)
			return false;
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP ||
		    bpf_ntohs(ip.frag_off) & IP_OFFSET)
			return false;
		map_v4(flow->source, ip.daddr);
		map_v4(flow->destination, ip.saddr);
		offset += ip.ihl * 4;
	}
	if (bpf_skb_load_bytes(skb, offset, port, sizeof(port)))
		return false;
	flow->source_port = bpf_ntohs(port[1]);
	flow->destination_port = bpf_ntohs(port[0]);
	return true;
}

static __always_inline bool is_target(const __u8 *address, __u16 port)
{
	const __u32 *rule_set = rule_set_of(address);

	return rule_set && target_has_port(*rule_set, port);
}

/* Whether an ICMP error is about a connection of the proxy under an address that is not this host's:
 * the target's towards the client, or the client's towards the target. Without it the proxy would not
 * learn the path's MTU. */
static __always_inline bool is_error_for_proxy(struct __sk_buff *skb, const struct packet *packet)
{
	struct flow_key flow = {};
	struct bpf_sock *sk;
	__u32 state;

	if (!read_quote(skb, packet, &flow))
		return false;
	if (!is_target(flow.destination, flow.destination_port) && !is_target(flow.source, flow.source_port))
		return false;
	sk = find_socket(skb, packet->ipv6, &flow);
	if (!sk)
		return false;
	state = sk->state;
	bpf_sk_release(sk);
	return state != TCP_LISTEN;
}

static __always_inline int to_this_host(struct __sk_buff *skb, const struct config *settings_now)
{
	skb->mark = (skb->mark & ~settings_now->mark_mask) | settings_now->mark_transit;
	return TCX_NEXT;
}

/* Where targets see the clients' addresses, their answers are for the proxy all the same. */
static __always_inline int ingress_answer(struct __sk_buff *skb, __u32 link_header,
					  const struct config *settings_now)
{
	struct packet packet = {};
	const __u32 *rule_set;

	if (!read_ip(skb, link_header, &packet))
		return TCX_NEXT;
	if (packet.protocol == (packet.ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		if (packet.later || packet.fragment || !is_error_for_proxy(skb, &packet))
			return TCX_NEXT;
		count(INGRESS_ICMP);
		return to_this_host(skb, settings_now);
	}
	rule_set = rule_set_of(packet.flow.source);
	if (!rule_set || !reach_transport(skb, &packet) || packet.later || packet.fragment ||
	    packet.protocol != IPPROTO_TCP || !read_ports(skb, packet.offset, &packet.flow) ||
	    !target_has_port(*rule_set, packet.flow.source_port))
		return TCX_NEXT;
	switch (deliver_to_connection(skb, &packet)) {
	case DELIVERED:
		return to_this_host(skb, settings_now);
	case REFUSED:
		return TCX_DROP;
	default:
		return TCX_NEXT;
	}
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
		if (settings_now->flags & CONFIG_PRESERVES_CLIENTS)
			return ingress_answer(skb, link_header, settings_now);
		return TCX_NEXT;
	case OPAQUE:
		count(INGRESS_OPAQUE);
		return TCX_DROP;
	case FRAGMENT:
		count(INGRESS_FRAGMENT);
		return TCX_DROP;
	case ICMP:
		if (!is_error_for_proxy(skb, &packet))
			return TCX_NEXT;
		count(INGRESS_ICMP);
		return to_this_host(skb, settings_now);
	case UDP:
		count(INGRESS_UDP);
		return TCX_DROP;
	case TCP:
		break;
	}
	switch (deliver(skb, &packet)) {
	case DELIVERED:
		return to_this_host(skb, settings_now);
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
	case ICMP:
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
	struct bpf_sock *sk = skb->sk, *full;

	if (!sk || skb->ingress_ifindex)
		return false;
	full = bpf_sk_fullsock(sk);
	/* The answer to a SYN comes from a request, which has its listener. */
	if (!full)
		full = bpf_get_listener_sock(sk);
	if (!full || !bpf_sk_storage_get(&exempt, full, NULL, 0))
		return false;
	return bpf_skb_cgroup_id(skb) == settings_now->proxy_cgroup;
}

static __always_inline int guard(struct __sk_buff *skb, __u32 link_header, bool loopback)
{
	const struct config *settings_now = settings();
	struct packet packet = {};
	__u8 one = 1;

	if (!settings_now || !settings_now->proxy_cgroup)
		return TCX_NEXT;
	/* On its way to ingress_lo. */
	if (loopback && (skb->mark & settings_now->mark_mask) == settings_now->mark_local)
		return TCX_NEXT;
	switch (classify(skb, link_header, &packet)) {
	case NOT_A_TARGET:
	case ICMP:
		return TCX_NEXT;
	case TCP:
	case FRAGMENT:
		break;
	default:
		count(EGRESS_DROPPED);
		return TCX_DROP;
	}
	if (is_proxy_socket(skb, settings_now)) {
		if (packet.syn)
			bpf_map_update_elem(&flows, &packet.flow, &one, BPF_ANY);
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
