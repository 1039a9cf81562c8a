#!/usr/bin/env bash
# In the guest: the tests marked `rdma`, with each binding that BINDINGS names. Arguments go to pytest.
#
# With SHORT: what is in `short`, with the first binding; what sees the binding, with the others. A machine that is too slow
# for that leaves out what comes last, and says so (see within.py).
set -u
failed=0
short=(
    tests/rdma/test_{guest,verbs_facts,adaptor,adaptor_work,device_link,cluster,failover}.py
    tests/common/contract/test_{ends,giving_up,payload,answers,bounds,strangers,hello,many}.py
)
seen=(tests/rdma/test_{adaptor,adaptor_work,device_link}.py)
options=(-p no:cacheprovider -m rdma --durations=5 -rfE)
until_s=330
if [ -n "$SHORT" ]; then
    set -- "${short[@]}"
    options+=(-p tests.rdma.within)
    export EMBERFS_TEST_CONNECTIONS=24
fi
for binding in $BINDINGS; do
    # The other binding is not there at all, so what falls back to this one does.
    path="${PYVERBS-/opt/pyverbs}"
    [ "$binding" = pyverbs ] || path=""
    printf '\n%s, %s\n' "$binding" "$(uname -r)"
    EMBERFS_RDMA_BINDING="$binding" PYTHONPATH="$path" EMBERFS_RDMA_UNTIL_S="$until_s" \
        python -m pytest "${options[@]}" "$@" || {
        printf 'tests with %s: exit code %s\n' "$binding" "$?"
        failed=1
    }
    if [ -n "$SHORT" ]; then
        set -- "${seen[@]}"
        until_s=420
    fi
done
exit "$failed"
