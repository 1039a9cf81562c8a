#!/usr/bin/env bash
# In the guest: the tests marked `rdma`, with each binding that BINDINGS names. Arguments go to pytest.
set -u
failed=0
for binding in $BINDINGS; do
    # The other binding is not there at all, so what falls back to this one does.
    path="${PYVERBS-/opt/pyverbs}"
    [ "$binding" = pyverbs ] || path=""
    printf '\n%s, %s\n' "$binding" "$(uname -r)"
    EMBERFS_RDMA_BINDING="$binding" PYTHONPATH="$path" python -m pytest -p no:cacheprovider --durations=5 -rfE "$@" || {
        printf 'tests with %s: exit code %s\n' "$binding" "$?"
        failed=1
    }
done
exit "$failed"
