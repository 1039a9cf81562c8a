"""The sampler: exactly once, the same steps for any number of ranks, resumable anywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_client.loader.sampler import ElasticBatchSampler
from fs_common.errors import EmberError

SIZES = st.integers(0, 200)
BATCHES = st.integers(1, 9)
WORLDS = st.integers(1, 6)


def ranks(n: int, batch_size: int, world: int, **options: object) -> list[ElasticBatchSampler]:
    return [
        ElasticBatchSampler(n, batch_size, rank=rank, world_size=world, **options)  # type: ignore[arg-type]
        for rank in range(world)
    ]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


@settings(deadline=None, max_examples=200)
@given(SIZES, BATCHES, WORLDS, st.booleans())
def test_each_sample_once_an_epoch(n: int, batch_size: int, world: int, shuffle: bool) -> None:
    per_rank = [list(sampler) for sampler in ranks(n, batch_size, world, shuffle=shuffle, seed=3)]
    seen = [index for batches in per_rank for index in flat(batches)]
    assert set(seen) == set(range(n))
    repeats = len(seen) - n
    assert repeats == 0 if n % (batch_size * world) >= world or n % (batch_size * world) == 0 else repeats < world
    assert len({len(batches) for batches in per_rank}) == 1, "every rank takes as many steps"
    assert all(1 <= len(batch) <= batch_size for batches in per_rank for batch in batches)


@settings(deadline=None, max_examples=100)
@given(SIZES, BATCHES, WORLDS, st.booleans())
def test_len_is_the_number_of_batches(n: int, batch_size: int, world: int, drop_last: bool) -> None:
    for sampler in ranks(n, batch_size, world, drop_last=drop_last):
        assert len(sampler) == len(list(sampler))


@settings(deadline=None, max_examples=100)
@given(SIZES, BATCHES, WORLDS)
def test_drop_last_gives_whole_batches_without_repeats(n: int, batch_size: int, world: int) -> None:
    per_rank = [list(sampler) for sampler in ranks(n, batch_size, world, drop_last=True)]
    seen = [index for batches in per_rank for index in flat(batches)]
    assert len(seen) == len(set(seen)) == n // (batch_size * world) * batch_size * world
    assert all(len(batch) == batch_size for batches in per_rank for batch in batches)


def test_the_global_step_does_not_depend_on_the_number_of_ranks() -> None:
    def steps(batch_size: int, world: int) -> list[list[int]]:
        per_rank = [list(sampler) for sampler in ranks(1000, batch_size, world, seed=9)]
        return [flat([batches[step] for batches in per_rank]) for step in range(len(per_rank[0]))]

    assert steps(24, 1) == steps(12, 2) == steps(6, 4) == steps(3, 8)


def test_order_differs_between_epochs_and_seeds_but_not_between_samplers() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ElasticBatchSampler(500, 7, seed=seed)
        sampler.set_epoch(epoch)
        return flat(list(sampler))

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_without_shuffle_the_order_is_that_of_the_dataset() -> None:
    assert list(ElasticBatchSampler(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_a_short_last_step_is_dealt_evenly_and_tops_up_from_the_start() -> None:
    per_rank = [list(sampler) for sampler in ranks(10, 2, 4, shuffle=False)]
    assert [batches[0] for batches in per_rank] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    last = [batches[1] for batches in per_rank]
    assert sorted(flat(last)) == [0, 1, 8, 9], "two real samples, and the epoch's first two for the other ranks"


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 300), BATCHES, WORLDS, st.integers(0, 30), WORLDS)
def test_resume_goes_on_where_it_stopped(n: int, batch_size: int, world: int, steps: int, new_world: int) -> None:
    """Whatever the ranks and the batch size after the resume: what was seen and what follows are the epoch."""
    before = ranks(n, batch_size, world, seed=5)
    seen: list[int] = []
    for sampler in before:
        sampler.set_epoch(2)
        iterator = iter(sampler)
        for _ in range(min(steps, len(sampler))):
            seen += next(iterator)
    states = [sampler.state_dict() for sampler in before]
    assert all(state == states[0] for state in states)

    after = ranks(n, batch_size + 1, new_world)
    rest: list[int] = []
    for sampler in after:
        sampler.load_state_dict(states[0])
        sampler.set_epoch(2)
        rest += flat(list(sampler))
    position = states[0]["position"]
    if position < n:
        order = ElasticBatchSampler(n, n, seed=5)
        order.set_epoch(2)
        expected = next(iter(order))
        assert set(seen) == set(expected[:position])
        assert set(rest) >= set(expected[position:])
        assert len(rest) - (n - position) < new_world
    else:
        assert not rest


def test_the_next_iteration_after_a_resumed_one_starts_at_the_beginning() -> None:
    sampler = ElasticBatchSampler(10, 2, shuffle=False)
    sampler.load_state_dict(ElasticBatchSampler(10, 2, shuffle=False).state_dict() | {"position": 6})
    assert list(sampler) == [[6, 7], [8, 9]]
    assert list(sampler) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_state_of_what_the_loop_took_not_of_what_was_prefetched() -> None:
    sampler = ElasticBatchSampler(100, 4, world_size=2, seed=1)
    ahead = iter(sampler)
    batches = [next(ahead) for _ in range(6)]
    state = sampler.state_dict(batches=2)
    resumed = ElasticBatchSampler(100, 4, world_size=2)
    resumed.load_state_dict(state)
    assert next(iter(resumed)) == batches[2]


def test_another_epoch_forgets_the_loaded_position() -> None:
    sampler = ElasticBatchSampler(10, 5, shuffle=False)
    sampler.load_state_dict(sampler.state_dict() | {"position": 5})
    sampler.set_epoch(1)
    assert len(list(sampler)) == 2


def test_long_epochs_are_mapped_piece_by_piece() -> None:
    n = 30_000
    assert sorted(flat(list(ElasticBatchSampler(n, 7, seed=1)))) == list(range(n))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n": -1, "batch_size": 1}, "n = -1"),
        ({"n": 1, "batch_size": 0}, "batch_size = 0"),
        ({"n": 1, "batch_size": 1, "rank": 1}, "rank 1"),
        ({"n": 1, "batch_size": 1, "rank": -1, "world_size": 2}, "rank -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, int], word: str) -> None:
    with pytest.raises(EmberError, match=word):
        ElasticBatchSampler(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"version": 99}, {"n": 11}])
def test_a_state_that_cannot_apply_is_refused(change: dict[str, int]) -> None:
    sampler = ElasticBatchSampler(10, 2)
    with pytest.raises(EmberError, match="sampler state"):
        sampler.load_state_dict(sampler.state_dict() | change)


def test_a_sampler_takes_the_dataset_as_those_of_torch_do() -> None:
    assert list(ElasticBatchSampler(range(100), 7, seed=2)) == list(ElasticBatchSampler(100, 7, seed=2))
