// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Unix sockets of local databases: a connection to one would go past the gateway, so it is refused.
 *
 * The kernel asks before it looks the path up: what is known is the text that the client gave, not the
 * socket behind it. A path is judged by its last component, whatever the directories before it say,
 * since `/../`, relative paths and other mounts leave that as it is. A symbolic or hard link with
 * another name is not seen; the modes of the directory close that.
 *
 * An object of its own, because Linux before 6.7 has no such hook and must do without, and because
 * kfuncs are for programs under a licence that is compatible with the GPL. */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "contract.h"

#define PATH_BYTES 108

/* The kernel's own, as far as they are read; CO-RE finds the offsets. */
struct sockaddr_un {
	char sun_path[PATH_BYTES];
} __attribute__((preserve_access_index));

struct bpf_sock_addr_kern {
	void *uaddr;
	__u32 uaddrlen;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *context) __ksym;
extern void *bpf_rdonly_cast(const void *object, __u32 type_id) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, UNIX_NAMES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct unix_name);
	__type(value, __u8);
} unix_names SEC(".maps");

/* As in guard.bpf.c: one map by one pin. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

struct request {
	__u8 path[PATH_BYTES];
	__u32 length;
	/* Where the name that counts begins and ends. */
	__u32 first;
	__u32 end;
	struct unix_name name;
};

static __always_inline void read_path(struct bpf_sock_addr *context, struct request *request)
{
	struct bpf_sock_addr_kern *kernel = bpf_cast_to_kern_ctx(context);
	struct sockaddr_un *un =
		bpf_rdonly_cast(kernel->uaddr, bpf_core_type_id_kernel(struct sockaddr_un));
	__u32 bytes = kernel->uaddrlen;

	/* Two bytes of family come first. */
	request->length = bytes < 2 ? 0 : bytes - 2 < PATH_BYTES ? bytes - 2 : PATH_BYTES;
#pragma unroll
	for (int i = 0; i < PATH_BYTES; i++)
		request->path[i] = un->sun_path[i];
}

/* By bpf_loop, which the verifier follows once; a loop of its own would have it try every path.
 * The index is as wide as a register: a narrower one is widened again behind the check. */
static long find_last_component(__u64 i, struct request *request)
{
	__u8 byte;

	if (i >= request->length || i >= PATH_BYTES)
		return 1;
	byte = request->path[i];
	if (!byte)
		return 1;
	request->end = i + 1;
	if (byte == '/')
		request->first = i + 1;
	return 0;
}

static long copy_name(__u64 i, struct request *request)
{
	__u64 from = request->first + i;

	if (from >= request->end || from >= PATH_BYTES || i >= PATH_BYTES)
		return 1;
	request->name.name[i] = request->path[from];
	request->name.length = i + 1;
	return 0;
}

SEC("cgroup/connect_unix")
int connect_unix(struct bpf_sock_addr *context)
{
	struct request request = {};
	__u32 verdict = CONNECT_UNIX;
	__u64 *counter;

	read_path(context, &request);
	if (!request.length)
		return 1;
	if (request.path[0]) {
		bpf_loop(PATH_BYTES, find_last_component, &request, 0);
	} else {
		request.name.is_abstract = 1;
		request.first = 1;
		request.end = request.length;
	}
	bpf_loop(PATH_BYTES, copy_name, &request, 0);
	if (!request.name.length || !bpf_map_lookup_elem(&unix_names, &request.name))
		return 1;
	counter = bpf_map_lookup_elem(&verdicts, &verdict);
	if (counter)
		*counter += 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
