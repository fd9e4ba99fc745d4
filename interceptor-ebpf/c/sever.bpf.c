// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Connections that are older than the gateway: a first reading lists those that may be, a second one
 * ends those that user space has put into `doomed` by then.
 *
 * An object of its own, because kernels before 6.5 lack bpf_sock_destroy and refuse all of it. Offered
 * under the GPL too, which that function demands: see docs/adr/0011. Must not know what a target is. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "contract.h"
#include "kernel.h"
#include "socket.h"

/* From net/tcp_states.h. A socket in TIME_WAIT is no more than a note, and one in NEW_SYN_RECV belongs
 * to a server. */
#define TCP_TIME_WAIT 6
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define TCP_NEW_SYN_RECV 12

/* Made in the proxy's cgroup: its own, or a predecessor's that still sends its last bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, __u32);
} exempt SEC(".maps");

/* Cookies of the sockets to end. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SEVERED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} doomed SEC(".maps");

/* What a steered connection has: it reaches the proxy, or nobody. */
const volatile struct {
	__u32 mask;
	__u32 local;
} mark;

int bpf_sock_destroy(struct sock_common *sk) __ksym;

static __always_inline bool is_carried(struct sock_common *common, const struct sock *sk)
{
	return (mark.mask && (sk->sk_mark & mark.mask) == mark.local) ||
	       bpf_sk_storage_get(&exempt, common, NULL, 0);
}

static __always_inline void list(struct bpf_iter_meta *meta, struct sock_common *common, __u64 cookie,
				 __u32 protocol)
{
	struct old_socket old = { .cookie = cookie, .protocol = protocol };

	socket_addresses(common, old.local, old.remote);
	old.local_port = common->skc_num;
	old.remote_port = bpf_ntohs(common->skc_dport);
	if (old.remote_port)
		bpf_seq_write(meta->seq, &old, sizeof(old));
}

SEC("iter/tcp")
int old_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tcp;
	__u64 cookie;

	if (!common || common->skc_state == TCP_TIME_WAIT || common->skc_state == TCP_CLOSE ||
	    common->skc_state == TCP_LISTEN || common->skc_state == TCP_NEW_SYN_RECV)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp || is_carried(common, &tcp->inet_conn.icsk_inet.sk))
		return 0;
	cookie = bpf_get_socket_cookie(common);
	if (bpf_map_lookup_elem(&doomed, &cookie))
		bpf_sock_destroy(common);
	else
		list(ctx->meta, common, cookie, IPPROTO_TCP);
	return 0;
}

SEC("iter/udp")
int old_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *udp = ctx->udp_sk;
	struct sock_common *common;
	__u64 cookie;

	if (!udp)
		return 0;
	common = (struct sock_common *)udp;
	if (is_carried(common, &udp->inet.sk))
		return 0;
	cookie = bpf_get_socket_cookie(common);
	if (bpf_map_lookup_elem(&doomed, &cookie))
		bpf_sock_destroy(common);
	else
		list(ctx->meta, common, cookie, IPPROTO_UDP);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
