#!/usr/bin/env bash
# The tests that need RDMA devices, in a guest that has some (see guest.sh), with each binding of verbs: Debian's pyverbs 44
# and PyPI's ibverbs.
#
#   tests/rdma/run.sh [--short] [--pyverbs 59] [--timeout S] [PYTEST ARGUMENT...]
#
#   --short        some minutes: all but what makes hundreds of connections, with the first binding; what sees the binding,
#                  with the others. A slow machine leaves out what comes last
#   --pyverbs 59   builds pyverbs 59 and its rdma-core, once, and runs all with that in place of Debian's
#   --timeout S    seconds for the guest (1800)
#   arguments go to pytest, in place of tests/rdma and tests/common/contract
#
# EMBERFS_RDMA_BINDING=pyverbs or ibverbs runs with one binding. EMBERFS_GUEST_VERBOSE=1 tells how long the guest took.
#
# Exit code 77: the guest cannot be had here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { printf 'rdma: %s\n' "$*" >&2; }
version=44 limit_s=1800 short=""
while [ "$#" != 0 ]; do
    case "$1" in
        --short) short=1; shift ;;
        --pyverbs) version="${2:-}"; shift 2 || true ;;
        --timeout) limit_s="${2:-}"; shift 2 || true ;;
        *) break ;;
    esac
done
case "$version" in 44 | 59) ;; *) say "--pyverbs is 44 or 59"; exit 126 ;; esac
[ "$#" != 0 ] || set -- tests/rdma tests/common/contract

. deploy/setup-venv.sh
setup_venv server,dev
python="$PWD/$VENV/bin/python"
bash tests/rdma/guest/image.sh >/dev/null || exit

bindings="${EMBERFS_RDMA_BINDING:-pyverbs ibverbs}"
if ! "$python" -c 'import importlib.util as u; raise SystemExit(u.find_spec("ibverbs") is None)'; then
    "$python" -m pip install -q "ibverbs>=2026.10" </dev/null || {
        say "pip could not install ibverbs: tests run without it"
        bindings="${bindings/ibverbs/}"
    }
fi
options=()
if [ "$version" = 59 ]; then
    built="$(bash tests/rdma/guest/pyverbs59.sh "$python")" || exit
    options+=(--read-only "$built" --env "PYVERBS=$built/python" --env "LD_LIBRARY_PATH=$built/lib")
elif ! "$python" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11))'; then
    say "Debian's pyverbs is for Python 3.11: tests run without it"
    bindings="${bindings/pyverbs/}"
fi
[ -n "${bindings// /}" ] || { say "no binding can be had"; exit 77; }
# The processors of this machine are faster than the guest's.
"$python" -m compileall -q fs_common fs_meta fs_storage fs_client tests >/dev/null || true
exec tests/rdma/guest.sh --host-python --nics 4 --memory 3G --timeout "$limit_s" --env "BINDINGS=$bindings" \
    --env "SHORT=$short" "${options[@]}" bash tests/rdma/guest/tests.sh "$@"
