#!/usr/bin/env bash
# From a fresh clone to a training loop that reads from a cluster: makes .venv, installs EmberFS and torch in it, and
# runs `emberfs demo` with the arguments given. For Debian and Ubuntu, as root or as a user who may sudo; where Python
# 3.11 with venv is already there, nothing but pip is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/setup-venv.sh
setup_venv server
setup_torch
exec "$VENV/bin/emberfs" demo "$@"
