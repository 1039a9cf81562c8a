"""Copies of removing requests that come after their client has gone on."""

import asyncio
from pathlib import Path

from fs_common.errors import Code
from fs_common.methods import REMOVE_CHUNKS
from fs_common.records.storage import RemoveChunks, RemoveChunksReply
from tests.storage.chain import CLIENT, TIMEOUT_S, chain_of, eventually
from tests.storage.refusals import refused
from tests.support import run


def test_a_late_copy_of_a_removal_removes_nothing(tmp_path: Path) -> None:
    """Neither after its own answer nor after a later removal, whatever was written since."""

    async def scenario() -> None:
        async with chain_of(tmp_path) as chain:

            async def remove(sequence: int, client: bytes = CLIENT) -> RemoveChunksReply:
                request = RemoveChunks(1, 1, 7, 0, 10, client, sequence)
                reply: RemoveChunksReply = await chain.pool.call(
                    chain.address(1), REMOVE_CHUNKS, request, timeout=TIMEOUT_S
                )
                return reply

            await chain.update(b"old")
            assert (await remove(5)).removed == 1
            await chain.update(b"new")
            assert await remove(5) == RemoveChunksReply(1, False), "as it was answered"
            with refused(Code.UPDATE_STALE):
                await remove(4)
            assert await chain.read_everywhere() == b"new"
            assert (await remove(1, b"another-client-1")).removed == 1
            # One that has begun ends where a later one comes.
            await chain.update(b"newer", index=1)
            gate = chain.store(1, 0).before_prepare
            gate.hold()
            first, second = asyncio.create_task(remove(6)), asyncio.create_task(remove(7))
            await gate.reached.wait()
            await eventually(lambda: chain.target(1, 0).in_flight == 2)
            gate.release()
            with refused(Code.UPDATE_STALE):
                await first
            assert not (await second).more

    run(scenario())
