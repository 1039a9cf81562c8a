#!/usr/bin/env bash
# In the guest: the tests marked `rdma`, with each binding that BINDINGS names. Arguments go to pytest. With SHORT the slow
# ones are left out, and after the first binding those that see nothing of it: whole clusters, wires, the contract of links.
set -u
failed=0
marked=(-m "rdma${SHORT:+ and not slow}") without=()
for binding in $BINDINGS; do
    # The other binding is not there at all, so what falls back to this one does.
    path="${PYVERBS-/opt/pyverbs}"
    [ "$binding" = pyverbs ] || path=""
    printf '\n%s, %s\n' "$binding" "$(uname -r)"
    EMBERFS_RDMA_BINDING="$binding" PYTHONPATH="$path" python -m pytest -p no:cacheprovider --durations=5 -rfE \
        "${marked[@]}" "${without[@]}" "$@" || {
        printf 'tests with %s: exit code %s\n' "$binding" "$?"
        failed=1
    }
    [ -z "$SHORT" ] || without=(--deselect=tests/rdma/test_cluster.py --deselect=tests/rdma/test_failover.py
        --deselect=tests/common/contract)
done
exit "$failed"
