"""What operators ask of the cluster over the data plane."""

import os
from collections.abc import Sequence

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.peers import PeerPool
from fs_common.records.chains import (
    ChainView,
    ListChains,
    ListChainsReply,
    Rest,
    RotateChain,
    RotateChainReply,
    Standing,
    SyncProgress,
    TargetView,
)
from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_common.records.session import Hello
from fs_common.rpc import Service
from fs_common.transports import tcp
from fs_meta.cluster_calls import register
from tests.support import run

SYNC = SyncProgress(201, 1, 2, 3, 4, 5)
VIEW = ChainView(7, 3, [TargetView(101, 1, PublicState.SERVING, Standing.ABLE, "", 9, SYNC)])
ROTATED = RotateChainReply(Chain(7, 4, [ChainTarget(101, 1, PublicState.SERVING)]), [201], "something")


class Manager:
    def __init__(self) -> None:
        self.asked: list[object] = []

    def list_chains(self, chains: Sequence[int] = (), *, degraded: bool = False) -> ListChainsReply:
        self.asked.append((list(chains), degraded))
        return ListChainsReply(12, [VIEW], resting=True)

    async def rotate(self, chain_id: int, target: int, *, accept_loss: bool) -> RotateChainReply:
        if not accept_loss:
            raise EmberError(Code.NOT_MANAGER)
        self.asked.append((chain_id, target))
        return ROTATED

    async def rest(self) -> None:
        self.asked.append("rest")


def test_the_manager_answers() -> None:
    async def scenario() -> None:
        manager = Manager()
        service = Service("meta", "test", 0)
        register(service, manager)
        server = await tcp.serve(service, "127.0.0.1", 0)
        pool = PeerPool(Hello([1], "client", os.urandom(16), "test"))
        address = (server.host, server.port)
        reply = await pool.call(address, methods.LIST_CHAINS, ListChains([7], True), timeout=10.0)
        assert reply == ListChainsReply(12, [VIEW], True)
        assert await pool.call(address, methods.ROTATE_CHAIN, RotateChain(7, True, 101), timeout=10.0) == ROTATED
        await pool.call(address, methods.REST, Rest(), timeout=10.0)
        assert manager.asked == [([7], True), (7, 101), "rest"]
        try:
            await pool.call(address, methods.ROTATE_CHAIN, RotateChain(7), timeout=10.0)
        except EmberError as error:
            assert error.code is Code.NOT_MANAGER
        else:
            raise AssertionError("the manager's errors are told")
        await pool.close()
        await server.close(0)

    run(scenario())
