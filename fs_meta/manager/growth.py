"""What operators ask of a cluster that grows, shrinks and is repaired: requests become moves and chains.

Each request looks at the cluster, has a plan made where it needs one (`planner`, in a process of its own), and orders
it from the manager in one transaction, in which it is looked at again: a plan for chains that have changed meanwhile
is refused. From then on the moves go on by themselves (`moves`), whoever is the manager.

Refusals say what is missing: too few nodes, a chain that nobody able serves, a node that is not there.

Called by: the administration's gRPC service.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.records.chains import SyncProgress
from fs_common.records.cluster_config import ConfigReport, ConfigStatus
from fs_common.records.routing import Chain, ChainTarget, NodeState, PublicState, Routing
from fs_common.records.targets import (
    AddTargets,
    CancelMoves,
    Drain,
    ForgetNode,
    ListMovesReply,
    ListNodesReply,
    ListTargetsReply,
    MovesReply,
    MoveView,
    NodeView,
    Rebalance,
    ReplaceTarget,
)
from fs_common.settings import STORAGE
from fs_meta.manager import planner
from fs_meta.manager.cluster_config import ClusterConfig
from fs_meta.manager.membership import Member
from fs_meta.manager.move_watch import MoveWatch, Room, best_node
from fs_meta.manager.moves import OVER, cancelled, waits_for
from fs_meta.manager.planner import PlanReply, PlanRequest
from fs_meta.manager.records import Move, MoveCause, MoveState
from fs_meta.manager.target_ids import TargetIds
from fs_meta.manager.views import page_of

_SURVIVES = (PublicState.SERVING, PublicState.LASTSRV)


class Order(NamedTuple):
    """What a request changes, in one transaction."""

    moves: Sequence[Move] = ()
    """New ones, and those that are changed."""
    chains: Sequence[Chain] = ()
    """New ones."""
    drained: dict[int, bool] = {}  # noqa: RUF012 - never changed
    """By node."""
    forgotten: Sequence[int] = ()
    """Nodes."""


class Cluster(Protocol):
    """What this module needs of the manager."""

    @property
    def routing(self) -> Routing: ...
    @property
    def move_watch(self) -> MoveWatch: ...
    @property
    def target_ids(self) -> TargetIds: ...
    @property
    def cluster_config(self) -> ClusterConfig: ...
    @property
    def targets_per_node(self) -> int: ...

    def members(self) -> dict[int, Member]: ...

    def nodes(self) -> list[tuple[Member, int]]: ...

    def hosted(self, node: int) -> int: ...

    def chain(self, chain: int) -> Chain | None: ...

    def able(self, chain: Chain) -> Collection[int]:
        """Target ids that are alive and whole."""

    def rooms(self) -> list[Room]: ...

    def size_of(self, chain: Chain) -> int: ...

    async def order(self, make: Callable[[], Order]) -> Order:
        """Have `make` look at the cluster, and carry out what it returns. Nothing changes in between, or if it
        raises."""


class _Wish(NamedTuple):
    """A move that is wanted."""

    chain: int
    node: int
    """0: no target joins."""
    leaves: int


class Growth:
    def __init__(self, cluster: Cluster, ask: Callable[[PlanRequest], Awaitable[PlanReply]] = planner.ask) -> None:
        self._cluster = cluster
        self._ask = ask

    # --- what there is ----------------------------------------------------------------------------------------

    def listed(self) -> ListTargetsReply:
        """All nodes and moves at once, for those who are in this process. Raises NOT_MANAGER, CLOSING."""
        cluster = self._cluster
        cluster.members()
        moves = [self._view(move) for _, move in sorted(cluster.move_watch.moves.items())]
        routing = cluster.routing
        return ListTargetsReply(
            routing.version, self._node_views(cluster.nodes()), moves, routing.replicas, cluster.targets_per_node
        )

    def nodes(self, after: int = 0, limit: int = 0) -> ListNodesReply:
        """A page of the nodes, by id (`views.page_of`). Raises NOT_MANAGER, CLOSING."""
        cluster = self._cluster
        cluster.members()
        known = cluster.nodes()
        page = page_of([member.identity.node for member, _ in known], after, limit)
        views = self._node_views(known[page.first : page.end])
        newest = cluster.cluster_config.current(STORAGE).version
        return ListNodesReply(views, page.next, cluster.routing.replicas, cluster.targets_per_node, newest)

    def _node_views(self, nodes: Iterable[tuple[Member, int]]) -> list[NodeView]:
        """With for how many ms each is silent."""
        active = self._cluster.move_watch.active
        newest = self._cluster.cluster_config.current(STORAGE).version
        joining = Counter(move.node for move in active if move.joins)
        leaving = Counter(self._source(move) for move in active if move.leaves)
        return [
            NodeView(
                member.identity.node,
                member.identity.host,
                member.identity.port,
                member.state,
                member.drained,
                self._cluster.hosted(member.identity.node),
                joining[member.identity.node],
                leaving[member.identity.node],
                member.capacity_bytes,
                member.used_bytes,
                member.identity.release,
                silent_ms if member.state is NodeState.UP else 0,
                member.routing_version,
                config_of(member, newest),
            )
            for member, silent_ms in nodes
        ]

    def node(self, number: int) -> NodeView:
        """One of them. Raises INVALID: there is none; NOT_MANAGER, CLOSING."""
        self._require_node(number)
        return self.nodes(number - 1, 1).nodes[0]

    def moves(self, after: int = 0, limit: int = 0, *, active: bool = False) -> ListMovesReply:
        """A page of the moves, by id (`views.page_of`). `active`: only those that are not over.
        Raises NOT_MANAGER, CLOSING."""
        cluster = self._cluster
        cluster.members()
        moves = cluster.move_watch.moves
        numbers = sorted(number for number, move in moves.items() if not active or move.state not in OVER)
        page = page_of(numbers, after, limit)
        return ListMovesReply([self._view(moves[number]) for number in numbers[page.first : page.end]], page.next)

    # --- requests ---------------------------------------------------------------------------------------------

    async def rebalance(self, request: Rebalance) -> MovesReply:
        """Raises INVALID, CLUSTER_NOT_READY, and what the manager raises."""
        self._require_ready()
        before = self._snapshot()
        plan = await self._plan(before, self._able_nodes(), balance=True)
        return await self._carry_out(
            before, plan, MoveCause.REBALANCE, self._short(), new_chains=True, dry_run=request.dry_run
        )

    async def add(self, request: AddTargets) -> MovesReply:
        """Raises INVALID, and what the manager raises."""
        self._require_ready()
        node = self._require_node(request.node)
        if node.state is not NodeState.UP:
            raise EmberError(Code.INVALID, f"node {request.node} is not up: start its daemon first")
        if node.drained:
            raise EmberError(
                Code.INVALID,
                f"node {request.node} is drained: `emberfs drain --undo {request.node}` lets it have targets again",
            )
        before = self._snapshot()
        plan = await self._plan(before, self._able_nodes(), balance=True)
        here = [move for move in plan.relocations if move.node == request.node]
        plan = msgspec.structs.replace(plan, relocations=here, chains=[])
        short = [wish for wish in self._short(first=request.node) if wish.node == request.node]
        return await self._carry_out(before, plan, MoveCause.OPERATOR, short, new_chains=False, dry_run=request.dry_run)

    async def replace(self, request: ReplaceTarget) -> MovesReply:
        """Raises INVALID, and what the manager raises."""

        def make() -> Order:
            chain, member = self._require_target(request.target)
            self._require_served(chain)
            node = request.node or self._place_for(chain, member)
            if request.node:
                self._require_able_node(request.node, chain, member.node)
            if node == member.node and member.state in _SURVIVES:
                raise EmberError(
                    Code.INVALID,
                    f"target {request.target} serves: `emberfs drain {request.target}` moves it to another node",
                )
            return Order(self._moves([_Wish(chain.chain, node, request.target)], MoveCause.OPERATOR))

        return await self._ordered(make, dry_run=request.dry_run)

    async def drain(self, request: Drain) -> MovesReply:
        """Raises INVALID, and what the manager raises."""
        if bool(request.node) == bool(request.target):
            raise EmberError(Code.INVALID, "either a node or a target is drained")
        if request.undo:
            return await self._undo_drain(request)
        if request.target:

            def make() -> Order:
                chain, member = self._require_target(request.target)
                self._require_served(chain)
                node = self._place_for(chain, member, elsewhere=True)
                return Order(self._moves([_Wish(chain.chain, node, request.target)], MoveCause.DRAIN))

            return await self._ordered(make, dry_run=request.dry_run)
        self._require_ready()
        self._require_node(request.node)
        able = self._able_nodes() - {request.node}
        before = self._snapshot()
        plan = await self._plan(before, able, balance=False, emptied={request.node})
        if plan.stuck:
            chains = ", ".join(str(before[at][0]) for at, _ in plan.stuck[:5])
            raise EmberError(
                Code.INVALID,
                f"node {request.node} cannot be drained: {len(able)} other nodes can take targets, and the"
                f" {self._cluster.routing.replicas} replicas of chain {chains} need as many others: add a node first",
            )
        for at in {relocation.chain for relocation in plan.relocations}:
            self._require_served(self._chain(before[at][0]))
        drained = {request.node: True}
        return await self._carry_out(
            before, plan, MoveCause.DRAIN, [], new_chains=False, dry_run=request.dry_run, drained=drained
        )

    async def cancel(self, request: CancelMoves) -> MovesReply:
        """Raises INVALID (a move that is not there), and what the manager raises."""

        def make() -> Order:
            watch = self._cluster.move_watch
            for number in request.moves:
                if number not in watch.moves:
                    raise EmberError(Code.INVALID, f"there is no move {number}: `emberfs targets moves` lists them")
            wanted = request.moves or [move.move for move in watch.active]
            return Order([cancelled(watch.moves[number]) for number in wanted])

        return await self._ordered(make, dry_run=False)

    async def forget(self, request: ForgetNode) -> MovesReply:
        """Raises INVALID, and what the manager raises."""

        def make() -> Order:
            member = self._require_node(request.node)
            if member.state is NodeState.UP:
                raise EmberError(Code.INVALID, f"node {request.node} is up: stop its daemon first")
            held = [chain.chain for chain in self._cluster.routing.chains if _on(chain, request.node)]
            if held:
                raise EmberError(
                    Code.INVALID,
                    f"node {request.node} has targets on {len(held)} chains: `emberfs drain {request.node}` first",
                )
            if any(move.node == request.node for move in self._cluster.move_watch.active):
                raise EmberError(Code.INVALID, f"node {request.node} is to get targets: cancel those moves first")
            return Order(forgotten=[request.node])

        return await self._ordered(make, dry_run=False)

    # --- plans ------------------------------------------------------------------------------------------------

    def _snapshot(self) -> list[tuple[int, list[tuple[int, int]]]]:
        """Of each chain (target, node), as they will be when the moves there are have ended."""
        watch = self._cluster.move_watch
        return [(chain.chain, watch.members(chain)) for chain in self._cluster.routing.chains]

    async def _plan(
        self,
        before: Sequence[tuple[int, Sequence[tuple[int, int]]]],
        able: Collection[int],
        *,
        balance: bool,
        emptied: Collection[int] = (),
    ) -> PlanReply:
        drained = {node for node, member in self._cluster.members().items() if member.drained}
        replicas = self._cluster.routing.replicas
        if balance and len(able) < replicas:
            raise EmberError(
                Code.INVALID,
                f"{len(able)} nodes can take targets, and chains have {replicas} replicas on as many nodes: start or"
                " add nodes first",
            )
        return await self._ask(
            PlanRequest(
                chains=[[node for _, node in members] for _, members in before],
                able=sorted(able),
                emptied=sorted(drained | set(emptied)) if balance else sorted(emptied),
                replicas=replicas,
                targets_per_node=self._cluster.targets_per_node,
                balance=balance,
            )
        )

    async def _carry_out(
        self,
        before: Sequence[tuple[int, Sequence[tuple[int, int]]]],
        plan: PlanReply,
        cause: MoveCause,
        short: Iterable[_Wish],
        *,
        new_chains: bool,
        dry_run: bool,
        drained: dict[int, bool] | None = None,
    ) -> MovesReply:
        wishes = list(short)
        for relocation in plan.relocations:
            chain, members = before[relocation.chain]
            leaves = next(target for target, node in members if node == relocation.source)
            wishes.append(_Wish(chain, relocation.node, leaves))

        def make() -> Order:
            if self._snapshot() != list(before):
                raise EmberError(Code.BUSY, "chains have changed while the plan was made: ask again")
            return Order(self._moves(wishes, cause), self._chains(plan.chains) if new_chains else [], drained or {})

        reply = await self._ordered(make, dry_run=dry_run)
        return msgspec.structs.replace(
            reply,
            least_moves=plan.least,
            spread_before=plan.before.over_even,
            spread_after=plan.after.over_even,
            spread_possible=plan.after.bound_over_even,
        )

    def _moves(self, wishes: Iterable[_Wish], cause: MoveCause) -> list[Move]:
        cluster = self._cluster
        moved = {target for move in cluster.move_watch.active for target in (move.leaves, move.joins) if target}
        made = []
        for number, wish in enumerate(wishes, cluster.move_watch.next_id()):
            if wish.leaves in moved:
                raise EmberError(
                    Code.INVALID, f"target {wish.leaves} is on its way already: `emberfs targets moves` shows it"
                )
            joins = cluster.target_ids.allocate(wish.node) if wish.node else 0
            made.append(Move(number, wish.chain, joins, wish.node, wish.leaves, cause))
        return made

    def _chains(self, layouts: Iterable[Sequence[int]]) -> list[Chain]:
        first = max((chain.chain for chain in self._cluster.routing.chains), default=0) + 1
        allocate = self._cluster.target_ids.allocate
        return [
            Chain(number, 1, [ChainTarget(allocate(node), node, PublicState.SERVING) for node in nodes])
            for number, nodes in enumerate(layouts, first)
        ]

    def _short(self, first: int = 0) -> list[_Wish]:
        """For chains that have too few targets, where one more goes. `first`: a node that is preferred."""
        cluster = self._cluster
        watch = cluster.move_watch
        hosted = Counter(node for chain in cluster.routing.chains for _, node in watch.members(chain))
        wishes = []
        for chain in cluster.routing.chains:
            taken = {node for _, node in watch.members(chain)} | {member.node for member in chain.targets}
            for _ in range(cluster.routing.replicas - len(watch.members(chain))):
                rooms = cluster.rooms()
                node = first if first and first not in taken else best_node(rooms, taken, hosted)
                if node is not None:
                    wishes.append(_Wish(chain.chain, node, 0))
                    taken.add(node)
                    hosted[node] += 1
        return wishes

    async def _undo_drain(self, request: Drain) -> MovesReply:
        def make() -> Order:
            if request.target:
                self._require_target(request.target)
                here = {request.target}
            else:
                self._require_node(request.node)
                chains = self._cluster.routing.chains
                here = {member.target for chain in chains for member in chain.targets if member.node == request.node}
            undone = [
                cancelled(move)
                for move in self._cluster.move_watch.active
                if move.leaves in here and move.cause is MoveCause.DRAIN
            ]
            return Order(undone, drained={request.node: False} if request.node else {})

        return await self._ordered(make, dry_run=request.dry_run)

    async def _ordered(self, make: Callable[[], Order], *, dry_run: bool) -> MovesReply:
        if dry_run:
            order = make()
            placed = [member.target for chain in order.chains for member in chain.targets]
            self._cluster.target_ids.give_back([*placed, *(move.joins for move in order.moves)])
        else:
            order = await self._cluster.order(make)
        views = [self._view(move) for move in order.moves]
        if dry_run:
            views = [msgspec.structs.replace(view, move=0, joins=0) for view in views]
        return MovesReply(views, [[member.node for member in chain.targets] for chain in order.chains])

    # --- what is required -------------------------------------------------------------------------------------

    def _require_ready(self) -> None:
        if not self._cluster.routing.tables:
            raise EmberError(Code.CLUSTER_NOT_READY, "there is no chain yet: the first ones are made by themselves")

    def _require_node(self, node: int) -> Member:
        member = self._cluster.members().get(node)
        if member is None:
            raise EmberError(Code.INVALID, f"there is no node {node}: `emberfs targets` lists them")
        return member

    def _require_target(self, target: int) -> tuple[Chain, ChainTarget]:
        for chain in self._cluster.routing.chains:
            for member in chain.targets:
                if member.target == target:
                    return chain, member
        raise EmberError(Code.INVALID, f"there is no target {target} on any chain: `emberfs chains` lists them")

    def _require_served(self, chain: Chain) -> None:
        able = self._cluster.able(chain)
        if not any(member.state is PublicState.SERVING and member.target in able for member in chain.targets):
            raise EmberError(
                Code.INVALID,
                f"chain {chain.chain} has no survivor that serves and has everything, so nothing can be moved from it:"
                f" `emberfs chains {chain.chain}` says for whom it waits",
            )

    def _require_able_node(self, node: int, chain: Chain, own: int) -> None:
        member = self._require_node(node)
        if member.state is not NodeState.UP or member.drained:
            raise EmberError(Code.INVALID, f"node {node} takes no targets: it is drained, or does not run")
        if node != own and any(other == node for _, other in self._cluster.move_watch.members(chain)):
            raise EmberError(Code.INVALID, f"node {node} has a replica of chain {chain.chain} already: name another")

    def _place_for(self, chain: Chain, member: ChainTarget, *, elsewhere: bool = False) -> int:
        """Where the replacement of a target goes."""
        cluster = self._cluster
        rooms = cluster.rooms()
        if not elsewhere and member.state not in _SURVIVES and any(room.node == member.node for room in rooms):
            return member.node
        members = cluster.move_watch.members(chain)
        taken = {node for _, node in members} | {each.node for each in chain.targets}
        hosted = Counter(node for each in cluster.routing.chains for _, node in cluster.move_watch.members(each))
        node = best_node(rooms, taken, hosted, needed_bytes=cluster.size_of(chain))
        if node is None:
            raise EmberError(
                Code.INVALID,
                f"no other node can take a replica of chain {chain.chain}: each has one already, is drained, does not"
                " run, or has no room: add a node first",
            )
        return node

    # --- small things -----------------------------------------------------------------------------------------

    def _able_nodes(self) -> set[int]:
        return {room.node for room in self._cluster.rooms()}

    def _chain(self, number: int) -> Chain:
        chain = self._cluster.chain(number)
        check(chain is not None, "a plan is for chains that there are", number)
        assert chain is not None
        return chain

    def _source(self, move: Move) -> int:
        """The node of the target that leaves; 0: none leaves, or it is gone."""
        chain = self._cluster.chain(move.chain)
        members = chain.targets if chain is not None else ()
        return next((member.node for member in members if member.target == move.leaves), 0)

    def _view(self, move: Move) -> MoveView:
        cluster = self._cluster
        chain = cluster.chain(move.chain)
        able = cluster.able(chain) if chain is not None and move.state not in OVER else ()
        return MoveView(
            move.move,
            move.chain,
            move.joins,
            move.node,
            move.leaves,
            self._source(move),
            move.cause.name.lower(),
            move.state.name.lower(),
            waits_for(chain, move, able, cluster.move_watch.limits),
            self._progress(chain, move) if move.state is MoveState.FILLING else None,
        )

    def _progress(self, chain: Chain | None, move: Move) -> SyncProgress | None:
        """What the tail says of filling the joining target."""
        members = self._cluster.members()
        for member in chain.targets if chain is not None else ():
            node = members.get(member.node)
            said = node.targets.get(member.target) if node is not None else None
            if said is not None and said.sync is not None and said.sync.target == move.joins:
                return said.sync
        return None


def config_of(member: Member, newest: int) -> ConfigReport:
    """What a node said of its configuration, as it stands to the newest version."""
    said = member.config
    if member.state is not NodeState.UP or said.status is ConfigStatus.UNKNOWN:
        return msgspec.structs.replace(said, status=ConfigStatus.UNKNOWN)
    return said if said.version == newest else msgspec.structs.replace(said, status=ConfigStatus.STALE)


def _on(chain: Chain, node: int) -> bool:
    return any(member.node == node for member in chain.targets)
