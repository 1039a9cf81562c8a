#!/usr/bin/env bash
# Everything that has to hold before a change goes in: style, types, then all tests, the fast ones first.
# Arguments go to pytest: `tests/run.sh -m "not slow and not system"` is the fast lane, `tests/run.sh tests/cli` a part.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. deploy/setup-venv.sh
setup_venv server,dev
setup_torch || printf '%s\n' "tests that need torch are skipped" >&2
export PATH="$PWD/$VENV/bin:$PATH"

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
