#!/bin/bash
# The client: psql. network.sh adds a route. Nothing in here knows of the gateway's software.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends postgresql-client
