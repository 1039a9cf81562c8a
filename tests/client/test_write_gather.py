from hypothesis import given
from hypothesis import strategies as st

from fs_client import write_gather
from fs_client.write_gather import PIECE_MAX, Placed, WriteGather
from fs_common.limits import MIB
from tests.client.breaking_in import interrupted

CHUNK = 64


def taken(gather: WriteGather) -> list[Placed]:
    pieces = list(gather.complete)
    gather.complete.clear()
    return pieces


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 300)), st.integers(0, 200)), max_size=30))
def test_pieces_tile_what_was_written_and_end_at_chunk_borders(writes: list[tuple[int | None, int]]) -> None:
    gather = WriteGather(CHUNK)
    expected, got = bytearray(2000), bytearray(2000)
    position = 0
    pieces = []
    for number, (place, size) in enumerate(writes):
        previous_end = gather.end
        if place is not None:
            position = place
        if position + size > 2000:
            break
        data = bytes([number + 1]) * size
        moved = bool(previous_end) and position != previous_end and size > 0
        gather.add(position, memoryview(data))
        added = taken(gather)
        for index, (offset, piece) in enumerate(added):
            assert (offset + len(piece)) % CHUNK == 0 or (moved and index == 0)
        pieces += added
        expected[position : position + size] = data
        position += size
        assert gather.end in (0, position) or size == 0
    gather.take()
    pieces += taken(gather)
    for offset, piece in pieces:
        assert offset // CHUNK == (offset + len(piece) - 1) // CHUNK
        got[offset : offset + len(piece)] = piece
    gather.take()
    assert got == expected and not gather.complete and gather.end == 0


def test_what_is_given_up_is_not_written_to_again() -> None:
    gather = WriteGather(CHUNK)
    gather.add(0, memoryview(b"a" * 10))
    gather.take()
    ((_, piece),) = taken(gather)
    gather.add(10, memoryview(b"b" * 10))
    assert bytes(piece) == b"a" * 10


def test_pieces_of_large_chunks_are_parts_of_them() -> None:
    assert WriteGather(64 * MIB).piece_size == PIECE_MAX


def test_an_interruption_anywhere_loses_nothing() -> None:
    """An exception at every place of `add` in turn, as a signal handler may raise it; then the same bytes are given
    again, and what is stored in the end is what was written."""
    before, data = bytes(range(50)), bytes(range(50, 200))
    place = 0
    while True:
        gather = WriteGather(CHUNK)
        gather.add(0, memoryview(before))
        if not interrupted(lambda gather=gather: gather.add(50, memoryview(data)), place, write_gather):  # type: ignore[misc]
            break
        place += 1
        gather.add(50, memoryview(data))
        gather.add(0, memoryview(before[:5]))
        gather.take()
        stored = bytearray(200)
        for offset, piece in gather.complete:
            stored[offset : offset + len(piece)] = piece
        assert stored == before + data
    assert place > 20
