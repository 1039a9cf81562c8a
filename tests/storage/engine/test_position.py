"""How far a store's log has come, as others are told, over openings and old copies."""

import shutil
from pathlib import Path

from fs_common.layout import Durability
from tests.storage.engine.quick import open_quick_store
from tests.storage.engine.updates import CHUNK, prepared, write
from tests.support import run


async def update(directory: Path, version: int) -> tuple[int, int]:
    """Open, store one update, close; (position with which it was opened, position after the update)."""
    store = await open_quick_store(directory)
    try:
        await prepared(store, write(version, b"data", durability=Durability.MEMORY))
        await store.commit([(CHUNK, version)])
        return store.recovered, store.position
    finally:
        await store.close()


def test_a_store_is_opened_with_what_it_had_come_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, first = await update(tmp_path / "target", 1)
        shutil.copytree(tmp_path / "target", tmp_path / "copy")
        recovered, second = await update(tmp_path / "target", 2)
        assert first <= recovered < second
        recovered, _ = await update(tmp_path / "target", 3)
        assert recovered >= second
        recovered, _ = await update(tmp_path / "copy", 2)
        assert recovered < second, "an old copy shows"

    run(scenario())
