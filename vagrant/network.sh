#!/bin/bash
# The network of one machine of the three. The tests run this in network namespaces, Vagrant in
# machines of their own:
#
#   client 10.77.1.2 ── 10.77.1.1 gateway 10.77.2.1 ── 10.77.2.2 target
#
# network.sh client DEVICE | gateway CLIENT_DEVICE TARGET_DEVICE | target DEVICE
set -euo pipefail

# Nobody else is on these cables: an address need not wait for others to claim it.
case "${1:-}" in
client)
    ip -batch - <<END
address replace 10.77.1.2/24 dev $2
address replace fd77:1::2/64 dev $2 nodad
link set $2 up
route replace 10.77.0.0/16 via 10.77.1.1
route replace fd77::/32 via fd77:1::1
END
    ;;
gateway)
    ip -batch - <<END
address replace 10.77.1.1/24 dev $2
address replace fd77:1::1/64 dev $2 nodad
address replace 10.77.2.1/24 dev $3
address replace fd77:2::1/64 dev $3 nodad
link set $2 up
link set $3 up
END
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ;;
target)
    # 10.77.2.3 is the same machine, and no policy names it: the way without a gateway.
    ip -batch - <<END
address replace 10.77.2.2/24 dev $2
address replace 10.77.2.3/24 dev $2
address replace fd77:2::2/64 dev $2 nodad
link set $2 up
route replace 10.77.0.0/16 via 10.77.2.1
route replace fd77::/32 via fd77:2::1
END
    ;;
*)
    echo "usage: network.sh client DEVICE | gateway CLIENT_DEVICE TARGET_DEVICE | target DEVICE" >&2
    exit 2
    ;;
esac
