"""Clusters that exist only as observations: small, large, degraded."""

from fs_common.ids import ClientId
from fs_common.records.chains import ChainView, ListChainsReply, Standing, SyncProgress, TargetView
from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_common.records.slow import SlowOperation
from fs_common.records.storage import SpaceInfoReply, TargetSpace, TargetTrouble
from fs_common.records.targets import ListTargetsReply, MoveView, NodeView
from fs_meta.clients import Connected
from fs_meta.http.history import META, Piece
from fs_meta.http.observing import Observation

GIB = 1 << 30
S, Y, O = PublicState.SERVING, PublicState.SYNCING, PublicState.OFFLINE


def observation(
    nodes: int = 3,
    chains: int = 3,
    *,
    failed: frozenset[int] = frozenset(),
    syncing: frozenset[int] = frozenset(),
    samples: Piece | None = None,
    now_s: float = 100.0,
    version: int = 7,
    clients: int = 2,
    moves: int = 0,
    name: str = "lab",
    manages: bool = True,
    troubles: int = 0,
    slow: int = 0,
) -> Observation:
    """`failed`: nodes. `syncing`: nodes whose targets are filled up. Chain c is on nodes c, c+1, c+2, round about."""
    infos = [
        NodeInfo(
            n,
            f"192.0.2.{n % 250}",
            9710 + n // 250,
            NodeState.FAILED if n in failed else NodeState.UP,
            64 * GIB,
            (20 + n * 7 % 40) * GIB,
            "0.1.0",
        )
        for n in range(1, nodes + 1)
    ]
    made, views = [], []
    spaces: list[list[TargetSpace]] = [[] for _ in infos]
    for c in range(1, chains + 1):
        members = []
        for k in range(min(3, nodes)):
            n = (c - 1 + k * (1 + (c - 1) // nodes % max(1, nodes // 3))) % nodes + 1
            state = O if n in failed else Y if n in syncing else S
            members.append(ChainTarget(n * 1000 + c, n, state))
            if n not in failed:
                spaces[n - 1].append(TargetSpace(n * 1000 + c, c, 64 * GIB, c * GIB, 64 * c))
        members.sort(key=lambda member: member.state is not S)
        if members and all(member.state is O for member in members):
            members[0] = ChainTarget(members[0].target, members[0].node, PublicState.LASTSRV)
        version_ = 1 + sum(member.state is not S for member in members)
        made.append(Chain(c, version_, members))
        if any(member.state is not S for member in members):
            views.append(_view(made[-1]))
    routing = Routing(
        version, name, infos, made, [ChainTable(1, 1, [chain.chain for chain in made])] if made else [], 3
    )
    views_of_nodes = [
        NodeView(n.node, n.host, n.port, n.state, False, len(spaces[n.node - 1]), 0, 0, n.capacity_bytes, n.used_bytes)
        for n in infos
    ]
    moving = [
        MoveView(m, m, 9000 + m, m % nodes + 1, 1000 + m, m % nodes + 2, "rebalance", "queued", "waits for its turn")
        for m in range(1, moves + 1)
    ]
    connected = [
        Connected(
            ClientId(bytes([k % 256]) * 16),
            f"trainer-{k}.example",
            4000 + k,
            "train.py" if k % 2 else "mount /mnt/ember",
            now_s - 60.0 * k,
            1 + k % 3,
            k % 2 == 0,
        )
        for k in range(clients)
    ]
    return Observation(
        now_s=now_s,
        routing=routing,
        spaces=[
            None
            if info.state is not NodeState.UP
            else SpaceInfoReply(
                64 * GIB,
                64 * GIB - info.used_bytes,
                spaces[info.node - 1],
                [TargetTrouble(spaces[info.node - 1][0].target, "its disk has failed")]
                if info.node <= troubles
                else [],
            )
            for info in infos
        ],
        unheard=frozenset(),
        silent_ms={info.node: 45_000 if info.node in failed else 300 for info in infos},
        chains=ListChainsReply(version, views, False) if manages else None,
        targets=ListTargetsReply(version, views_of_nodes, moving, 3, 3) if manages else None,
        clients=connected,
        inodes=12_345,
        samples=samples or Piece(0, [], {}),
        slow=[
            (
                n % (nodes + 1),
                SlowOperation(
                    operation="update_chunks" if n % 2 else "create",
                    trace=f"{n:08x}",
                    ended_s=1_796_115_600.0 - 37 * n,
                    took_ms=1200.0 + 100 * n,
                    about="inode 17 chunk 3 chain 2" if n % 2 else "in inode 1, '/data/<b>set</b>'",
                    times_ms={"disk": 1100.5, "forward": 20.25} if n % 2 else {},
                    peer=f"client 192.0.2.{n}:4711",
                    error="TIMED_OUT" if n == 3 else "",
                ),
            )
            for n in range(1, slow + 1)
        ],
        rates={
            META: {"rpc_stat_calls": 120.0, "rpc_stat_errors": 1.0, "rpc_create_calls": 3.5, "rpc_create_errors": 0.0},
            **{info.node: {"bytes_read": 1e8 / info.node, "reads": 900.0} for info in infos if info.node not in failed},
        },
    )


def _view(chain: Chain) -> ChainView:
    targets = []
    filled = next((member for member in chain.targets if member.state is Y), None)
    tail = max((place for place, member in enumerate(chain.targets) if member.state is S), default=-1)
    for place, member in enumerate(chain.targets):
        dead = member.state in (O, PublicState.LASTSRV)
        sync = None
        if filled is not None and place == tail:
            sync = SyncProgress(filled.target, 60 + chain.chain % 40, 120, 40, 12 << 20, 10_000)
        targets.append(
            TargetView(
                member.target,
                member.node,
                member.state,
                Standing.DEAD if dead else Standing.ABLE,
                f"node {member.node} has failed" if dead else "",
                GIB,
                sync,
            )
        )
    return ChainView(chain.chain, chain.version, targets)
