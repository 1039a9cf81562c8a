"""Chains of `tests.storage.chain` whose members change, as the test says."""

import msgspec

from fs_common.records.routing import ChainTarget, PublicState
from tests.storage.chain import ChainOfDaemons


def move(chain: ChainOfDaemons, states: dict[int, PublicState], *, number: int = 1) -> int:
    """Publish the next version of chain `number`, in which its targets have these states, by place; targets are in the
    order of the manager: who serves, who syncs, the rest. Returns the chain's version."""
    old = chain.routing
    assert old is not None
    before = old.chains[number - 1]
    order = (PublicState.SERVING, PublicState.LASTSRV, PublicState.SYNCING, PublicState.WAITING, PublicState.OFFLINE)
    members = [
        ChainTarget(chain.node(number, place) * 100 + number, chain.node(number, place), states[place])
        for place in sorted(states, key=lambda place: order.index(states[place]))
    ]
    changed = msgspec.structs.replace(before, version=before.version + 1, targets=members)
    chains = [*old.chains]
    chains[number - 1] = changed
    chain.routing = msgspec.structs.replace(old, version=old.version + 1, chains=chains)
    for manager in chain.managers.values():
        manager.publish(chain.routing)
    return changed.version
