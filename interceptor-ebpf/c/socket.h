/* Addresses of a socket as the contract has them. */
#ifndef INTERCEPTOR_SOCKET_H
#define INTERCEPTOR_SOCKET_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

/* From linux/socket.h. */
#define AF_INET 2
#define AF_INET6 10

static __always_inline void copy_v6(__u8 *address, const struct in6_addr *from)
{
	__be32 words[4] = {
		from->in6_u.u6_addr32[0],
		from->in6_u.u6_addr32[1],
		from->in6_u.u6_addr32[2],
		from->in6_u.u6_addr32[3],
	};

	__builtin_memcpy(address, words, 16);
}

static __always_inline void copy_v4(__u8 *address, __be32 from)
{
	__be32 words[4] = { 0, 0, bpf_htonl(0xffff), from };

	__builtin_memcpy(address, words, 16);
}

/* An IPv6 socket that speaks IPv4 has its IPv6 source only after the SYN has left. */
static __always_inline bool speaks_v4(const struct sock_common *common)
{
	return common->skc_family == AF_INET ||
	       (common->skc_v6_daddr.in6_u.u6_addr32[0] == 0 &&
		common->skc_v6_daddr.in6_u.u6_addr32[1] == 0 &&
		common->skc_v6_daddr.in6_u.u6_addr32[2] == bpf_htonl(0xffff));
}

static __always_inline void socket_addresses(const struct sock_common *common, __u8 *local, __u8 *remote)
{
	if (speaks_v4(common)) {
		copy_v4(local, common->skc_rcv_saddr);
		copy_v4(remote, common->skc_daddr);
		return;
	}
	copy_v6(local, &common->skc_v6_rcv_saddr);
	copy_v6(remote, &common->skc_v6_daddr);
}

#endif
