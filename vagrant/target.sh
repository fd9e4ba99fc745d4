#!/bin/bash
# The target: PostgreSQL with the sample database and the configuration that the tests give theirs,
# reached through the gateway only.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends postgresql

# /etc/postgresql/<version>/main; one version is installed.
configuration=$(echo /etc/postgresql/*/main)
install -o postgres -g postgres -m 0640 /tmp/postgresql.conf "$configuration/conf.d/interceptor.conf"
install -o postgres -g postgres -m 0640 /tmp/pg_hba.conf "$configuration/pg_hba.conf"
systemctl restart postgresql
if ! sudo -u postgres psql -lqt | grep -qw shop; then
    sudo -u postgres psql -v ON_ERROR_STOP=1 -f /tmp/shop.sql
fi
