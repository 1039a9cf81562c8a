"""The routing as the manager keeps it: what the nodes make of it (pure), and its way to the store and back.

Invariants: the version grows with every published change; what is published has been committed; every version of a
chain table is kept, because layouts name them. Capacity and used bytes of nodes are live figures that the version
does not cover.
"""

from collections.abc import Iterable, Sequence

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.records.routing import Chain, ChainTable, NodeInfo, NodeState, Routing
from fs_meta.kv.interface import Transaction
from fs_meta.manager.membership import Member
from fs_meta.manager.placement import place
from fs_meta.manager.records import (
    CHAINS,
    HEAD_KEY,
    MOVES,
    NODES,
    REST_KEY,
    STORES,
    TABLES,
    Head,
    Move,
    Node,
    RestRecord,
    Store,
    chain_key,
    decode,
    encode,
    move_key,
    node_key,
    store_key,
    table_key,
)

FIRST_TABLE = 1


def with_nodes(routing: Routing, members: Iterable[Member]) -> Routing:
    """The routing with the nodes as they are now."""
    nodes = sorted((member.info() for member in members), key=lambda node: node.node)
    return msgspec.structs.replace(routing, nodes=nodes)


def with_first_table(routing: Routing, storage_nodes: int, targets_per_node: int = 0) -> Routing:
    """With chains and a table over all nodes that are up, once there are `storage_nodes`; else as it is."""
    if routing.tables:
        return routing
    up = [node.node for node in routing.nodes if node.state is NodeState.UP and not node.drained]
    if len(up) < storage_nodes:
        return routing
    chains = place(up, routing.replicas, targets_per_node)
    table = ChainTable(FIRST_TABLE, 1, [chain.chain for chain in chains])
    return msgspec.structs.replace(routing, chains=chains, tables=[table])


def same_version(one: Routing, other: Routing) -> bool:
    """Whether nothing the version covers differs."""
    return _covered(one) == _covered(other)


def _covered(routing: Routing) -> tuple[Sequence[object], Sequence[Chain], Sequence[ChainTable]]:
    nodes = [(node.node, node.host, node.port, node.state, node.release, node.drained) for node in routing.nodes]
    return nodes, routing.chains, routing.tables


async def load(txn: Transaction, cluster: str, replicas: int) -> tuple[Routing, list[Node]]:
    """The stored routing, or an empty one of version 0. WRONG_CLUSTER, INVALID: the store is of another setting."""
    value = await txn.get(HEAD_KEY)
    if value is None:
        return Routing(0, cluster, [], [], [], replicas), []
    head = decode(HEAD_KEY, value, Head)
    if head.cluster != cluster:
        raise EmberError(
            Code.WRONG_CLUSTER,
            f"the metadata store belongs to cluster {head.cluster!r}, the configuration says {cluster!r}",
        )
    nodes = [decode(key, value, Node) for key, value in await txn.range(*NODES)]
    chains = [decode(key, value, Chain) for key, value in await txn.range(*CHAINS)]
    tables = [decode(key, value, ChainTable) for key, value in await txn.range(*TABLES)]
    if tables and head.replicas != replicas:
        raise EmberError(
            Code.INVALID, f"replicas: this cluster's chains have {head.replicas}, the configuration says {replicas}"
        )
    infos = [
        NodeInfo(node.node, node.host, node.port, node.state, node.capacity_bytes, 0, node.release, node.drained)
        for node in nodes
        if not node.forgotten
    ]
    return Routing(head.version, head.cluster, infos, chains, tables, replicas), nodes


async def load_stores(txn: Transaction) -> dict[int, Store]:
    """By target id."""
    stores = [decode(key, value, Store) for key, value in await txn.range(*STORES)]
    return {store.target: store for store in stores}


async def load_moves(txn: Transaction) -> list[Move]:
    return [decode(key, value, Move) for key, value in await txn.range(*MOVES)]


def save_moves(txn: Transaction, moves: Iterable[Move], over: Iterable[int] = ()) -> None:
    """Put the changed ones, and drop those that are over for long."""
    for move in moves:
        txn.put(move_key(move.move), encode(move))
    for number in over:
        txn.delete(move_key(number))


async def load_rest(txn: Transaction) -> RestRecord | None:
    """None: the cluster does not rest."""
    value = await txn.get(REST_KEY)
    return None if value is None else decode(REST_KEY, value, RestRecord)


def placed(old: Routing, new: Routing) -> list[Store]:
    """Records of the targets that `new` places first: they have no store yet."""
    if old.tables or not new.tables:
        return []
    return [Store(member.target, b"", 0, 0, 0) for chain in new.chains for member in chain.targets]


def save(txn: Transaction, old: Routing, new: Routing, nodes: Iterable[Node], stores: Iterable[Store]) -> None:
    """Put what differs; `nodes` and `stores` are the changed ones. The commit of this transaction publishes the new
    version."""
    for store in stores:
        txn.put(store_key(store.target), encode(store))
    txn.put(HEAD_KEY, encode(Head(new.cluster, new.version, new.replicas)))
    for node in nodes:
        txn.put(node_key(node.node), encode(node))
    old_chains = {chain.chain: chain for chain in old.chains}
    for chain in new.chains:
        if old_chains.get(chain.chain) != chain:
            txn.put(chain_key(chain.chain), encode(chain))
    for table in new.tables:
        if table not in old.tables:
            txn.put(table_key(table.table, table.version), encode(table))
