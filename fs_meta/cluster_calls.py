"""What operators ask of the cluster, over the data plane: the command line holds no channel of the control plane.

The same calls as `ListChains`, `RotateChain` and `Rest` of `control.proto`; errors are the manager's. A metadata server
that is not the manager answers NOT_MANAGER.
"""

from collections.abc import Sequence
from typing import Protocol

from fs_common import methods
from fs_common.records.chains import ListChains, ListChainsReply, RotateChain, RotateChainReply
from fs_common.records.session import Empty
from fs_common.rpc import Call, Reply, Service


class ClusterManager(Protocol):
    """What is asked of `manager.manager.Manager`."""

    def list_chains(self, chains: Sequence[int] = (), *, degraded: bool = False) -> ListChainsReply: ...

    async def rotate(self, chain_id: int, target: int, *, accept_loss: bool) -> RotateChainReply: ...

    async def rest(self) -> None: ...


def register(service: Service, manager: ClusterManager) -> None:
    """Answer these calls from `manager`."""

    def list_chains(call: Call) -> Reply:
        request: ListChains = call.request
        return Reply(manager.list_chains(request.chains, degraded=request.degraded))

    async def rotate_chain(call: Call) -> Reply:
        request: RotateChain = call.request
        return Reply(await manager.rotate(request.chain, request.target, accept_loss=request.accept_loss))

    async def rest(call: Call) -> Reply:
        await manager.rest()
        return Reply(Empty())

    service.register(methods.LIST_CHAINS, list_chains)
    service.register(methods.ROTATE_CHAIN, rotate_chain)
    service.register(methods.REST, rest)
