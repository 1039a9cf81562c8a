"""What `emberfs status` says of requests that took long lately (`slow_operation_ms`), on all servers."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from fs_client.cli.text import put

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

LATELY_S = 600.0
"""Older ones tell nothing of now."""
LINES_MAX = 5


async def slow_operations(fs: "AsyncFileSystem", timeout_s: float) -> list[dict[str, Any]]:
    """Of all servers that tell it, the newest first. Only administrators are told, where security is on."""
    from msgspec.structs import asdict

    from fs_common.errors import EmberError
    from fs_common.methods import SLOW_OPERATIONS
    from fs_common.records.session import Empty
    from fs_common.records.slow import SlowOperationsReply

    async def of(server: str, address: tuple[str, int]) -> list[dict[str, Any]]:
        try:
            reply: SlowOperationsReply = await fs.pool.call(address, SLOW_OPERATIONS, Empty(), timeout=timeout_s)
        except EmberError:
            return []
        return [{"server": server} | asdict(one) for one in reply.operations]

    servers = [("meta", address.host, address.port) for address in fs.metadata.addresses]
    servers += [(f"node {node.node}", node.host, node.port) for node in fs.routing.routing.nodes]
    found = await asyncio.gather(*(of(server, (host, port)) for server, host, port in servers))
    return sorted((one for some in found for one in some), key=lambda one: one["ended_s"], reverse=True)


def put_slow(found: list[dict[str, Any]], now_s: float | None = None) -> None:
    """Those of the last minutes, if there are any."""
    now_s = time.time() if now_s is None else now_s
    lately = [one for one in found if now_s - one["ended_s"] < LATELY_S]
    if not lately:
        return
    put("\ntook long lately, the newest first")
    for one in lately[:LINES_MAX]:
        times = ", ".join(f"{name} {value:g} ms" for name, value in one["times_ms"].items())
        peer = f"from {one['peer']}" if one["peer"] else ""
        details = [one["about"], times, one["error"], peer, f"trace {one['trace']}"]
        ago = max(round(now_s - one["ended_s"]), 0)
        what = f"{one['operation']} took {one['took_ms']:,.0f} ms"
        put(f"{one['server']:<8}  {ago:>3} s ago  {what}: {'; '.join(detail for detail in details if detail)}")
    if len(lately) > LINES_MAX:
        put(f"          and {len(lately) - LINES_MAX} more: emberfs status --json")
