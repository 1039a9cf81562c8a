"""Memory that lasts: who is told of it, when, and that it goes with its owner."""

import gc
import mmap
from collections.abc import Iterator

import pytest

import fs_client
from fs_client import FileSystem
from fs_client.fuse.payloads import ARENA_SIZE_MIN, PayloadMemory
from fs_common import lasting as module
from fs_common.buffers import SIZE_MIN, BufferPool
from fs_common.errors import Code, EmberError
from fs_common.lasting import Lasting, attach, detach, lasting, passing
from fs_common.limits import MIB
from tests.client.fake_cluster import CHUNK, FakeCluster


class Told:
    """A keeper that notes what it is told."""

    def __init__(self) -> None:
        self.lasts: dict[int, int] = {}
        """Bytes by id of what has begun and not ended."""
        self.passed: list[int] = []
        """Bytes of what lasted for one operation, once it is over."""

    def began(self, memory: Lasting) -> None:
        self.lasts.setdefault(id(memory), memory.length)

    def ended(self, memory: Lasting) -> None:
        length = self.lasts.pop(id(memory))
        if memory.passing:
            self.passed.append(length)

    def holds(self, memory: Lasting) -> bool:
        return False

    def prepare(self, memory: Lasting) -> None: ...

    @property
    def lengths(self) -> list[int]:
        return sorted(self.lasts.values())


@pytest.fixture
def told() -> Iterator[Told]:
    gc.collect()
    before = set(module._everything)
    keeper = Told()
    attach(keeper)
    keeper.lasts.clear()
    yield keeper
    detach(keeper)
    gc.collect()
    assert set(module._everything) <= before, "what lasts is forgotten with its owner"


def test_memory_is_held_until_it_is_closed_or_dropped(told: Told) -> None:
    data = bytearray(10)
    memory = lasting(data)
    assert told.lengths == [10]
    with pytest.raises(BufferError):
        data.append(1)
    memory.close()
    memory.close()
    data.append(1)
    memory = lasting(data)
    del memory
    data.append(1)
    assert not told.lasts


def test_who_comes_later_is_told_of_what_is_there_and_who_goes_of_nothing(told: Told) -> None:
    memory = lasting(bytearray(10))
    late = Told()
    attach(late)
    assert late.lasts[id(memory)] == 10
    detach(late)
    memory.close()
    assert id(memory) in late.lasts
    assert not told.lasts


def test_a_buffer_pool_announces_its_memory_once_for_as_long_as_it_has_it(told: Told) -> None:
    pool = BufferPool(kept_bytes_max=2 * SIZE_MIN)
    for _ in range(3):
        pool.take(100).release()
    assert told.lengths == [SIZE_MIN]
    buffers = [pool.take(100) for _ in range(4)]
    assert told.lengths == [SIZE_MIN] * 4
    for buffer in buffers:
        buffer.release()
    assert told.lengths == [SIZE_MIN] * 2, "what is not kept is not announced any more"
    del pool, buffers, buffer
    gc.collect()
    assert not told.lasts


def test_payloads_of_a_mount_lie_in_memory_that_lasts(told: Told) -> None:
    memory = PayloadMemory(MIB, 2 * ARENA_SIZE_MIN, lambda: None)
    payload = memory.take(MIB)
    assert told.lengths == [ARENA_SIZE_MIN]
    payload.release()
    del memory, payload
    gc.collect()
    assert not told.lasts


def test_a_read_from_several_daemons_announces_its_buffer_as_a_whole(told: Told) -> None:
    with FakeCluster(replicas=1).running() as cluster, fs_client.connect(cluster.address) as fs:
        data = bytes(range(256)) * (3 * CHUNK // 256)
        fs.write_file("/f", data)
        into = bytearray(len(data) + 100)
        fs.read_ranges([("/f", 0, len(data))], into)
        assert into[: len(data)] == data
        assert told.passed == [len(data)]
        with pytest.raises(FileNotFoundError):
            fs.read_ranges([("/f", 0, len(data)), ("/none", 0, 10)], into)
        into.extend(b"resized")


def test_a_read_that_fails_gives_its_buffer_back(told: Told) -> None:
    with FakeCluster(replicas=1).running() as cluster, fs_client.connect(cluster.address) as fs:
        fs.write_file("/f", bytes(3 * CHUNK))
        into = bytearray(3 * CHUNK)
        for daemon in cluster.storage.values():
            daemon.read_fault = lambda item: EmberError(Code.ACCESS_DENIED, "not for you")
        with pytest.raises(PermissionError):
            fs.read_ranges([("/f", 0, len(into))], into)
        assert told.passed == [len(into)]


def test_without_a_device_an_operation_announces_nothing() -> None:
    keepers = list(module._keepers)
    assert not keepers and passing(memoryview(bytearray(10))) is None


def test_registering_is_for_memory_alone(told: Told) -> None:
    mapped = mmap.mmap(-1, 4096)
    with FileSystem.register(mapped):
        assert told.lengths == [4096]
        with pytest.raises(BufferError):
            mapped.close()
    mapped.close()
    assert not told.lasts
    with pytest.raises(TypeError):
        FileSystem.register("text")
    with pytest.raises(ValueError, match="gaps"):
        FileSystem.register(memoryview(bytearray(10))[::2])
