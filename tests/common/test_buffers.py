"""Buffers on loan."""

import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.buffers import SIZE_MIN, Buffer, BufferPool
from fs_common.checks import InvariantViolation
from fs_common.limits import MIB


@pytest.mark.parametrize("size", [1, SIZE_MIN - 1, SIZE_MIN, SIZE_MIN + 1, MIB - 1, MIB, MIB + 1])
def test_a_buffer_has_the_size_asked_for_and_is_page_aligned(size: int) -> None:
    buffer = BufferPool().take(size)
    assert len(buffer.view) == size
    assert not buffer.view.readonly
    address = memory_address(buffer.view)
    assert address % mmap.PAGESIZE == 0
    buffer.release()


def memory_address(view: memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_memory_is_recycled_within_its_size_class() -> None:
    pool = BufferPool()
    first = pool.take(5000)
    first.view[:] = b"x" * 5000
    address = memory_address(first.view)
    first.release()
    assert pool.kept_bytes == 8192
    other_class = pool.take(8193)
    assert pool.kept_bytes == 8192
    again = pool.take(8000)
    assert memory_address(again.view) == address
    assert pool.kept_bytes == 0
    again.release()
    other_class.release()


def test_no_more_is_kept_than_the_bound() -> None:
    pool = BufferPool(kept_bytes_max=3 * SIZE_MIN)
    buffers = [pool.take(SIZE_MIN) for _ in range(5)]
    for buffer in buffers:
        buffer.release()
    assert (pool.kept_bytes, pool.outstanding_bytes) == (3 * SIZE_MIN, 0)


def test_releasing_twice_is_caught() -> None:
    pool = BufferPool()
    buffer = pool.take(10)
    buffer.release()
    with pytest.raises(InvariantViolation, match="released once"):
        buffer.release()
    assert pool.outstanding_bytes == 0


def test_a_buffer_without_bytes_is_no_buffer() -> None:
    with pytest.raises(InvariantViolation, match="at least one byte"):
        BufferPool().take(0)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100_000)), max_size=60))
@settings(deadline=None)
def test_no_two_loans_share_memory_and_the_books_are_right(steps: list[tuple[bool, int]]) -> None:
    pool = BufferPool(kept_bytes_max=300_000)
    loans: list[Buffer] = []
    for number, (take, size) in enumerate(steps):
        if take or not loans:
            buffer = pool.take(size)
            buffer.view[:] = bytes([number]) * size
            loans.append(buffer)
        else:
            buffer = loans.pop(size % len(loans))
            assert len(set(buffer.view)) == 1, "nobody else wrote to it"
            buffer.release()
        assert pool.kept_bytes <= 300_000
        assert pool.outstanding_bytes >= sum(len(buffer.view) for buffer in loans)
    for buffer in loans:
        assert len(set(buffer.view)) == 1
        buffer.release()
    assert pool.outstanding_bytes == 0
