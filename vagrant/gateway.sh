#!/bin/bash
# The gateway: has what building interceptor needs, and says whether its kernel can run it. network.sh
# makes it route between client and target.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends ca-certificates curl gcc git libc6-dev

install -d /var/tmp/interceptor-tests/demo
install -m 0600 /dev/null /var/tmp/interceptor-tests/demo/catalog.password
printf 'catalog-password' >/var/tmp/interceptor-tests/demo/catalog.password

if ! command -v cargo >/dev/null; then
    curl -fsS https://sh.rustup.rs | sh -s -- -y --profile minimal
    ln -sf /root/.cargo/bin/* /usr/local/bin/
fi
cd /interceptor
cargo xtask setup
cargo build --release -p interceptor-user
target/release/interceptor doctor
