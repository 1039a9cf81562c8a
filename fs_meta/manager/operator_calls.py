"""The manager's calls for operators: resting, listing and rotating chains, nodes, and orders of moves.

A part of `manager.Manager`, which owns the state. Each change holds `_publishing` from looking at the cluster to its
publication, is committed in one transaction that finds the manager's lease in place, and ends whole when its caller
goes away (`_to_its_end`).

Called by: the administration's gRPC service, and `growth`.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.records.chains import ListChainsReply, RotateChainReply, Standing
from fs_common.records.cluster_config import ConfigVersion
from fs_common.records.routing import Chain, NodeState, Routing
from fs_meta.backup import backup
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.manager.chain_watch import ChainWatch
from fs_meta.manager.cluster_config import ClusterConfig
from fs_meta.manager.growth import Order
from fs_meta.manager.lease import ManagerLease
from fs_meta.manager.manager_config import ManagerConfig
from fs_meta.manager.membership import Member, Membership
from fs_meta.manager.move_watch import MoveWatch, Room
from fs_meta.manager.records import REST_KEY, Node, Store, encode
from fs_meta.manager.resting import Resting, record_of
from fs_meta.manager.rotation import rotated
from fs_meta.manager.routing_state import save, save_moves, with_nodes
from fs_meta.manager.views import ChainIds, is_well, page_of, view_of

T = TypeVar("T")
_log = logging.getLogger(__name__)


class OperatorCalls(ABC):
    """What of the manager's state these calls work on; `Manager` says what each is."""

    config: ManagerConfig
    _kv: KeyValueStore
    lease: ManagerLease
    cluster_config: ClusterConfig
    membership: Membership
    move_watch: MoveWatch
    _chains: ChainWatch
    _routing: Routing
    _stored: dict[int, Node]
    _stores: dict[int, Store]
    _publishing: asyncio.Lock

    @abstractmethod
    def _check_manager(self) -> None: ...

    @abstractmethod
    def _check_loaded(self) -> None: ...

    @abstractmethod
    async def _to_its_end(self, change: Coroutine[Any, Any, T]) -> T: ...

    @abstractmethod
    async def _commit(self, put: Callable[[Transaction], Awaitable[None]]) -> None: ...

    @abstractmethod
    async def _publish_now(self) -> None: ...

    @abstractmethod
    def _set_routing(self, routing: Routing) -> None: ...

    @abstractmethod
    def _now_ms(self) -> int: ...

    def configuration(self) -> ClusterConfig:
        """The cluster's configuration, as the manager has it. Raises NOT_MANAGER, CLOSING."""
        self._check_manager()
        return self.cluster_config

    def backup(self) -> AsyncGenerator[bytes, None]:
        """A file with all that the metadata store has (`fs_meta.backup`), in parts. Raises as that, NOT_MANAGER."""
        self._check_manager()
        return backup(self._kv, self.config.cluster)

    async def set_config(self, kind: str, text: str, comment: str, expected: int | None) -> ConfigVersion:
        """A new version of the cluster's configuration: `ClusterConfig.set`, to its end."""
        return await self._to_its_end(self.configuration().set(kind, text, comment, expected))

    async def rest(self) -> None:
        """The whole cluster is about to be taken down: no chain changes until it is back (`resting`). Durable on
        return. Raises NOT_MANAGER, CLOSING, and what the store raises."""
        self._check_manager()
        await self._to_its_end(self._rest())

    async def _rest(self) -> None:
        async with self._publishing:
            self._check_loaded()
            record = record_of(self.membership.members)

            async def put(txn: Transaction) -> None:
                await self.lease.validate(txn)
                txn.put(REST_KEY, encode(record))

            await self._commit(put)
            self._chains.resting = Resting(record, self.config.failure_ms, self._now_ms())
        _log.info("the cluster is taken down: its chains stay as they are")

    def list_chains(
        self, chains: Sequence[int] = (), *, degraded: bool = False, node: int = 0, after: int = 0, limit: int = 0
    ) -> ListChainsReply:
        """A page of how chains and their targets stand, by chain id. `chains`: ids; none: all. `degraded`: only those
        that are not as they should be; `node`: only those with a target there; `after`, `limit`: see `page_of`. A page
        looks at no more chains than it may have, so it may be empty and not be the last one.
        Raises NOT_MANAGER, CLOSING."""
        self._check_manager()
        now_ms = self._now_ms()
        watch = self._chains
        wanted: Sequence[Chain] = watch.on_node(node) if node else self._routing.chains
        if chains:
            named = [chain for number in sorted(set(chains)) if (chain := watch.chain(number)) is not None]
            wanted = [chain for chain in named if not node or any(member.node == node for member in chain.targets)]
        page = page_of(ChainIds(wanted), after, limit)
        views = []
        for chain in wanted[page.first : page.end]:
            seen = watch.standings.see(chain, self.membership, now_ms)
            if degraded and is_well(chain, seen):
                continue
            views.append(view_of(chain, seen, self.membership.members))
        return ListChainsReply(self._routing.version, views, watch.resting is not None, page.next)

    async def rotate(self, chain_id: int, target: int, *, accept_loss: bool) -> RotateChainReply:
        """Give up the dead survivors of a chain that serves nothing (`rotation`). `target`: who serves where no
        survivor is alive; 0: the first that is alive. Without `accept_loss` nothing is changed; with it, it is
        published on return. Raises INVALID where it is not needed or not possible, NOT_MANAGER, CLOSING."""
        self._check_manager()
        return await self._to_its_end(self._rotate(chain_id, target, accept_loss))

    async def _rotate(self, chain_id: int, target: int, accept_loss: bool) -> RotateChainReply:
        async with self._publishing:
            self._check_loaded()
            old = self._routing
            place = next((place for place, chain in enumerate(old.chains) if chain.chain == chain_id), None)
            if place is None:
                raise EmberError(Code.INVALID, f"there is no chain {chain_id}: `emberfs chains` lists them")
            chain = old.chains[place]
            reply = rotated(chain, self._chains.standings.see(chain, self.membership, self._now_ms()), target)
            if accept_loss:
                chains = [*old.chains[:place], reply.chain, *old.chains[place + 1 :]]
                new = msgspec.structs.replace(old, version=old.version + 1, chains=chains)

                async def put(txn: Transaction) -> None:
                    await self.lease.validate(txn)
                    save(txn, old, new, (), ())

                await self._commit(put)
                _log.warning("chain %s: targets %s are given up by an operator", chain_id, reply.given_up)
                self._chains.touch([chain_id])
                self._set_routing(new)
        return reply

    @property
    def targets_per_node(self) -> int:
        return self.config.targets_per_node or self.config.replicas

    def members(self) -> dict[int, Member]:
        """All nodes. Raises NOT_MANAGER, CLOSING."""
        self._check_manager()
        return self.membership.members

    def able(self, chain: Chain) -> set[int]:
        """Target ids of a chain that are alive and whole."""
        seen = self._chains.standings.see(chain, self.membership, self._now_ms())
        return {target for target, stand in seen.stands.items() if stand.standing is Standing.ABLE}

    def rooms(self) -> list[Room]:
        """The nodes that may get targets."""
        return [
            Room(node, member.capacity_bytes - member.used_bytes)
            for node, member in self.membership.members.items()
            if member.state is NodeState.UP and member.beat and not member.drained
        ]

    def size_of(self, chain: Chain) -> int:
        """Bytes that a replica of a chain takes."""
        sizes = [0]
        for member in chain.targets:
            node = self.membership.members.get(member.node)
            said = node.targets.get(member.target) if node is not None else None
            sizes.append(said.used_bytes if said is not None else 0)
        return max(sizes)

    async def order(self, make: Callable[[], Order]) -> Order:
        """Have `make` look at the cluster, and carry out what it returns, in one transaction: nothing changes in
        between, or if it raises. Moves begin at once. Raises NOT_MANAGER, CLOSING, and what the store raises."""
        self._check_manager()
        return await self._to_its_end(self._order(make))

    async def _order(self, make: Callable[[], Order]) -> Order:
        async with self._publishing:
            self._check_loaded()
            order = make()
            old = self._routing
            members = self.membership.members
            kept = [member for node, member in members.items() if node not in order.forgotten]
            records = [
                msgspec.structs.replace(members[node].record(), drained=drained)
                for node, drained in order.drained.items()
            ]
            records += [msgspec.structs.replace(members[node].record(), forgotten=True) for node in order.forgotten]
            new = msgspec.structs.replace(with_nodes(old, kept), chains=[*old.chains, *order.chains])
            if order.chains or order.forgotten:
                new = msgspec.structs.replace(new, version=old.version + 1)
            targets = [member.target for chain in order.chains for member in chain.targets]
            stores = [Store(target, b"", 0, 0, 0) for target in targets]

            async def put(txn: Transaction) -> None:
                await self.lease.validate(txn)
                save(txn, old, new, records, stores)
                save_moves(txn, order.moves)

            await self._commit(put)
            for node, drained in order.drained.items():
                members[node].drained = drained
            for node in order.forgotten:
                self.membership.forget(node)
                self._stored.pop(node, None)
            self._stored |= {record.node: record for record in records if not record.forgotten}
            self._stores.update({store.target: store for store in stores})
            self.move_watch.moves.update({move.move: move for move in order.moves})
            self._set_routing(new)
        await self._publish_now()
        return order

    def chain(self, chain: int) -> Chain | None:
        """The one with this id."""
        return self._chains.chain(chain)

    def hosted(self, node: int) -> int:
        """How many chains have a target on a node."""
        return self._chains.count_on(node)

    def nodes(self) -> list[tuple[Member, int]]:
        """Every node by id, and for how many ms it has been silent."""
        now_ms = self._now_ms()
        members = sorted(self.membership.members.values(), key=lambda member: member.identity.node)
        return [(member, now_ms - member.heard_ms) for member in members]
