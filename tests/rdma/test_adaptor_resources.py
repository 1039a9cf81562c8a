"""What bindings of verbs hold, and give back: descriptors, what the kernel keeps for them, memory; news; forks."""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_common.transports.rdma import bindings
from fs_common.transports.rdma.verbs import (
    AsyncEvent,
    Binding,
    Capacity,
    Completion,
    DmaBuf,
    Kind,
    PortState,
    Receive,
    RemoteEnd,
    Status,
    VerbsError,
)
from fs_common.transports.rdma.verbs import Path as Way
from tests.rdma.adaptors import ALL, HASTY, LIMIT_S, End, Memory, ends, port_of, wait
from tests.rdma.soft_verbs import SoftBinding

KIB = 1 << 10


def kernel_counts(name: str) -> dict[str, int]:
    """What the kernel keeps of a device: queue pairs, regions, completion queues and so on. Empty for soft verbs."""
    if not Path("/sys/class/infiniband", name).exists():
        return {}
    shown = subprocess.run(["rdma", "resource", "show", name], capture_output=True, text=True, check=True).stdout
    words = shown.partition(f"{name}: ")[2].split()
    counts = {what: int(count) for what, count in zip(words[::2], words[1::2], strict=True)}
    assert {"qp", "mr", "cq"} <= set(counts), shown
    return counts


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_connections_leave_nothing(binding: Binding) -> None:
    """Half of them are closed at both ends, a quarter at one, a quarter go with their device."""
    name = binding.devices()[0].name
    before = descriptors(), kernel_counts(name)
    memory = Memory(4 * KIB)
    for _ in range(10):
        contexts = [binding.open(name) for _ in range(2)]
        in_use = descriptors()
        for n in range(50):
            queues = [context.completion_queue(16) for context in contexts]
            pairs = [context.queue_pair(queue, Capacity(4, 4)) for context, queue in zip(contexts, queues, strict=True)]
            regions = [context.register(memory.address, 4 * KIB, ALL) for context in contexts]
            sides = [0, 1] if n % 2 else [n % 4 // 2]
            for side in sides:
                regions[side].close()
                pairs[side].close()
                queues[side].close()
        assert descriptors() == in_use + 25, "those that are open"
        assert sum(context.counts().queue_pairs for context in contexts) == 25
        for context in contexts:
            context.close()
    memory.close()
    assert (descriptors(), kernel_counts(name)) == before


def test_reconnecting_a_device_leaves_nothing(binding: Binding) -> None:
    name = binding.devices()[0].name
    before = descriptors(), kernel_counts(name)
    for _ in range(5):
        with ends(binding, size=4 * KIB, persistence=HASTY) as (one, other):
            one.pair.receive([Receive(n, one.memory.address, 16, one.region.lkey) for n in range(8)])
            one.pair.post([one.work(Kind.WRITE, other, 64)])
            assert one.wait()[0].ok
            one.pair.fail()
    assert (descriptors(), kernel_counts(name)) == before


def test_posting_and_polling_leave_no_memory(binding: Binding) -> None:
    """100,000 works, 2,000 slots: what is left of each would be seen."""
    rounds = 100_000 // 32 if not isinstance(binding, SoftBinding) else 300
    with ends(binding, capacity=Capacity(128, 32)) as (one, other):
        works = [one.work(Kind.WRITE, other, 8, signalled=n == 31) for n in range(32)]
        slots = [Receive(n, other.memory.address + n * 64, 64, other.region.lkey) for n in range(32)]

        def some(rounds: int) -> None:
            for number in range(rounds):
                one.pair.post(works)
                one.wait()
                if number % 50 == 0:
                    other.pair.receive(slots)
                    one.pair.post([one.work(Kind.SEND, length=8, signalled=n == 31) for n in range(32)])
                    other.wait(32)
                    one.wait()

        some(150)
        gc.collect()
        if isinstance(binding, SoftBinding):
            tracemalloc.start()
            begin = tracemalloc.get_traced_memory()[0]
            some(rounds)
            gc.collect()
            left = tracemalloc.get_traced_memory()[0] - begin
            tracemalloc.stop()
        else:
            begin = resident_bytes()
            some(rounds)
            left = resident_bytes() - begin
        assert left < 10 * 100_000, "less than a malloc for each"


def test_an_event_loop_hears_of_completions(binding: Binding) -> None:
    async def talk(one: End, other: End) -> list[Completion]:
        loop = asyncio.get_running_loop()
        heard: list[Completion] = []
        all_here = loop.create_future()

        def ready() -> None:
            other.completions.take_events()
            other.completions.arm()
            while got := other.completions.poll(16):
                heard.extend(got)
            if len(heard) == 48 and not all_here.done():
                all_here.set_result(None)

        loop.add_reader(other.completions.fileno(), ready)
        ready()
        try:
            for n in range(48):
                one.pair.post([one.work(Kind.SEND, length=8, id=n, signalled=n % 8 == 7)])
                await asyncio.sleep(0)
                one.completions.poll(16)
            await asyncio.wait_for(all_here, LIMIT_S)
        finally:
            loop.remove_reader(other.completions.fileno())
        return heard

    with ends(binding) as (one, other):
        slots = [Receive(n, other.memory.address + n * 64, 64, other.region.lkey) for n in range(64)]
        other.pair.receive(slots)
        heard = asyncio.run(talk(one, other))
        assert [done.id for done in heard] == list(range(48)) and all(done.bytes == 8 for done in heard)


def test_arming_makes_readable_once(binding: Binding) -> None:
    with ends(binding) as (one, other):
        assert one.completions.take_events() == 0, "nothing came, and nobody waits"
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        one.wait()
        assert not _readable(one.completions.fileno(), 0), "not armed"
        one.completions.arm()
        one.completions.arm()
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        one.wait()
        assert _readable(one.completions.fileno(), LIMIT_S)
        assert one.completions.take_events() == 1
        assert one.completions.take_events() == 0
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        one.wait()
        assert not _readable(one.completions.fileno(), 0), "not armed again"


def test_only_what_is_solicited_wakes_who_asked_for_that(binding: Binding) -> None:
    with ends(binding) as (one, other):
        other.pair.receive([Receive(n, other.memory.address + n * 64, 64, other.region.lkey) for n in range(3)])
        other.completions.arm(solicited=True)
        other.pair.post([other.work(Kind.WRITE, one, 8)])
        assert other.wait()[0].ok
        one.pair.post([one.work(Kind.SEND, length=8)])
        assert other.wait()[0].ok and one.wait()[0].ok
        assert not _readable(other.completions.fileno(), 0), "its own work, and a message that is not solicited"
        one.pair.post([one.work(Kind.SEND, length=8)._replace(solicited=True)])
        assert other.wait()[0].ok and one.wait()[0].ok
        assert _readable(other.completions.fileno(), LIMIT_S)
        assert other.completions.take_events() == 1
        # What is armed for all stays so.
        for order in ((True, False), (False, True)):
            for solicited in order:
                other.completions.arm(solicited)
            other.pair.post([other.work(Kind.WRITE, one, 8)])
            assert other.wait()[0].ok
            assert _readable(other.completions.fileno(), LIMIT_S)
            assert other.completions.take_events() == 1


@pytest.mark.parametrize("way", ["nobody answers", "refused by the other", "refused to the other", "by itself"])
def test_a_queue_pair_that_fails_wakes_who_asked_for_solicited_messages(binding: Binding, way: str) -> None:
    """By the receives that are posted."""
    with ends(binding, persistence=HASTY) as (one, other):
        one.pair.receive([Receive(n, one.memory.address + n * 64, 64, one.region.lkey) for n in range(2)])
        one.completions.arm(solicited=True)
        if way == "nobody answers":
            other.pair.close()
            one.pair.post([one.work(Kind.SEND, length=8, signalled=False)])
        elif way == "refused by the other":
            one.pair.post([one.work(Kind.WRITE, other, 8, rkey=other.region.rkey ^ 0x5555, signalled=False)])
        elif way == "refused to the other":
            other.pair.post([other.work(Kind.WRITE, one, 8, rkey=one.region.rkey ^ 0x5555)])
        else:
            one.pair.fail()
        end = time.monotonic() + LIMIT_S
        while not _readable(one.completions.fileno(), 0.01):
            # Verbs in memory live by polling.
            other.completions.poll(1)
            assert time.monotonic() < end
        assert one.completions.take_events() == 1
        assert not one.wait(2 if way in ("refused to the other", "by itself") else 3)[0].ok


def test_events_not_taken_do_not_keep_a_queue_from_closing(binding: Binding) -> None:
    with ends(binding) as (one, other):
        for _ in range(2):
            one.completions.arm()
            one.pair.post([one.work(Kind.WRITE, other, 8)])
            one.wait()
        one.completions.close()


def test_a_dma_buf_that_is_none_is_refused(binding: Binding) -> None:
    """No software device takes one: it is refused, whatever the descriptor is."""
    with ends(binding) as (one, _other):
        with open(os.devnull, "rb") as no_memory:
            with pytest.raises(VerbsError) as refused:
                one.context.register(1 << 30, 4 * KIB, ALL, DmaBuf(no_memory.fileno(), 0))
        assert refused.value.number is not None
        assert str(refused.value)
        assert one.context.counts().regions == 1


def test_a_forked_child_takes_nothing_with_it(binding: Binding) -> None:
    """It closes, collects and ends as programs do; the parent's connection goes on."""
    if isinstance(binding, SoftBinding):
        pytest.skip("there is no kernel that a child could share")
    with ends(binding, size=64 * KIB) as (one, other):
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                one.pair.close()
                other.context.close()
                with contextlib.suppress(VerbsError):
                    one.pair.post([one.work(Kind.WRITE, other, 8)])
                    code = 2
                one.pair = other.pair = one.region = other.region = one.context = other.context = None  # type: ignore
                gc.collect()
                own = binding.open(binding.devices()[0].name)
                own.close()
                code = code - 1
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        one.memory[0:4] = b"fine"
        one.pair.post([one.work(Kind.WRITE, other, 4)])
        assert one.wait()[0].ok and other.memory[0:4] == b"fine"


def test_a_killed_peer_is_found_out(binding: Binding) -> None:
    """The kernel takes a dead process's queue pairs; who writes to it hears that nobody answers."""
    if isinstance(binding, SoftBinding):
        pytest.skip("it has one process")
    name = binding.devices()[0].name
    ours, theirs = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        context = binding.open(name)
        end = End(context, 4 * KIB, Capacity(4, 4), 16)
        os.write(theirs[1], json.dumps([end.pair.number, end.memory.address, end.region.rkey]).encode() + b"\n")
        number = int(os.read(ours[0], 100))
        _connect_to(end, number)
        os.write(theirs[1], b"ready\n")
        signal.pause()
        os._exit(0)
    context = binding.open(name)
    try:
        end = End(context, 4 * KIB, Capacity(4, 4), 16)
        number, address, rkey = json.loads(os.read(theirs[0], 1000))
        os.write(ours[1], str(end.pair.number).encode())
        _connect_to(end, number)
        assert os.read(theirs[0], 100) == b"ready\n"
        end.pair.receive([Receive(9, end.memory.address, 64, end.region.lkey)])
        work = end.work(Kind.WRITE, None, 64, rkey=rkey)._replace(remote_address=address)
        end.pair.post([work])
        assert end.wait()[0].ok
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        end.pair.post([work._replace(id=7)])
        assert [(done.id, done.status) for done in end.wait(2)] == [
            (7, Status.RETRY_EXC_ERR),
            (9, Status.WR_FLUSH_ERR),
        ]
        end.close()
    finally:
        context.close()
        for descriptor in (*ours, *theirs):
            os.close(descriptor)


def test_news_of_a_port(binding: Binding, port_switch: "PortSwitch") -> None:
    with ends(binding) as (one, _other):
        assert one.context.take_async_events() == []
        assert not _readable(one.context.async_fileno(), 0)
        port_switch.down()
        assert _readable(one.context.async_fileno(), LIMIT_S)
        assert AsyncEvent.PORT_DOWN in one.context.take_async_events()
        assert one.context.device().ports[0].state is PortState.DOWN
        port_switch.up()
        heard: list[AsyncEvent] = []
        while AsyncEvent.PORT_UP not in heard:
            assert _readable(one.context.async_fileno(), LIMIT_S)
            heard += one.context.take_async_events()
        assert one.context.device().ports[0].state is PortState.ACTIVE


def test_work_on_a_port_that_is_down_fails_at_last(binding: Binding, port_switch: "PortSwitch") -> None:
    with ends(binding, persistence=HASTY) as (one, other):
        port_switch.down()
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        (done,) = wait(one.completions, 1)
        assert not done.ok


class PortSwitch:
    """The port of the first device, to be unplugged."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._name = binding.devices()[0].name

    def down(self) -> None:
        if isinstance(self._binding, SoftBinding):
            self._binding.fabric.port_down(self._name)
        else:
            self._link("down")

    def up(self) -> None:
        if isinstance(self._binding, SoftBinding):
            self._binding.fabric.port_up(self._name)
        else:
            self._link("up")

    def _link(self, state: str) -> None:
        interface = Path("/sys/class/infiniband", self._name, "ports/1/gid_attrs/ndevs/0").read_text().strip()
        subprocess.run(["ip", "link", "set", interface, state], check=True)


@pytest.fixture
def port_switch(binding: Binding) -> Iterator[PortSwitch]:
    if not isinstance(binding, SoftBinding) and "EMBERFS_RDMA_GUEST" not in os.environ:
        pytest.skip("takes a link down: in the guest only")
    switch = PortSwitch(binding)
    yield switch
    switch.up()


def _connect_to(end: End, number: int) -> None:
    """A queue pair of that number, of another process on the same device."""
    device = end.context.device()
    port, gid = port_of(device)
    way = Way(port.number, gid, end.pair.number, port.mtu_bytes, 4, 4, HASTY)
    end.pair.connect(way, RemoteEnd(number, number, gid.address))


def _readable(descriptor: int, limit_s: float) -> bool:
    return bool(select.select([descriptor], [], [], limit_s)[0])


@pytest.mark.rdma
def test_the_root_logger_is_as_it_was() -> None:
    pytest.importorskip("pyverbs")
    code = (
        "import logging; from fs_common.transports.rdma import bindings;"
        "binding = bindings.load('pyverbs'); assert binding.devices();"
        "root = logging.getLogger(); print(root.handlers, root.level)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"[] {logging.WARNING}"
    assert "[INFO]" not in shown.stderr and "[DEBUG]" not in shown.stderr


@pytest.mark.rdma
def test_devices_of_all_bindings_are_the_same() -> None:
    found = []
    for name in bindings.NAMES:
        pytest.importorskip(name)
        found.append(bindings.load(name).devices())
    assert found[0] == found[1] and found[0]


def test_errno_of_a_device_that_is_not_there(binding: Binding) -> None:
    with pytest.raises(VerbsError) as refused:
        binding.open("no such device")
    assert refused.value.number == errno.ENODEV
