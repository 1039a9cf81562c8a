from hypothesis import given
from hypothesis import strategies as st

from fs_client.write_gather import PIECE_MAX, WriteGather
from fs_common.limits import MIB

CHUNK = 64


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
        added = gather.add(position, memoryview(data))
        for index, (offset, piece) in enumerate(added):
            assert (offset + len(piece)) % CHUNK == 0 or (moved and index == 0)
        pieces += added
        expected[position : position + size] = data
        position += size
        assert gather.end in (0, position) or size == 0
    pieces += gather.take()
    for offset, piece in pieces:
        assert offset // CHUNK == (offset + len(piece) - 1) // CHUNK
        got[offset : offset + len(piece)] = piece
    assert got == expected and gather.take() == [] and gather.end == 0


def test_what_is_given_up_is_not_written_to_again() -> None:
    gather = WriteGather(CHUNK)
    gather.add(0, memoryview(b"a" * 10))
    ((_, piece),) = gather.take()
    gather.add(10, memoryview(b"b" * 10))
    assert bytes(piece) == b"a" * 10


def test_pieces_of_large_chunks_are_parts_of_them() -> None:
    assert WriteGather(64 * MIB).piece_size == PIECE_MAX
