"""Which chunks are pushed to a syncing replica."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.checks import InvariantViolation
from fs_common.records.mending import HeldChunk
from fs_storage.craq.fill import Fill, Push, disowned, equal
from fs_storage.engine.interface import Held, Remembered

NOTHING = Held(b"x")
FIRST = NOTHING._replace(version=3, digest=33, length=5)
SECOND = NOTHING._replace(version=4, digest=44, length=6)
PENDING = FIRST._replace(pending_version=4, pending_digest=44, pending_length=6)
ONLY_PENDING = NOTHING._replace(pending_version=4, pending_digest=44)
REMOVED = NOTHING._replace(version=4, digest=40, removed=True)


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        (FIRST, FIRST, True),
        (FIRST, SECOND, False),
        (FIRST, FIRST._replace(digest=34), False),
        (FIRST, FIRST._replace(version=2), False),
        (FIRST, NOTHING, False),
        (NOTHING, FIRST, False),
        (NOTHING, NOTHING, True),
        (REMOVED, REMOVED, True),
        (REMOVED, SECOND, False),
        # What is pending at the predecessor is on its way, or has arrived.
        (PENDING, FIRST, True),
        (PENDING, SECOND, True),
        (PENDING, SECOND._replace(digest=45), False),
        (ONLY_PENDING, NOTHING, True),
        (ONLY_PENDING, SECOND, True),
        (ONLY_PENDING, FIRST, False),
        # What is pending at the syncing replica was never committed, or is on its way into the store.
        (FIRST, PENDING, False),
        (PENDING, PENDING, False),
        (SECOND, PENDING, False),
        (NOTHING, ONLY_PENDING, False),
    ],
)
def test_equal_is_what_needs_no_push(mine: Held, theirs: Held, same: bool) -> None:
    assert equal(mine, theirs) is same
    assert equal(mine, HeldChunk(*theirs)) is same


def pushed(mine: list[Held], theirs: list[Held], my_limit: int, their_limit: int) -> list[bytes]:
    """A whole round; each list is read as late as possible."""
    fill = Fill()
    found: list[Push] = []
    while not fill.done:
        for walk, held, limit in ((fill.mine, mine, my_limit), (fill.theirs, theirs, their_limit)):
            if walk.wanting:
                walk.give([one for one in held if one.chunk > walk.after][:limit], limit)
        found += fill.compare()
    assert fill.compared == len(mine)
    return [push.chunk for push in found]


kinds = st.sampled_from([FIRST, SECOND, PENDING, REMOVED, ONLY_PENDING])


@given(
    st.dictionaries(st.integers(1, 40), kinds, max_size=20),
    st.dictionaries(st.integers(1, 40), kinds, max_size=20),
    st.integers(1, 7),
    st.integers(1, 7),
)
def test_a_round_finds_what_differs_in_order(
    mine: dict[int, Held], theirs: dict[int, Held], my_limit: int, their_limit: int
) -> None:
    here = {bytes([number]): held._replace(chunk=bytes([number])) for number, held in mine.items()}
    there = {bytes([number]): held._replace(chunk=bytes([number])) for number, held in theirs.items()}
    expected = [
        chunk
        for chunk in sorted({*here, *there})
        if not equal(here.get(chunk, Held(chunk)), there.get(chunk, Held(chunk)))
    ]
    assert pushed(
        [here[one] for one in sorted(here)], [there[one] for one in sorted(there)], my_limit, their_limit
    ) == (expected)


def test_a_list_out_of_order_is_refused() -> None:
    fill = Fill()
    with pytest.raises(InvariantViolation, match="in order"):
        fill.theirs.give([FIRST._replace(chunk=b"b"), FIRST._replace(chunk=b"a")], 10)
    fill.mine.give([FIRST], 1)
    with pytest.raises(InvariantViolation, match="wanted"):
        fill.mine.give([FIRST], 1)


def test_an_answer_that_the_predecessor_never_gave_is_disowned() -> None:
    mine = [Remembered(b"client", channel, 5, b"chunk", 7, 10) for channel in range(7)]
    theirs = [
        mine[0],
        mine[1]._replace(committed=False),
        mine[2]._replace(sequence=6, version=0, committed=False),
        mine[3]._replace(sequence=4),
        mine[4]._replace(version=0, committed=False),
        mine[5]._replace(chunk=b"other"),
    ]
    known = {(answer.client, answer.channel): answer for answer in theirs}
    assert disowned(mine, known) == mine[3:]
    assert disowned([], known) == []
