// SPDX-License-Identifier: Apache-2.0
/* Target-bound packets: ingress hands them to the proxy, egress lets only the proxy's own leave.
 *
 * C, because aya's classifier has no call for sk_assign, socket storage or a SOCKMAP look-up. Most
 * maps of all programs are defined here: libbpf checks a pinned map against its definition before it
 * takes it over, and aya does not.
 *
 * Must not know what a policy is: a packet is a target's by address and port alone. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "contract.h"

/* From linux/bpf.h of 6.6. NEXT asks the programs after this one; OK would silence them. */
#define TCX_NEXT (-1)
#define TCX_DROP 2

/* From linux/socket.h. */
#define AF_INET 2

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

/* A port is in here before it is in `ports`, and until after. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct port_bits);
} any_port SEC(".maps");

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

#include "packet.h"

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
	SEVERED,
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
	enum delivery found = deliver_to_connection(skb, packet);
	struct bpf_sock *sk;
	__u32 zero = 0;
	long error = 0;

	if (found != NO_CONNECTION && found != REUSES_TIME_WAIT)
		return found;
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
	__u8 proxy = FLOW_PROXY;

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
