#!/bin/bash
# The client: psql, and a route. Nothing in here knows of the gateway's software.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends postgresql-client-15
ip route replace 10.77.2.0/24 via 10.77.1.1
