"""Questions to many storage daemons for one answer over HTTP. Runs on the service's loop.

A few daemons are asked at a time, and what has not answered when the time is over is left out: an answer of many
daemons must not wait for the slowest of them, nor beyond the bridge's deadline.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fs_common.errors import EmberError
from fs_common.methods import Method
from fs_common.peers import PeerPool
from fs_common.records.routing import NodeInfo, NodeState

ASKED_AT_ONCE: Final = 16
ASK_TIMEOUT_S: Final = 2.0
"""For one daemon: it is shown without its answer then."""
ALL_TIMEOUT_S: Final = 4.0
"""For all of them together: less than the bridge waits."""


async def ask_all(
    pool: PeerPool,
    nodes: Sequence[NodeInfo],
    method: Method,
    request: msgspec.Struct,
    *,
    ask_timeout_s: float = ASK_TIMEOUT_S,
    all_timeout_s: float = ALL_TIMEOUT_S,
) -> list[Any]:
    """What each of `nodes` answers, in their order; None: it is not up, or has not answered in time."""
    answers: list[Any] = [None] * len(nodes)
    left = iter([place for place, node in enumerate(nodes) if node.state is NodeState.UP])

    async def ask() -> None:
        for place in left:
            node = nodes[place]
            try:
                answers[place] = await pool.call((node.host, node.port), method, request, timeout=ask_timeout_s)
            except EmberError:
                continue

    lanes = [asyncio.ensure_future(ask()) for _ in range(min(ASKED_AT_ONCE, len(nodes)))]
    if lanes:
        try:
            await asyncio.wait(lanes, timeout=all_timeout_s)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
    return answers
