"""Waiting until the collector has freed what a benchmark removed."""

import asyncio
import os
import time

import uvloop

from fs_client.options import Address, parse_cluster
from fs_common.methods import GET_ROUTING, SPACE_INFO
from fs_common.peers import PeerPool
from fs_common.records.routing import GetRouting
from fs_common.records.session import PROTOCOL_VERSION, Hello
from fs_common.records.storage import SpaceInfo

_TIMEOUT_S = 10.0
_POLL_S = 0.05


class Space:
    """The chunks of a cluster, as its storage daemons count them."""

    def __init__(self, cluster: str) -> None:
        self._address = parse_cluster(cluster)[0]
        self._chunks_at_start = self._chunks()

    def wait_until_free(self) -> None:
        """Return once there are no more chunks than when this was made; after 10 s in any case, because a cluster that
        is not ours may keep removed files for longer.
        """
        deadline = time.monotonic() + _TIMEOUT_S
        while self._chunks() > self._chunks_at_start and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _chunks(self) -> int:
        chunks: int = uvloop.run(_count_chunks(self._address))
        return chunks


async def _count_chunks(address: Address) -> int:
    pool = PeerPool(Hello([PROTOCOL_VERSION], "client", os.urandom(16)))
    try:
        reply = await pool.call(address, GET_ROUTING, GetRouting(), timeout=_TIMEOUT_S)
        spaces = await asyncio.gather(
            *(
                pool.call((node.host, node.port), SPACE_INFO, SpaceInfo(), timeout=_TIMEOUT_S)
                for node in reply.routing.nodes
            )
        )
        counted: int = sum(target.chunks for space in spaces for target in space.targets)
        return counted
    finally:
        await pool.close()
