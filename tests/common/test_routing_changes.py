"""What differs between two routings makes the one of the other."""

import random

import msgspec

from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_common.routing_changes import changed, changes


def whole(version: int = 1) -> Routing:
    nodes = [NodeInfo(node, "127.0.0.1", 9000 + node, NodeState.UP, 100, node) for node in range(1, 6)]
    chains = [
        Chain(chain, 1, [ChainTarget(chain * 10 + place, place, PublicState.SERVING) for place in (1, 2, 3)])
        for chain in range(1, 21)
    ]
    return Routing(version, "c", nodes, chains, [ChainTable(1, 1, list(range(1, 21)))], 3)


def after(chance: random.Random, old: Routing) -> Routing:
    """Another version: some chains and nodes are changed, some have come."""
    chains = list(old.chains)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(chains))
        chain = chains[place]
        targets = [msgspec.structs.replace(one, state=chance.choice(list(PublicState))) for one in chain.targets]
        chains[place] = msgspec.structs.replace(chain, version=chain.version + 1, targets=targets)
    nodes = list(old.nodes)
    place = chance.randrange(len(nodes))
    nodes[place] = msgspec.structs.replace(nodes[place], state=chance.choice(list(NodeState)), port=chance.randrange(9))
    tables = old.tables
    if chance.random() < 0.3:
        chains.append(Chain(len(chains) + 1, 1, []))
        nodes.append(NodeInfo(len(nodes) + 1, "::1", 1, NodeState.UP))
        tables = [*tables, ChainTable(1, len(tables) + 1, [chain.chain for chain in chains])]
    return Routing(old.version + 1, "c", nodes, chains, tables, 3)


def test_changes_make_the_new_of_the_old() -> None:
    chance = random.Random(1)
    for _ in range(50):
        old = new = whole()
        for _ in range(chance.randrange(1, 6)):
            new = after(chance, new)
        news = changes(old, new)
        assert news is not None and changed(old, news) == new


def test_what_is_the_same_is_not_told() -> None:
    old = whole()
    new = msgspec.structs.replace(
        old,
        version=2,
        nodes=[msgspec.structs.replace(node, used_bytes=7) for node in old.nodes],
        chains=[*old.chains[:-1], msgspec.structs.replace(old.chains[-1], version=2)],
    )
    assert changes(old, new) == Routing(2, "c", [], new.chains[-1:], [], 3), "figures of nodes make no news"


def test_what_is_gone_is_told_by_the_whole_alone() -> None:
    old = whole()
    for name in ("nodes", "chains", "tables"):
        fewer = getattr(old, name)[1:]
        assert changes(old, msgspec.structs.replace(old, version=2, **{name: fewer})) is None
    assert changes(old, msgspec.structs.replace(old, version=2, cluster="other")) is None
