#!/usr/bin/env bash
# Everything that has to hold before a change goes in: style, types and all tests.
# Arguments go to pytest: `tests/run.sh -m "not slow and not system"` is the fast lane, `tests/run.sh tests/cli` a part,
# `-n 0` runs them one after another in one process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/setup-venv.sh
setup_venv server,dev
setup_torch || printf '%s\n' "tests that need torch are skipped" >&2
export PATH="$PWD/$VENV/bin:$PATH"

# Users mount through fuse3's helper, and the console is looked at with a browser. Without them, or without /dev/fuse,
# those tests say why they are skipped.
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
install_package() {
    command -v apt-get >/dev/null || return 0
    { timeout --kill-after=10 300 "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$1" || {
        timeout --kill-after=10 120 "${as_root[@]}" apt-get update -qq &&
            timeout --kill-after=10 300 "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$1"
    }; } >/dev/null 2>&1 </dev/null || printf '%s\n' "$1 is not installed: tests that need $2 are skipped" >&2
}
command -v fusermount3 >/dev/null || install_package fuse3 fusermount3
command -v chromium >/dev/null || install_package chromium "a browser"

# All of it runs even if something fails: one run tells everything. Types are checked beside the tests, many of which
# wait for deadlines: one process more than there are processors keeps these busy meanwhile.
failed=()
ruff check . || failed+=("ruff check")
ruff format --check . || failed+=("ruff format")
types="$(mktemp)"
trap 'rm -f -- "$types"' EXIT
mypy >"$types" 2>&1 </dev/null &
mypy=$!
processes="$(($(nproc) + 1))"
if [ "$#" != 0 ]; then
    pytest -n "$processes" --dist worksteal --durations=10 "$@" </dev/null || failed+=("pytest")
else
    pytest -n "$processes" --dist worksteal --durations=10 --ignore=tests/compose </dev/null || failed+=("pytest")
    # Containers, when the processors are free: an image is made, and a cluster hurt. What is left behind if this ends by
    # its limit goes with it.
    timeout --kill-after=60 600 pytest -n 0 -s -rs tests/compose </dev/null || failed+=("compose")
    # Queue pairs need devices, which a guest has. Where that cannot be had, a line of its own says why.
    code=0
    timeout --kill-after=60 840 bash tests/rdma/run.sh --short --timeout 660 </dev/null || code="$?"
    case "$code" in
        0) ;;
        77) printf '%s\n' "tests that need RDMA devices are skipped" >&2 ;;
        # A test that hangs fails by itself.
        124) printf '%s\n' "tests that need RDMA devices were not ended: an emulated machine is too slow here" >&2 ;;
        *) failed+=("rdma") ;;
    esac
fi
wait "$mypy" || failed+=("mypy")
cat -- "$types"
if [ "${#failed[@]}" != 0 ]; then
    printf 'failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
