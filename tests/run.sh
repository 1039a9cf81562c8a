#!/usr/bin/env bash
# Everything that has to hold before a change goes in: style, types, then all tests, the fast ones first.
# Arguments go to pytest: `tests/run.sh -m "not slow and not system"` is the fast lane, `tests/run.sh tests/cli` a part.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/setup-venv.sh
setup_venv server,dev
setup_torch || printf '%s\n' "tests that need torch are skipped" >&2
export PATH="$PWD/$VENV/bin:$PATH"

# Users mount through its helper. Without it, or without /dev/fuse, those tests say why they are skipped.
if ! command -v fusermount3 >/dev/null && command -v apt-get >/dev/null; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    { "${as_root[@]}" apt-get install -y -qq fuse3 || { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" apt-get install -y -qq fuse3; }; } \
        >/dev/null 2>&1 </dev/null || printf '%s\n' "fuse3 is not installed: tests that need fusermount3 are skipped" >&2
fi

# All of it runs even if something fails: one run tells everything.
failed=()
ruff check . || failed+=("ruff check")
ruff format --check . || failed+=("ruff format")
mypy || failed+=("mypy")
pytest --durations=10 "$@" </dev/null || failed+=("pytest")
if [ "${#failed[@]}" != 0 ]; then
    printf 'failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
