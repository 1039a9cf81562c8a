"""Losing power where the manager runs loses no change of a chain that anybody was told."""

import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fs_common.limits import MIB
from fs_common.records.routing import Chain, Routing
from fs_meta.kv.lmdb_engine import Bounds, LmdbStore
from fs_meta.manager.routing_state import load, load_rest
from tests.kv.simulated import SimulatedDisk, SimulatedWorker
from tests.manager.cluster import Bench
from tests.manager.test_moving_chains import Cluster
from tests.storage.engine.virtual_loop import run_virtual

NEVER = Bounds(changes=1_000_000, journal_bytes=1 << 40, interval_s=1e9)


class Told(NamedTuple):
    """A routing that was published, and what a cut at that moment leaves."""

    routing: Routing
    disk: SimulatedDisk
    directory: Path


def use(directory: Path, disk: SimulatedDisk, scenario: Callable[[LmdbStore], Awaitable[None]]) -> None:
    async def opened() -> None:
        kv = LmdbStore.open(
            directory,
            map_size_bytes=4 * MIB,
            bounds=NEVER,
            disk=disk,
            new_thread=lambda name: SimulatedWorker(random.Random(1), disk),
        )
        try:
            await scenario(kv)
        finally:
            await kv.close()

    run_virtual(opened())


@pytest.mark.parametrize("seed", range(3))
def test_what_was_published_is_there_after_a_cut(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    disk = SimulatedDisk()
    told: list[Told] = []

    def note(routing: Routing) -> None:
        copy = tmp_path / f"cut-{len(told)}"
        shutil.copytree(tmp_path / "kv", copy)
        told.append(Told(routing, disk.after_power_loss(choose), copy))

    async def scenario(kv: LmdbStore) -> None:
        async def inner(bench: Bench) -> None:
            bench.manager.subscribe(note)
            cluster = Cluster(bench)
            await cluster.up()
            for victim in (1, 2):
                machine = cluster.machines[victim - 1]
                machine.dies()
                await cluster.later(0.1)
                await cluster.beat(3)
                bench.ports.refusing.clear()
                await machine.start()
                await machine.open()
            for machine in cluster.machines:
                machine.dies()
            await cluster.later(0.1)
            assert cluster.chain().startswith("L")
            machine = cluster.machines[0]
            machine.process += 1
            bench.ports.refusing.clear()
            await machine.start()
            await machine.open()
            await bench.manager.rest()

        await Bench(kv).use(inner)

    use(tmp_path / "kv", disk, scenario)
    changes = {tuple(chain.version for chain in one.routing.chains) for one in told}
    assert len(changes) >= 4, "the chains have changed"
    for one in told:
        found: list[Chain] = []

        async def look(kv: LmdbStore, found: list[Chain] = found) -> None:
            routing, _ = await kv.read(lambda txn: load(txn, "test", 3))
            found.extend(routing.chains)

        use(one.directory, one.disk, look)
        assert found == one.routing.chains, "nobody was told what is not kept"


def test_a_rest_is_there_after_a_cut(tmp_path: Path) -> None:
    disk = SimulatedDisk()

    async def scenario(kv: LmdbStore) -> None:
        async def inner(bench: Bench) -> None:
            await Cluster(bench).up()
            await bench.manager.rest()
            shutil.copytree(tmp_path / "kv", tmp_path / "cut")
            after.append(disk.after_power_loss(random.Random(2)))

        await Bench(kv).use(inner)

    async def look(kv: LmdbStore) -> None:
        rest = await kv.read(load_rest)
        assert rest is not None and [node for node, _ in rest.nodes] == [1, 2, 3]

    after: list[SimulatedDisk] = []
    use(tmp_path / "kv", disk, scenario)
    use(tmp_path / "cut", after[0], look)
