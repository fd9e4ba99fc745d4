#!/bin/bash
# The target: PostgreSQL with the sample database, reached through the gateway only.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends postgresql-15

ip route replace 10.77.1.0/24 via 10.77.2.1
sudo -u postgres psql -c "ALTER SYSTEM SET listen_addresses = '*'"
sudo -u postgres psql -c "ALTER SYSTEM SET log_statement = 'all'"
echo "host all all 10.77.0.0/16 scram-sha-256" >>/etc/postgresql/15/main/pg_hba.conf
systemctl restart postgresql
if ! sudo -u postgres psql -lqt | grep -qw shop; then
    sudo -u postgres psql -v ON_ERROR_STOP=1 -f /tmp/shop.sql
fi
