"""Crashes at any step: see `crash_world`, which also runs by itself for as long as one likes."""

import tempfile
from pathlib import Path

import pytest

from fs_common.errors import EmberError
from tests.kv.crash_world import World, run_seed
from tests.storage.engine.virtual_loop import run_virtual


@pytest.mark.parametrize("seed", range(12))
def test_what_was_promised_survives_a_crash_and_nothing_without_what_was_before(seed: int) -> None:
    run_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1400, 50))
def test_many_worlds(first: int) -> None:
    for seed in range(first, first + 50):
        run_seed(seed)


def test_a_seed_is_a_whole_story() -> None:
    def story() -> list[object]:
        world = run_seed(7, lives=3)
        return [world.states, world.durable, world.lost, world.refused_for_space, world.disk.writes]

    assert story() == story()


def test_the_worlds_have_what_they_are_for() -> None:
    worlds = [run_seed(seed) for seed in range(20, 26)]
    assert sum(world.lost for world in worlds) > 20, "relaxed transactions are lost with the machine"
    assert sum(world.refused_for_space for world in worlds) > 20


def _judged(seed: int, *, power: bool, break_it: str) -> bool:
    """Whether a world whose disk lies is found out."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(seed, Path(directory) / "kv")
        run_virtual(world.live(0))
        if break_it == "sync":
            world.disk.sync = lambda file: None  # type: ignore[method-assign]
        else:
            add = world.disk._add
            world.disk._add = lambda file, offset, data: add(file, offset, data) if data[:4] != b"EKJ1" else None  # type: ignore[method-assign]
        try:
            run_virtual(world.live(40))
            for moment in world.moments:
                world.crash(moment, power=power)
        except (AssertionError, KeyError, EmberError):
            return True
    return False


def test_the_judge_sees_syncs_that_do_nothing() -> None:
    assert any(_judged(seed, power=True, break_it="sync") for seed in range(6))


def test_the_judge_sees_writes_that_do_nothing() -> None:
    assert any(_judged(seed, power=False, break_it="write") for seed in range(6))
