"""A process that updates a store until it is killed: `python -m tests.storage.engine.writing_process DIRECTORY`.

Prints a line `CHUNK VERSION FILL LENGTH` for each update that was acknowledged with durability `memory`.
"""

import asyncio
import sys
from pathlib import Path

from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_storage.engine.store import open_store
from tests.storage.engine.updates import prepared, write


async def main(directory: Path) -> None:
    store = await open_store(directory, target=101, checkpoint_interval_s=0.05)

    async def update(index: int) -> None:
        chunk = bytes(chunk_id(1, index))
        version = 0
        while True:
            version += 1
            length = 1000 + version * 7919 % 60_000
            fill = version % 256
            await prepared(store, write(version, bytes([fill]) * length, chunk=chunk, durability=Durability.MEMORY))
            print(index, version, fill, length, flush=True)
            await store.commit([(chunk, version)])

    await asyncio.gather(*(update(index) for index in range(6)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
