"""Slabs: their bound, and the queue for them."""

from fs_common.transports.rdma.slabs import BLOCK_BYTES, LARGE_BYTES, SMALL_BYTES, Slab, SlabPool


def test_slabs_are_of_two_sizes_and_do_not_overlap() -> None:
    pool = SlabPool()
    small, large = pool.take(1), pool.take(SMALL_BYTES + 1)
    assert small and large
    assert (len(small.view), len(large.view)) == (SMALL_BYTES, LARGE_BYTES)
    assert pool.bytes == 2 * BLOCK_BYTES
    others = [slab for _ in range(6) if (slab := pool.take(10 * LARGE_BYTES))]
    for number, slab in enumerate([large, *others]):
        slab.view[:] = bytes([number]) * LARGE_BYTES
    assert [slab.view[-1] for slab in [large, *others]] == list(range(7))
    for slab in [small, large, *others]:
        slab.release()
    assert pool.bytes == 2 * BLOCK_BYTES
    pool.close()


def test_who_finds_none_waits_in_order() -> None:
    pool = SlabPool(large_blocks_max=1)
    count = BLOCK_BYTES // LARGE_BYTES
    taken = [slab for _ in range(count) if (slab := pool.take(LARGE_BYTES))]
    assert len(taken) == count
    assert pool.take(LARGE_BYTES) is None
    got: list[tuple[int, Slab]] = []
    waiting = [pool.wait(LARGE_BYTES, lambda slab, number=number: got.append((number, slab))) for number in range(3)]
    waiting[1].cancel()
    assert pool.take(1) is not None, "small ones are free"
    first = taken.pop()
    first.release()
    assert pool.take(LARGE_BYTES) is None, "nobody overtakes"
    taken.pop().release()
    assert [number for number, _ in got] == [0, 2]
    assert got[0][1] is first
    taken.pop().release()
    assert pool.take(LARGE_BYTES) is not None
    pool.close()
