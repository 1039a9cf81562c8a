"""Are all replicas of a chain the same, byte for byte? Asked over the data plane, when nobody writes.

What each has of every chunk (LIST_HELD): version, digest, length. Then the bytes themselves (PULL_VERSION), which have
to match their checksums and each other. Removals that one has forgotten and another has not are no difference.
"""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable

from fs_common.checksums import matches
from fs_common.errors import EmberError
from fs_common.methods import LIST_HELD, PULL_VERSION
from fs_common.peers import PeerPool
from fs_common.records.mending import HeldChunk, ListHeld, PullVersion
from fs_common.records.routing import Chain, PublicState, Routing

PAGE = 1024
TIMEOUT_S = 10.0
CHUNK_MAX = 64 << 20


class Differ(Exception):
    """`str()` says what differs."""


async def compare(pool: PeerPool, fetch: Callable[[], Awaitable[Routing]], patience_s: float) -> int:
    """The number of chunks. Raises `Differ` if replicas differ for longer than `patience_s`: leftovers are settled and
    removed files collected in the background, and a chain may move once more on a machine that is too busy."""
    deadline = time.monotonic() + patience_s
    total = 0
    for number in sorted(chain.chain for chain in (await fetch()).chains):
        while True:
            try:
                count, different = await _compare_chain(pool, await fetch(), number)
            except EmberError as error:
                different = [str(error)]
            if not different:
                break
            if time.monotonic() > deadline:
                raise Differ(f"chain {number}: " + "; ".join(different[:8]))
            await asyncio.sleep(0.1)
        total += count
    return total


async def _compare_chain(pool: PeerPool, routing: Routing, number: int) -> tuple[int, list[str]]:
    """How many chunks, and what differs. Raises what replicas refuse by, which may pass; `Differ`, which does not."""
    chain = next(chain for chain in routing.chains if chain.chain == number)
    places = range(len(chain.targets))
    lists = await asyncio.gather(*(_held(pool, routing, chain, place) for place in places))
    different = _differences(chain, lists)
    chunks = [chunk for chunk in lists[0].values() if not chunk.removed]
    if not different:
        for start in range(0, len(chunks), 8):
            part = chunks[start : start + 8]
            await asyncio.gather(*(_compare_bytes(pool, routing, chain, chunk) for chunk in part))
    return len(chunks), different


def _address(routing: Routing, chain: Chain, place: int) -> tuple[str, int]:
    (node,) = [node for node in routing.nodes if node.node == chain.targets[place].node]
    return node.host, node.port


async def _held(pool: PeerPool, routing: Routing, chain: Chain, place: int) -> dict[bytes, HeldChunk]:
    found: dict[bytes, HeldChunk] = {}
    after = b""
    while True:
        request = ListHeld(chain.chain, chain.version, after, PAGE)
        reply = await pool.call(_address(routing, chain, place), LIST_HELD, request, timeout=TIMEOUT_S)
        found |= {chunk.chunk: chunk for chunk in reply.chunks}
        if len(reply.chunks) < PAGE:
            return found
        after = reply.chunks[-1].chunk


def _differences(chain: Chain, lists: list[dict[bytes, HeldChunk]]) -> list[str]:
    texts = []
    for target in chain.targets:
        if target.state is not PublicState.SERVING:
            texts.append(f"target {target.target} is {target.state.name}")
    for chunk in sorted({chunk for held in lists for chunk in held}):
        seen = set()
        for held in lists:
            one = held.get(chunk)
            if one is not None and one.pending_version:
                seen.add("something pending")
            elif one is None or not one.version or one.removed:
                seen.add("nothing")
            else:
                seen.add(f"version {one.version}, {one.length} bytes, digest {one.digest:x}")
        if len(seen) > 1 or "something pending" in seen:
            words = ", ".join(
                f"{target.target}: {_words(held.get(chunk))}" for target, held in zip(chain.targets, lists, strict=True)
            )
            texts.append(f"chunk {chunk.hex()}: {words}")
    return texts


def _words(held: HeldChunk | None) -> str:
    if held is None:
        return "nothing"
    text = f"{held.version} ({'removed' if held.removed else f'{held.length} bytes, {held.digest:x}'})"
    return text + (f" and {held.pending_version} pending ({held.pending_digest:x})" if held.pending_version else "")


async def _compare_bytes(pool: PeerPool, routing: Routing, chain: Chain, held: HeldChunk) -> None:
    sums = set()
    for place, target in enumerate(chain.targets):
        into = memoryview(bytearray(held.length))
        request = PullVersion(chain.chain, chain.version, held.chunk, held.digest, False)
        address, views = _address(routing, chain, place), [into] if held.length else []
        reply = await pool.call(address, PULL_VERSION, request, into=views, timeout=TIMEOUT_S)
        if held.length and not matches(into, 0, held.chunk_size, reply.checksums):
            raise Differ(f"chunk {held.chunk.hex()} of target {target.target} does not match its checksums")
        sums.add(zlib.crc32(into))
    if len(sums) > 1:
        raise Differ(f"chunk {held.chunk.hex()} has other bytes on each replica, and one digest")
