"""The checker itself: good and bad histories, and the same answer as an exhaustive search."""

from random import Random

import pytest

from fs_common.records.storage import UpdateKind
from tests.storage.craq.linearizable import Event, linearizable
from tests.storm.history import FOREVER, Operation, violation


def write(start: float, end: float, value: int) -> Operation:
    return Operation(start, end, True, value)


def read(start: float, end: float, value: int) -> Operation:
    return Operation(start, end, False, value)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [read(0, 1, 0)],
        [write(0, 1, 1), read(2, 3, 1)],
        [write(0, 9, 1), read(1, 2, 0), read(3, 4, 1)],
        [write(0, FOREVER, 1), read(5, 6, 0), read(7, 8, 1)],
        [write(0, FOREVER, 1), read(5, 6, 0)],
        [write(0, 5, 1), write(1, 6, 2), read(7, 8, 1), read(9, 10, 1)],
        [write(0, 5, 1), write(1, 6, 2), read(2, 3, 2), read(4, 5, 1)],
    ],
)
def test_what_is_right(history: list[Operation]) -> None:
    assert violation(history) is None


@pytest.mark.parametrize(
    "history",
    [
        [write(0, 1, 1), read(2, 3, 0)],  # lost
        [write(0, 9, 1), read(1, 2, 1), read(3, 4, 0)],  # new, then old
        [read(0, 1, 7)],  # never written
        [read(0, 1, 1), write(2, 3, 1)],  # from the future
        [write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)],  # went back
        [write(0, FOREVER, 1), read(5, 6, 1), read(7, 8, 0)],  # was seen, and is gone
        [write(0, 5, 1), write(1, 6, 2), read(7, 8, 1), read(9, 10, 2)],
    ],
)
def test_what_is_wrong_is_found_with_its_witnesses(history: list[Operation]) -> None:
    found = violation(history)
    assert found
    assert violation([operation for operation in found if operation.who != "initial"]), "they alone are wrong, too"


def test_the_same_answer_as_an_exhaustive_search() -> None:
    """Over random histories, most of them wrong in some way or nearly so."""
    answers = {True: 0, False: 0}
    for seed in range(4000):
        history = random_history(Random(seed))
        found = violation(history) is None
        assert found == explained(history), (seed, history)
        answers[found] += 1
    assert min(answers.values()) > 400, answers


def random_history(random: Random) -> list[Operation]:
    """A few writes and reads of a register that is atomic, but for a read now and then."""
    times = sorted(random.sample(range(40), 12))
    history = []
    for value in range(1, random.randint(2, 4)):
        start, end = sorted(random.sample(times, 2))
        history.append(write(start, FOREVER if random.random() < 0.2 else end, value))
    for _ in range(random.randint(1, 4)):
        start, end = sorted(random.sample(times, 2))
        history.append(read(start, end, random.randrange(len(history) + 1) if random.random() < 0.7 else 0))
    return history


def explained(history: list[Operation]) -> bool:
    """By search. It takes a read that begins last for one after everything else; so something is written after it."""
    history = [*history, write(1000, 1001, 1000)]
    values = {operation.value: (str(operation.value),) for operation in history} | {0: None}
    return linearizable(
        [
            Event(o.start, o.end, UpdateKind.REPLACE if o.write else None, values[o.value], values[o.value])
            for o in history
        ]
    )
