"""Crashes at any step: see `crash_world`. Long runs: `python -m tests.storage.engine.soak`."""

import pytest

from fs_common.errors import EmberError
from fs_common.layout import Durability
from tests.storage.engine.crash_world import World, run_seed
from tests.storage.engine.soak import SMALL_DISK_BYTES, run_one
from tests.storage.engine.virtual_loop import run_virtual


@pytest.mark.parametrize("seed", range(18))
def test_what_was_acknowledged_survives_a_crash(seed: int) -> None:
    run_one(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 50))
def test_many_worlds(first: int) -> None:
    for seed in range(first, first + 50):
        run_one(seed)


def test_a_seed_is_a_whole_story() -> None:
    def story() -> list[object]:
        world = run_seed(77, lives=3)
        return [world.disk.steps, [history.start for history in world.histories]]

    assert story() == story()


def test_a_small_disk_is_full_again_and_again() -> None:
    assert run_seed(4, updates=30, total_bytes=SMALL_DISK_BYTES).refused_for_space > 3


def test_worlds_forget_chunks() -> None:
    assert sum(run_seed(seed, lives=2).forgotten for seed in range(5)) > 3


def test_the_judge_sees_a_lost_update() -> None:
    """Syncs that do nothing: the world must notice."""
    lost = 0
    for seed in range(12):
        world = World(seed)
        world.durabilities = (Durability.DISK,)
        run_virtual(world.live(0))
        world.disk.sync = lambda file: None  # type: ignore[method-assign]
        run_virtual(world.live(6))
        world.power_lost = True
        world.disk = world.disk.after_power_loss(seed)
        try:
            run_virtual(world.live(0))
        except (AssertionError, EmberError):
            lost += 1
    assert lost >= 6
