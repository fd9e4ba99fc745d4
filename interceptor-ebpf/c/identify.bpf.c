// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Who is behind a local connection: what connect4 and connect6 noted on the client's socket is
 * completed when its SYN leaves, and moves to the socket that the proxy accepts.
 *
 * The two sockets are joined by the connection's addresses and the sequence number of its SYN, which
 * the client's kernel draws anew for each attempt. Whatever cannot be told for certain is left out.
 *
 * C, and offered under the GPL too, because the kernel shows a task's structures to no other program:
 * see docs/adr/0011. Must not know what a target or a policy is. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "contract.h"
#include "kernel.h"
#include "socket.h"

/* On a client's socket, from connect to its SYN. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct identity);
} connecting SEC(".maps");

/* From the SYN to the end of the handshake. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, IDENTITIES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct tuple_key);
	__type(value, struct identity);
} tuples SEC(".maps");

/* On an accepted socket, for as long as it lives. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct identity);
} clients SEC(".maps");

/* Both are aligned to eight bytes. */
static __always_inline bool same_address(const __u8 *one, const __u8 *other)
{
	const __u64 *a = (const __u64 *)one, *b = (const __u64 *)other;

	return a[0] == b[0] && a[1] == b[1];
}

/* Which program the current task runs. With TCP_FASTOPEN_CONNECT the SYN leaves in a later call, maybe
 * of another program. */
static __always_inline void add_program(struct identity *identity, struct tcp_sock *tcp)
{
	struct task_struct *task;

	/* bpf_get_current_pid_tgid() is not for sock_ops programs before 6.10. */
	task = bpf_get_current_task_btf();
	if (BPF_CORE_READ_BITFIELD(tcp, fastopen_connect) ||
	    (__u32)task->tgid != identity->tgid || (__u32)task->pid != identity->tid)
		return;
	identity->started_boot_ns = task->group_leader->start_boottime;
	identity->exec_count = task->self_exec_id;
	identity->address_space = (__u64)task->mm;
}

/* The source port and the sequence number are chosen, and no segment has left. */
static __always_inline void begin(struct bpf_sock *sk, struct tcp_sock *tcp)
{
	struct sock_common *common = &tcp->inet_conn.icsk_inet.sk.__sk_common;
	struct identity *identity, *other;
	struct tuple_key key = {};

	identity = bpf_sk_storage_get(&connecting, sk, NULL, 0);
	if (!identity)
		return;
	socket_addresses(common, key.client, key.target);
	key.client_port = common->skc_num;
	key.target_port = bpf_ntohs(common->skc_dport);
	key.initial_sequence = tcp->write_seq;
	/* A call that failed can leave its note on a socket that is then used for another address. */
	if (same_address(key.target, identity->destination) &&
	    key.target_port == identity->destination_port) {
		add_program(identity, tcp);
		identity->netns = common->skc_net.net->ns.inum;
		if (bpf_map_update_elem(&tuples, &key, identity, BPF_NOEXIST)) {
			other = bpf_map_lookup_elem(&tuples, &key);
			if (other)
				other->ambiguous = 1;
		}
	}
	bpf_sk_storage_delete(&connecting, sk);
}

/* Runs before accept can return the socket: until then the kernel holds its lock. */
static __always_inline void established(struct bpf_sock *sk, struct tcp_sock *tcp)
{
	struct sock_common *common = &tcp->inet_conn.icsk_inet.sk.__sk_common;
	struct identity *identity;
	struct tuple_key key = {};

	socket_addresses(common, key.target, key.client);
	key.client_port = bpf_ntohs(common->skc_dport);
	key.target_port = common->skc_num;
	/* Nothing but the SYN has been taken in. */
	key.initial_sequence = tcp->rcv_nxt - 1;
	identity = bpf_map_lookup_elem(&tuples, &key);
	if (!identity)
		return;
	/* Without memory for it the client is unknown. */
	if (!identity->ambiguous)
		bpf_sk_storage_get(&clients, sk, identity, BPF_SK_STORAGE_GET_F_CREATE);
	bpf_map_delete_elem(&tuples, &key);
}

SEC("sockops")
int handshake(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;
	struct tcp_sock *tcp;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		begin(sk, tcp);
	else
		established(sk, tcp);
	return 1;
}

/* One process as it is now. Who has read a process's files and finds it unchanged afterwards has read
 * no other program's. */
SEC("iter/task")
int task(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_now now = {};
	struct super_block *mount;
	struct mm_struct *mm;

	if (!task)
		return 0;
	mm = task->mm;
	now.started_boot_ns = task->group_leader->start_boottime;
	now.exec_count = task->self_exec_id;
	now.address_space = (__u64)mm;
	if (mm) {
		mount = mm->exe_file->f_inode->i_sb;
		now.executable_magic = mount->s_magic;
		now.executable_userns = mount->s_user_ns->ns.inum;
	}
	bpf_seq_write(ctx->meta->seq, &now, sizeof(now));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
