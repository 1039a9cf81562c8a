from fs_client.memory import FreshBytes, allocate
from fs_common.limits import MIB


def test_allocated_memory_is_writable_and_as_long_as_asked() -> None:
    for size in (0, 1, 4096, 33 * MIB):
        view = allocate(size)
        assert len(view) == size and not view.readonly and view.format == "B"
        if size:
            view[-1] = 7
            assert view[-1] == 7


def test_fresh_bytes_become_what_was_filled_in() -> None:
    for size in (0, 1, 2, 100_000, 33 * MIB + 5):
        fresh = FreshBytes(size)
        fresh.view[:] = b"x" * size
        assert fresh.take(size) == b"x" * size


def test_fresh_bytes_may_be_cut() -> None:
    fresh = FreshBytes(1000)
    fresh.view[:10] = b"0123456789"
    assert fresh.take(10) == b"0123456789"
