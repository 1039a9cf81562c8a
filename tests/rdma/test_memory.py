"""Registered memory: what is registered when, that no region outlives its memory, and the bounds."""

import ctypes
import errno
import gc
import mmap
import os
import random
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from fs_client import FileSystem
from fs_common.errors import Code, EmberError
from fs_common.lasting import Lasting, lasting, lasting_address, passing
from fs_common.limits import KIB, MIB
from fs_common.transports.rdma import memory as registered
from fs_common.transports.rdma.addresses import address_of
from fs_common.transports.rdma.memory import (
    ALL_RIGHTS,
    LOCAL_WRITE,
    REMOTE_READ,
    REMOTE_WRITE,
    MemoryRefused,
    RegisteredMemory,
)
from tests.rdma.soft_verbs import Fabric, SoftContext, SoftRegion


class Opened(SoftContext):
    """A device in memory. It finds out about memory that goes before its region (`Fabric.faults`)."""

    @property
    def regions(self) -> list[SoftRegion]:
        return list(self.by_lkey.values())


class FakeTimers:
    def __init__(self) -> None:
        self.now = 0.0
        self.pending: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback):
        entry = (self.now + delay, callback)
        self.pending.append(entry)
        timers = self

        class Handle:
            def cancel(self) -> None:
                timers.pending.remove(entry)

        return Handle()

    def call_soon_threadsafe(self, callback) -> None:
        callback()

    def go_to(self, now: float) -> None:
        self.now = now
        while due := [entry for entry in self.pending if entry[0] <= now]:
            for entry in due:
                self.pending.remove(entry)
                entry[1]()
                if self.pending and self.pending[-1][0] <= now:
                    break


@pytest.fixture
def device() -> Iterator[Opened]:
    fabric = Fabric()
    opened = Opened(fabric, "soft0")
    yield opened
    opened.close()
    assert not fabric.faults


@pytest.fixture
def timers() -> FakeTimers:
    return FakeTimers()


@pytest.fixture
def memory(device: Opened, timers: FakeTimers) -> Iterator[RegisteredMemory]:
    memory = RegisteredMemory(device, timers, "soft0")
    yield memory
    memory.close()
    assert not device.regions


def test_lasting_memory_is_registered_once_when_it_is_first_used(memory, device) -> None:
    arena = memoryview(mmap.mmap(-1, MIB))
    with lasting(arena) as lasts:
        assert not device.regions
        views = [arena[i * 4 * KIB : (i + 1) * 4 * KIB] for i in range(256)]
        lent = memory.remote(views, REMOTE_WRITE)
        assert lent.addresses == [address_of(view) for view in views]
        assert lent.lengths == [4 * KIB] * 256
        assert list(lent.keys) == [device.regions[0].rkey] * 256
        lent.use.release()
        local = memory.local(views[3:5])
        assert list(local.keys) == [device.regions[0].lkey] * 2
        local.use.release()
        assert (memory.regions, memory.bytes, memory.registrations) == (1, MIB, 1)
        del views, lasts
    assert not device.regions


def test_memory_that_lasted_before_the_device_was_opened_is_known_to_it(device, timers) -> None:
    arena = memoryview(mmap.mmap(-1, MIB))
    with lasting(arena):
        memory = RegisteredMemory(device, timers)
        memory.local([arena[:10]]).use.release()
        assert device.regions[0].length == MIB
        memory.close()
        assert not device.regions


def test_an_end_waits_for_the_last_use_and_nothing_new_finds_it(memory, device) -> None:
    underlying = mmap.mmap(-1, MIB)
    lasts = lasting(underlying)
    view = memoryview(underlying)
    first, second = memory.local([view[:1]]).use, memory.local([view[1:2]]).use
    lasts.close()
    assert len(device.regions) == 1
    third = memory.local([view[2:3]])
    assert [region.length for region in device.regions] == [MIB, 1]
    third.use.release()
    first.release()
    view.release()
    with pytest.raises(BufferError):
        underlying.close()
    second.release()
    assert not device.regions
    underlying.close()


def test_dropped_lasting_memory_is_deregistered_before_it_goes(memory, device) -> None:
    arena = memoryview(mmap.mmap(-1, MIB))
    lasts = lasting(arena)
    memory.local([arena[:1]]).use.release()
    del arena
    assert len(device.regions) == 1
    del lasts
    assert not device.regions


def test_a_finalizer_in_the_midst_of_a_registration_waits_for_nobody(memory, device) -> None:
    holder = [lasting(bytearray(100))]
    memory.local([holder[0].view]).use.release()
    other = memoryview(bytearray(10))
    register = device.register

    def dropping(*arguments):
        holder.clear()
        return register(*arguments)

    device.register = dropping
    memory.local([other]).use.release()
    assert not holder
    memory.local([other]).use.release()
    assert not device.regions


def test_views_that_their_owner_releases_hold_nothing_back(memory, device) -> None:
    data = bytearray(100)
    with memoryview(data) as view:
        lasts = lasting(view)
        first = memory.local([view[:10]]).use
    with pytest.raises(BufferError):
        data.extend(b"x")
    lasts.close()
    with pytest.raises(BufferError):
        data.extend(b"x")
    first.release()
    with memoryview(data) as view:
        second = memory.local([view]).use
    with pytest.raises(BufferError):
        data.extend(b"x")
    second.release()
    data.extend(b"x")


def test_other_memory_is_registered_for_the_call_alone(memory, device) -> None:
    data = bytearray(1000)
    lent = memory.remote([memoryview(data)], REMOTE_WRITE)
    assert device.regions[0].access == REMOTE_WRITE | LOCAL_WRITE
    with pytest.raises(BufferError):
        data.extend(b"x")
    lent.use.release()
    assert not device.regions
    del lent
    data.extend(b"x")
    mapped = mmap.mmap(-1, 4096)
    with memoryview(mapped) as view:
        memory.remote([view], REMOTE_READ).use.release()
    mapped.close()


def test_bytes_and_arrays_are_kept_for_the_next_call(memory, device, timers) -> None:
    array = np.zeros(1000, np.uint8)
    data = bytes(100)
    for _ in range(2):
        memory.remote([memoryview(array)], REMOTE_WRITE).use.release()
        memory.remote([data], REMOTE_READ).use.release()
        memory.remote([memoryview(data)[10:]], REMOTE_READ).use.release()
    assert memory.registrations == 2
    assert memory.kept_bytes == 1100
    timers.go_to(registered.CACHE_AGE_S - 1)
    use = memory.remote([memoryview(array)[5:10]], REMOTE_WRITE).use
    timers.go_to(3 * registered.CACHE_AGE_S)
    assert [region.length for region in device.regions] == [1000]
    use.release()
    timers.go_to(5 * registered.CACHE_AGE_S)
    assert not device.regions
    assert not timers.pending


def test_an_array_over_memory_of_another_is_not_kept(memory, device) -> None:
    data = bytearray(100)
    memory.remote([memoryview(np.frombuffer(data, np.uint8))], REMOTE_WRITE).use.release()
    assert not device.regions
    gc.collect()
    data.extend(b"x")
    memory.remote([memoryview(np.frombuffer(bytes(100), np.uint8))], REMOTE_READ).use.release()
    assert len(device.regions) == 1


def test_rights_are_no_more_than_asked_for(memory, device) -> None:
    array = np.zeros(1000, np.uint8)
    memory.remote([memoryview(array)], REMOTE_READ).use.release()
    assert device.regions[0].access == REMOTE_READ
    lent = memory.remote([memoryview(array)], REMOTE_WRITE)
    assert device.regions[1].access == REMOTE_WRITE | LOCAL_WRITE
    assert list(lent.keys) == [device.regions[1].rkey]
    lent.use.release()


def test_what_is_kept_is_bounded(memory, device, monkeypatch) -> None:
    monkeypatch.setattr(registered, "CACHE_BYTES_MAX", 1000)
    monkeypatch.setattr(registered, "CACHE_REGIONS_MAX", 5)
    arrays = [np.zeros(300, np.uint8) for _ in range(20)]
    for array in arrays:
        memory.remote([memoryview(array)], REMOTE_WRITE).use.release()
        assert memory.kept_bytes <= 1000
        assert memory.bytes == memory.kept_bytes
    assert {region.address for region in device.regions} == {array.ctypes.data for array in arrays[-3:]}
    small = [bytes([i]) * 10 for i in range(10)]
    for data in small:
        memory.remote([data], REMOTE_READ).use.release()
    assert len(device.regions) == 5
    large = np.zeros(1001, np.uint8)
    memory.remote([memoryview(large)], REMOTE_WRITE).use.release()
    assert 1001 not in {region.length for region in device.regions}


def test_views_of_one_object_share_regions_unless_they_lie_far_apart(memory, device) -> None:
    data = bytearray(8 * MIB)
    view = memoryview(data)
    near = [view[i * 8 * KIB : i * 8 * KIB + 4 * KIB] for i in range(100)]
    lent = memory.remote([*near, view[-10:]], REMOTE_WRITE)
    assert sorted(region.length for region in device.regions) == [10, 99 * 8 * KIB + 4 * KIB]
    assert len(set(lent.keys)) == 2
    lent.use.release()
    separate = [memoryview(bytearray(10)) for _ in range(3)]
    lent = memory.remote(separate, REMOTE_WRITE)
    assert len(device.regions) == 3
    lent.use.release()


def test_what_one_operation_fills_is_one_region(memory, device, timers) -> None:
    arena = memoryview(bytearray(4 * MIB))
    lasts = passing(arena)
    far = [arena[:10], arena[-10:]]
    first = memory.remote(far[:1], REMOTE_WRITE)
    second = memory.remote(far[1:], REMOTE_WRITE)
    assert [(region.length, region.access) for region in device.regions] == [(4 * MIB, REMOTE_WRITE | LOCAL_WRITE)]
    first.use.release()
    second.use.release()
    assert memory.regions == 1
    lasts.close()
    assert memory.regions == 0


def test_an_array_that_an_operation_filled_is_kept_for_the_next(memory, device, timers) -> None:
    array = np.zeros(MIB, np.uint8)
    for _ in range(3):
        view = memoryview(array)
        lasts = passing(view)
        memory.remote([view[:10], view[-10:]], REMOTE_WRITE).use.release()
        lasts.close()
    assert (memory.registrations, memory.kept_bytes, len(memory._index)) == (1, MIB, 1)
    timers.go_to(registered.CACHE_AGE_S)
    timers.go_to(registered.CACHE_AGE_S + registered.CACHE_LOOK_S)
    assert not device.regions


def test_within_lasting_memory_an_operation_registers_nothing(memory, device) -> None:
    arena = memoryview(bytearray(4 * MIB))
    with lasting(arena):
        lasts = passing(arena[10:20])
        memory.remote([arena[10:12], arena[15:20]], REMOTE_WRITE).use.release()
        lasts.close()
        assert [region.length for region in device.regions] == [4 * MIB]


def test_without_a_device_an_operation_costs_nothing() -> None:
    assert passing(memoryview(bytearray(10))) is None


def test_empty_views_need_no_region(memory, device) -> None:
    data = memoryview(bytearray(10))
    lent = memory.remote([data[:0], data[2:4], b""], REMOTE_READ)
    assert lent.lengths == [0, 2, 0]
    assert lent.addresses == [0, address_of(data) + 2, 0]
    assert [bool(key) for key in lent.keys] == [False, True, False]
    lent.use.release()
    memory.remote([], REMOTE_READ).use.release()
    assert not device.regions


def test_a_refusal_says_what_to_do_and_leaves_nothing_behind(memory, device) -> None:
    array = np.zeros(1000, np.uint8)
    kept = memory.remote([memoryview(array)], REMOTE_WRITE).use
    device.fabric.locked_bytes_max = device.fabric.locked_bytes
    with pytest.raises(MemoryRefused, match=r"soft0: 3\.0 KiB of memory cannot be registered") as caught:
        memory.remote([memoryview(array), memoryview(bytearray(3000))], REMOTE_WRITE)
    assert caught.value.code is Code.UNREACHABLE
    kept.release()
    assert memory.refusals == 1
    with lasting(bytearray(10)) as lasts, pytest.raises(MemoryRefused):
        lasts.prepare()


def test_prepared_memory_is_registered_before_it_is_used(memory, device) -> None:
    with lasting(bytearray(10)) as lasts:
        lasts.prepare()
        lasts.prepare()
        assert [region.access for region in device.regions] == [ALL_RIGHTS]
    assert not device.regions


def test_memory_by_address_cannot_be_closed_while_it_is_in_use(memory, device) -> None:
    owned = (ctypes.c_char * 4096)()
    lasts = lasting_address(ctypes.addressof(owned), 4096)
    use = memory.local([memoryview(owned)[:10]]).use
    with pytest.raises(EmberError) as caught:
        lasts.close()
    assert caught.value.code is Code.BUSY
    use.release()
    assert not device.regions
    lasts.close()


def test_memory_of_another_device_is_counted_from_where_its_region_begins(timers) -> None:
    asked = []

    class Exporting:
        def register(self, address, length, access, dmabuf=None):
            asked.append((address, length, dmabuf))
            return SimpleNamespace(address=4096, length=length, lkey=1, rkey=2, close=asked.clear)

    owned = (ctypes.c_char * 10000)()
    address = ctypes.addressof(owned)
    memory = RegisteredMemory(Exporting(), timers)
    with lasting_address(address, 10000, (7, 4096)):
        view = memoryview(owned).cast("B")
        for views, addresses in (
            ([view[100:200], view[300:301]], [4196, 4396]),
            ([view[100:200], view[:0]], [4196, 0]),
        ):
            lent = memory.remote(views, REMOTE_WRITE)
            assert lent.addresses == addresses
            lent.use.release()
        assert asked == [(address, 10000, (7, 4096))]
    assert not asked
    memory.close()


def test_a_child_leaves_the_regions_of_its_parent_alone(memory, device) -> None:
    arena = memoryview(mmap.mmap(-1, MIB))
    lasts = lasting(arena)
    use = memory.local([arena[:10]]).use
    child = os.fork()
    if not child:
        use.release()
        lasts.close()
        memory.close()
        os._exit(0 if device.regions else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert memory.regions == 1
    use.release()
    lasts.close()
    assert memory.regions == 0


def test_memory_that_a_child_inherited_lasts_for_its_own_devices(timers) -> None:
    arena = memoryview(mmap.mmap(-1, MIB))
    with lasting(arena):
        child = os.fork()
        if not child:
            fabric = Fabric()
            memory = RegisteredMemory(SoftContext(fabric, "soft0"), timers)
            memory.local([arena[:10]]).use.release()
            os._exit(0 if (memory.regions, memory.bytes) == (1, MIB) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_buffer_that_a_program_registers(memory, device) -> None:
    mapped = mmap.mmap(-1, MIB)
    with FileSystem.register(mapped) as buffer:
        assert [region.length for region in device.regions] == [MIB]
        assert len(buffer.view) == MIB
        with pytest.raises(BufferError):
            mapped.close()
        part = memoryview(mapped)[100:200]
        memory.remote([part], REMOTE_WRITE).use.release()
        assert memory.registrations == 1
        del part
    assert not device.regions
    mapped.close()


def test_a_buffer_by_address(memory, device) -> None:
    owned = (ctypes.c_char * MIB)()
    buffer = FileSystem.register_address(ctypes.addressof(owned), MIB)
    buffer.view[:4] = b"abcd"
    assert owned[:4] == b"abcd"
    use = memory.remote([buffer.view[10:20]], REMOTE_WRITE).use
    assert memory.registrations == 1
    with pytest.raises(OSError) as caught:
        buffer.close()
    assert caught.value.errno == errno.EAGAIN
    use.release()
    buffer.close()
    assert not device.regions
    for address, length in ((0, 10), (10, 0), (1 << 63, 1 << 63 | 1)):
        with pytest.raises(ValueError, match="no memory"):
            FileSystem.register_address(address, length)
    with pytest.raises(ValueError, match="dma-buf"):
        FileSystem.register_address(4096, 10, dmabuf=(-1, 0))


def test_a_buffer_that_is_refused_is_an_ordinary_one(memory, device) -> None:
    device.fabric.locked_bytes_max = 1000
    data = bytearray(MIB)
    with pytest.raises(OSError, match=r"1\.0 MiB of memory cannot be registered") as caught:
        FileSystem.register(data)
    assert caught.value.errno == errno.ENOMEM
    data.extend(b"x")


def test_a_device_that_is_closed_holds_nothing_that_it_is_told_of_late(device, timers) -> None:
    memory = RegisteredMemory(device, timers)
    arena = bytearray(100)
    lasts = lasting(arena)
    use = memory.local([lasts.view]).use
    memory.close()
    assert not device.regions
    use.release()
    memory.began(lasts)
    lasts.close()
    arena.extend(b"x")


def test_threads_may_end_memory_while_it_is_lent(memory, device) -> None:
    """Whatever the order: what is lent is registered until it is released, and nothing is left."""
    switch = sys.getswitchinterval()
    shared: list[Lasting | None] = [None] * 8
    over = threading.Event()
    failures: list[BaseException] = []

    def churn(seed: int) -> None:
        choose = random.Random(seed)
        try:
            while not over.is_set():
                i = choose.randrange(len(shared))
                old, shared[i] = shared[i], lasting(mmap.mmap(-1, 64 * KIB))
                if old is not None and choose.random() < 0.5:
                    old.close()
                del old
        except BaseException as error:
            failures.append(error)

    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(2)]
    try:
        for thread in threads:
            thread.start()
        choose = random.Random(0)
        held = []
        for _ in range(3000):
            one = shared[choose.randrange(len(shared))]
            view = None if one is None else one.view
            del one
            if view is not None:
                lent = memory.remote([view[100:200], view[5000:5001]], REMOTE_WRITE)
                assert {region.rkey for region in device.regions} >= set(lent.keys)
                held.append(lent.use)
                del lent
            del view
            while len(held) > 5:
                held.pop(choose.randrange(len(held))).release()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(switch)
    for use in held:
        use.release()
    shared.clear()
    assert not failures
    assert (memory.regions, memory.bytes, len(memory._index), len(memory._ending)) == (0, 0, 0, 0)


def test_ten_thousand_uses_leave_nothing(memory, device) -> None:
    data = bytearray(100)
    for _ in range(10_000):
        memory.local([memoryview(data)]).use.release()
        lasting(data).close()
    assert not device.regions
    assert (memory.regions, memory.bytes, len(memory._index), len(memory._lasting)) == (0, 0, 0, 0)
