#!/bin/bash
# The target: PostgreSQL with the sample database, reached through the gateway only.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends postgresql-15

sudo -u postgres psql -c "ALTER SYSTEM SET listen_addresses = '*'"
sudo -u postgres psql -c "ALTER SYSTEM SET log_statement = 'all'"
access="host all all 10.77.0.0/16 scram-sha-256"
access_file=/etc/postgresql/15/main/pg_hba.conf
grep -qxF "$access" "$access_file" || echo "$access" >>"$access_file"
systemctl restart postgresql
if ! sudo -u postgres psql -lqt | grep -qw shop; then
    sudo -u postgres psql -v ON_ERROR_STOP=1 -f /tmp/shop.sql
fi
