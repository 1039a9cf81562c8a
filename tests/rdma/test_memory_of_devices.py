"""Registered memory over every binding: bytes go through it, forks and limits of locked memory, and nothing is left."""

import asyncio
import gc
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fs_common.lasting import lasting
from fs_common.limits import KIB, MIB
from fs_common.transports.rdma.memory import LOCAL_READ, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, RegisteredMemory
from fs_common.transports.rdma.verbs import Binding, Kind, Work
from tests.rdma.adaptors import End, ends


def locked_kib() -> int:
    """What devices hold of this process, as the kernel counts it; always 0 where there is no device."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPin:"))
    return int(line.split()[1])


@contextmanager
def memories(binding: Binding) -> Iterator[tuple[End, RegisteredMemory, RegisteredMemory]]:
    """One end of a connection, and the memory of both."""
    loop = asyncio.new_event_loop()
    with ends(binding) as (one, other):
        here, there = (RegisteredMemory(end.context, loop, end.context.name) for end in (one, other))
        yield one, here, there
        here.close()
        there.close()
        assert (one.context.counts().regions, other.context.counts().regions) == (1, 1), "their ends' own"
    loop.close()


def write(end: End, here: RegisteredMemory, there: RegisteredMemory, source: object, target: object) -> None:
    """All of `source` into `target`, by one WRITE."""
    local = here.local([memoryview(source)], LOCAL_READ)
    remote = there.remote([memoryview(target)], REMOTE_WRITE)
    ((address, length, lkey),) = local.pieces()
    ((remote_address, _, rkey),) = remote.pieces()
    end.pair.post([Work(Kind.WRITE, 1, address, length, lkey, remote_address, rkey, signalled=True)])
    (done,) = end.wait()
    assert done.ok, done
    local.use.release()
    remote.use.release()


def test_bytes_go_through_every_kind_of_memory(binding: Binding) -> None:
    content = os.urandom(300 * KIB)
    with memories(binding) as (end, here, there):
        arena = memoryview(mmap.mmap(-1, MIB))
        with lasting(arena):
            array = np.zeros(len(content), np.uint8)
            fresh = bytearray(len(content))
            part = arena[5 : 5 + len(content)]
            write(end, here, there, content, part)
            write(end, here, there, part, array)
            write(end, here, there, array, fresh)
            assert fresh == content
            del part
        fresh.extend(b"resized")


def test_a_read_of_memory_that_was_lent(binding: Binding) -> None:
    with memories(binding) as (end, here, there):
        content = os.urandom(5000)
        target = bytearray(5000)
        local, remote = here.local([memoryview(target)], LOCAL_WRITE), there.remote([content], REMOTE_READ)
        ((address, length, lkey),) = local.pieces()
        ((remote_address, _, rkey),) = remote.pieces()
        end.pair.post([Work(Kind.READ, 1, address, length, lkey, remote_address, rkey, signalled=True)])
        assert end.wait()[0].ok
        assert target == content
        local.use.release()
        remote.use.release()


def test_what_was_lent_to_be_read_cannot_be_written(binding: Binding) -> None:
    with memories(binding) as (end, here, there):
        content = bytearray(b"not to be changed")
        local = here.local([bytes(len(content))], LOCAL_READ)
        remote = there.remote([memoryview(content)], REMOTE_READ)
        ((address, length, lkey),) = local.pieces()
        ((remote_address, _, rkey),) = remote.pieces()
        end.pair.post([Work(Kind.WRITE, 1, address, length, lkey, remote_address, rkey, signalled=True)])
        assert not end.wait()[0].ok
        assert content == b"not to be changed"
        local.use.release()
        remote.use.release()


def test_ten_thousand_registrations_leave_no_region_and_no_locked_page(binding: Binding) -> None:
    with memories(binding) as (_, here, _):
        data = bytearray(4 * KIB)
        view = memoryview(data)
        here.local([view]).use.release()
        gc.collect()
        locked, regions = locked_kib(), here.regions
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10_000):
            here.local([view]).use.release()
        assert (here.regions, here.bytes, here.registrations) == (regions, 0, 10_001)
        assert locked_kib() == locked
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 4096, "KiB: 400 bytes each would be more"
        view.release()
        data.extend(b"resized")


def test_a_child_takes_nothing_from_its_parent(binding: Binding) -> None:
    content = os.urandom(MIB)
    with memories(binding) as (end, here, there):
        array = np.zeros(MIB, np.uint8)
        arena = memoryview(mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        lasts = lasting(arena)
        write(end, here, there, bytes(MIB), arena)
        write(end, here, there, bytes(MIB), array)
        child = os.fork()
        if not child:
            lasts.close()
            here.close()
            there.close()
            del here, there, end
            gc.collect()
            array[:] = 1
            os._exit(0 if arena[:] == bytes(MIB) else 1)
        # Written to by the parent as well: it keeps the pages that the device knows.
        array[0] = 7
        arena[0] = 7
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        write(end, here, there, content, arena)
        write(end, here, there, content, array)
        assert arena == content and array.tobytes() == content
        assert there.registrations == 2, "what was registered before the fork still is"
        lasts.close()


LIMITED = """
import asyncio, os, resource, sys
from fs_common.transports.rdma.bindings import load
from fs_common.transports.rdma.locked_memory import raise_limit
from fs_common.transports.rdma.memory import LOCAL_WRITE, MemoryRefused, RegisteredMemory

binding = load(sys.argv[1])
context = binding.open(binding.devices()[0].name)
loop = asyncio.new_event_loop()
resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 1 << 20))
os.setresuid(65534, 65534, 65534)  # CAP_IPC_LOCK goes with that
assert raise_limit() == 1 << 20
memory = RegisteredMemory(context, loop, context.name)
small = memory.local([memoryview(bytearray(512 << 10))], LOCAL_WRITE)
try:
    memory.local([memoryview(bytearray(2 << 20))], LOCAL_WRITE)
except MemoryRefused as refused:
    print(refused)
small.use.release()
memory.local([memoryview(bytearray(700 << 10))], LOCAL_WRITE).use.release()
memory.close()
context.close()
loop.close()
"""


@pytest.mark.rdma
def test_over_the_limit_of_locked_memory_the_error_says_what_to_do(binding: Binding) -> None:
    if binding.name.startswith("soft"):
        pytest.skip("the limit is the kernel's")
    if os.geteuid():
        pytest.skip("needs root, to become nobody")
    name = binding.name.split()[0]
    result = subprocess.run([sys.executable, "-c", LIMITED, name], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert "2.0M of memory cannot be registered beside 512K: this process may lock 1.0M" in line
    assert "LimitMEMLOCK=infinity" in line
