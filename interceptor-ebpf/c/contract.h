/* The contract with user space and the Rust programs. Mirrors interceptor-common/src/lib.rs by hand:
 * change both. Addresses are 16 bytes in network order, IPv4 mapped; ports are in host order,
 * but for port_key. */
#ifndef INTERCEPTOR_CONTRACT_H
#define INTERCEPTOR_CONTRACT_H

#include <linux/types.h>

#define TARGETS_MAX 16384
#define PORTS_MAX 524288
#define PORT_PREFIX_BITS 48
#define IDENTITIES_MAX 65536
#define UNIX_NAMES_MAX 1024
#define FLOWS_MAX 65536
#define REUSES_MAX 16384
#define EXTENSION_HEADERS_MAX 8
#define CONFIG_PRESERVES_CLIENTS 1
#define SEVERED_MAX 65536

struct prefix_key {
	__u32 bits;
	__u8 address[16];
};
_Static_assert(sizeof(struct prefix_key) == 20, "prefix_key");

struct port_key {
	__u32 bits;
	__u32 rule_set;
	__u8 protocol;
	__u8 reserved;
	__be16 port;
};
_Static_assert(sizeof(struct port_key) == 12, "port_key");

struct config {
	__u64 proxy_cgroup;
	__u32 mark_local;
	__u32 mark_transit;
	__u32 mark_mask;
	__u32 route_table;
	__u32 rule_priority;
	__u16 listen_port;
	__u16 flags;
};
_Static_assert(sizeof(struct config) == 32, "config");

struct tuple_key {
	__u8 client[16];
	__u8 target[16];
	__u16 client_port;
	__u16 target_port;
	__u32 initial_sequence;
};
_Static_assert(sizeof(struct tuple_key) == 40, "tuple_key");

struct identity {
	__u64 cgroup;
	__u64 connected_boot_ns;
	__u64 started_boot_ns;
	__u64 exec_count;
	__u64 address_space;
	__u32 uid;
	__u32 gid;
	__u32 tgid;
	__u32 tid;
	__u8 destination[16];
	__u8 comm[16];
	__u32 netns;
	__u16 destination_port;
	__u16 ambiguous;
};
_Static_assert(sizeof(struct identity) == 96, "identity");

struct task_now {
	__u64 started_boot_ns;
	__u64 exec_count;
	__u64 address_space;
	__u64 executable_magic;
	__u32 executable_userns;
	__u32 reserved;
};
_Static_assert(sizeof(struct task_now) == 40, "task_now");

struct old_socket {
	__u64 cookie;
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u32 protocol;
};
_Static_assert(sizeof(struct old_socket) == 48, "old_socket");

#define FLOW_PROXY 1
#define FLOW_SEVERED 2

struct flow_key {
	__u8 source[16];
	__u8 destination[16];
	__u16 source_port;
	__u16 destination_port;
};
_Static_assert(sizeof(struct flow_key) == 36, "flow_key");

struct unix_name {
	__u8 name[108];
	__u16 length;
	__u16 is_abstract;
};
_Static_assert(sizeof(struct unix_name) == 112, "unix_name");

struct port_bits {
	__u64 words[1024];
};
_Static_assert(sizeof(struct port_bits) == 8192, "port_bits");

enum verdict {
	CONNECT_STEERED,
	CONNECT_EXEMPT,
	CONNECT_NO_LISTENER,
	CONNECT_UDP,
	CONNECT_DEVICE,
	CONNECT_ERROR,
	SENDMSG_UDP,
	MARK_REFUSED,
	BIND_REFUSED,
	INGRESS_LISTENER,
	INGRESS_ESTABLISHED,
	INGRESS_NO_LISTENER,
	INGRESS_OPAQUE,
	INGRESS_UDP,
	INGRESS_RESET,
	INGRESS_ERROR,
	EGRESS_PROXY,
	EGRESS_CLOSING,
	EGRESS_DROPPED,
	CONNECT_UNIX,
	INGRESS_FRAGMENT,
	INGRESS_ICMP,
	INGRESS_REUSE,
	VERDICTS
};

#endif
