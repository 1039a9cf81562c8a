#!/usr/bin/env bash
# In the guest: the tests marked `rdma`, with each binding that BINDINGS names. Arguments go to pytest. With SHORT whole
# clusters, wires, the contract of links and 10,000 of anything are left out, which take an emulated machine many minutes;
# after the first binding, all that sees nothing of it.
set -u
failed=0
marked=(-m "rdma${SHORT:+ and not slow}")
[ -z "$SHORT" ] || set -- tests/rdma/test_{guest,verbs_facts,adaptor,adaptor_work,device_link}.py
for binding in $BINDINGS; do
    # The other binding is not there at all, so what falls back to this one does.
    path="${PYVERBS-/opt/pyverbs}"
    [ "$binding" = pyverbs ] || path=""
    printf '\n%s, %s\n' "$binding" "$(uname -r)"
    EMBERFS_RDMA_BINDING="$binding" PYTHONPATH="$path" python -m pytest -p no:cacheprovider --durations=5 -rfE \
        "${marked[@]}" "$@" || {
        printf 'tests with %s: exit code %s\n' "$binding" "$?"
        failed=1
    }
    [ -z "$SHORT" ] || set -- tests/rdma/test_adaptor.py tests/rdma/test_adaptor_work.py
done
exit "$failed"
