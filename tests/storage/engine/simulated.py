"""A store on a simulated disk, on the loop of a simulation."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fs_storage.engine.store import EngineStore, open_store
from tests.storage.engine.simulated_disk import SimulatedDisk, SimulatedIndex
from tests.storage.engine.updates import disk_reader, take
from tests.storage.engine.virtual_loop import run_virtual

DIRECTORY = Path("/simulated/target-101")
BLOCKS = DIRECTORY / "blocks"


async def open_simulated(disk: SimulatedDisk, **rest: object) -> EngineStore:
    return await open_store(
        DIRECTORY,
        target=101,
        disk=disk,
        open_index=rest.pop("open_index", lambda path: SimulatedIndex(disk)),  # type: ignore[arg-type]
        clock=rest.pop("clock", lambda: 0.0),  # type: ignore[arg-type]
        checkpoint_interval_s=rest.pop("checkpoint_interval_s", 1e9),  # type: ignore[arg-type]
        threaded=False,
        **rest,  # type: ignore[arg-type]
    )


def on_simulated(disk: SimulatedDisk, case: Callable[[EngineStore], Awaitable[None]], **rest: object) -> None:
    """Open, run the case, close."""

    async def body() -> None:
        store = await open_simulated(disk, **rest)
        try:
            await case(store)
        finally:
            await store.close()

    run_virtual(body())


def take_simulated(store: EngineStore, disk: SimulatedDisk, *arguments: object, **rest: object) -> bytes:
    return take(store, *arguments, read_range=disk_reader(disk), **rest)  # type: ignore[arg-type]
