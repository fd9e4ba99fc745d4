/* What a packet is, as far as targets go: where its transport header is, which ports it has, and what an
 * ICMP error is about. Must not know what becomes of it. The maps `targets`, `ports` and `any_port` are
 * declared by who includes this. */
#ifndef INTERCEPTOR_PACKET_H
#define INTERCEPTOR_PACKET_H

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

/* From net/ip.h. */
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* From linux/icmp.h, which drags in the C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_HEADER_BYTES 8 /* of ICMPv6, too */

/* From net/ipv6.h. */
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_AUTH 51
#define NEXTHDR_DEST 60
#define NEXTHDR_MOBILITY 135
#define NEXTHDR_HIP 139
#define NEXTHDR_SHIM6 140

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
	/* Unrolled: clang lays the loop out so that its head is reached by falling through, which Linux 6.1
	 * refuses (push_insn in kernel/bpf/verifier.c). */
#pragma unroll
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

static __always_inline bool is_target(const __u8 *address, __u16 port)
{
	const __u32 *rule_set = rule_set_of(address);

	return rule_set && target_has_port(*rule_set, port);
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

static __always_inline bool some_target_has_port(__be16 port)
{
	__u16 index = bpf_ntohs(port);
	__u32 zero = 0;
	const struct port_bits *bits = bpf_map_lookup_elem(&any_port, &zero);

	return !bits || bits->words[index >> 6] & 1ULL << (index & 63);
}

/* Whether a packet is no target's by its port alone, which most are: two loads instead of a walk through
 * the trie. Sees only headers that lie in one piece and in their usual form; others get the long look. */
static __always_inline bool has_no_target_port(struct __sk_buff *skb, __u32 link_header)
{
	const void *data = (const void *)(long)skb->data, *end = (const void *)(long)skb->data_end;
	const struct iphdr *v4 = data + link_header;
	const struct ipv6hdr *v6 = data + link_header;
	const struct ethhdr *ether = data;
	const __be16 *ports_of;
	__u8 protocol;

	if ((const void *)(v4 + 1) + 4 > end)
		return false;
	if (v4->version == 4) {
		if (link_header && ether->h_proto != bpf_htons(ETH_P_IP))
			return false;
		if (v4->ihl != 5 || v4->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return false;
		protocol = v4->protocol;
		ports_of = (const void *)(v4 + 1);
	} else {
		if (v4->version != 6 || (const void *)(v6 + 1) + 4 > end)
			return false;
		if (link_header && ether->h_proto != bpf_htons(ETH_P_IPV6))
			return false;
		protocol = v6->nexthdr;
		ports_of = (const void *)(v6 + 1);
	}
	return (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && !some_target_has_port(ports_of[1]);
}

static __always_inline enum kind classify(struct __sk_buff *skb, __u32 link_header, struct packet *packet)
{
	const __u32 *rule_set;

	if (has_no_target_port(skb, link_header))
		return NOT_A_TARGET;
	if (!read_ip(skb, link_header, packet))
		return NOT_A_TARGET;
	rule_set = rule_set_of(packet->flow.destination);
	return rule_set ? classify_transport(skb, *rule_set, packet) : NOT_A_TARGET;
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

#endif
