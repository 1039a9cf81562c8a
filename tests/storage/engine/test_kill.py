"""`kill -9` of a real process on real files: what it acknowledged in memory is there."""

import subprocess
import sys
from pathlib import Path

from fs_common.ids import chunk_id
from fs_storage.engine.store import open_store
from tests.storage.engine.audit import audit
from tests.storage.engine.updates import take
from tests.support import run


def test_memory_durability_survives_the_death_of_the_process(tmp_path: Path) -> None:
    acknowledged: dict[int, tuple[int, int, int]] = {}
    command = [sys.executable, "-m", "tests.storage.engine.writing_process", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(600):
            line = process.stdout.readline()
            assert line, "the process writes until it is killed"
            index, version, fill, length = map(int, line.split())
            acknowledged[index] = (version, fill, length)
        process.kill()
        for line in process.stdout:
            if line.endswith("\n"):
                index, version, fill, length = map(int, line.split())
                acknowledged[index] = (version, fill, length)

    async def body() -> None:
        store = await open_store(tmp_path, target=101)
        for index, (version, fill, length) in acknowledged.items():
            chunk = bytes(chunk_id(1, index))
            state = store.state(chunk)
            assert state is not None
            # The process may have gone on for a step after its last line came through.
            newest = max(state.version, state.pending_version)
            assert newest >= version
            if newest == version:
                found = take(store, chunk, pending=state.pending_version == version)
                whole = max(length, len(found))
                assert found[:length] == bytes([fill]) * length and len(found) == whole
        audit(store)
        await store.close()

    run(body())
