"""The calls about targets and nodes, on the metadata service's port: `emberfs targets`, `drain`, `rebalance`.

Thin: each hands its request to `Growth`.
"""

from collections.abc import Awaitable, Callable

from fs_common import methods
from fs_common.methods import Method
from fs_common.records.targets import MovesReply
from fs_common.rpc import Call, Reply, Service
from fs_meta.manager.growth import Growth


def register_target_calls(service: Service, growth: Growth) -> None:
    """Let `service` answer them."""

    async def list_targets(call: Call) -> Reply:
        return Reply(growth.listed())

    service.register(methods.LIST_TARGETS, list_targets)
    requests: dict[Method, Callable[..., Awaitable[MovesReply]]] = {
        methods.ADD_TARGETS: growth.add,
        methods.REPLACE_TARGET: growth.replace,
        methods.DRAIN: growth.drain,
        methods.REBALANCE: growth.rebalance,
        methods.CANCEL_MOVES: growth.cancel,
        methods.FORGET_NODE: growth.forget,
    }
    for method, ask in requests.items():
        service.register(method, _handler(ask))


def _handler(ask: Callable[..., Awaitable[MovesReply]]) -> Callable[[Call], Awaitable[Reply]]:
    async def handle(call: Call) -> Reply:
        return Reply(await ask(call.request))

    return handle
