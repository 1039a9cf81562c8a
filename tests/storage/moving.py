"""Chains of `tests.storage.chain` whose members change, as the test says."""

import msgspec

from fs_common.records.routing import ChainTarget, PublicState
from tests.storage.chain import ChainOfDaemons


def move(chain: ChainOfDaemons, states: dict[int, PublicState], *, number: int = 1) -> int:
    """Publish the next version of chain `number`, in which its targets have these states, by place; targets are in the
    order of the manager: who serves, who syncs, the rest. Returns the chain's version."""
    return change(
        chain, {chain.node(number, place) * 100 + number: state for place, state in states.items()}, number=number
    )


def change(chain: ChainOfDaemons, states: dict[int, PublicState], *, number: int = 1) -> int:
    """`move`, by target: those of a state in the order given."""
    old = chain.routing
    assert old is not None
    before = old.chains[number - 1]
    order = (PublicState.SERVING, PublicState.LASTSRV, PublicState.SYNCING, PublicState.WAITING, PublicState.OFFLINE)
    members = [
        ChainTarget(target, target // 100, states[target])
        for target in sorted(states, key=lambda target: order.index(states[target]))
    ]
    changed = msgspec.structs.replace(before, version=before.version + 1, targets=members)
    chains = [*old.chains]
    chains[number - 1] = changed
    chain.routing = msgspec.structs.replace(old, version=old.version + 1, chains=chains)
    for manager in chain.managers.values():
        manager.publish(chain.routing)
    return changed.version
