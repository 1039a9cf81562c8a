"""What verbs really do, where this program counts on it or has to be ready for it: measured on soft-RoCE.

`findings/` has those that contradict a manual, without this program.
"""

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fs_common.transports.rdma import bindings
from fs_common.transports.rdma.verbs import Binding, Capacity, Kind, Receive, Status, VerbsError
from tests.rdma.adaptors import HASTY, LIMIT_S, PATIENT, End, ends, port_of

pytestmark = [
    pytest.mark.rdma,
    pytest.mark.skipif("EMBERFS_RDMA_GUEST" not in os.environ, reason="true of soft-RoCE, in the guest"),
]


@pytest.fixture(params=["pyverbs", "ibverbs"])
def real(request: pytest.FixtureRequest) -> Binding:
    if os.environ.get(bindings.VARIABLE, request.param) != request.param:
        pytest.skip(f"{bindings.VARIABLE} names the other")
    pytest.importorskip(request.param)
    return bindings.load(request.param)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end


class TestWriteWithImmediate:
    """Not used by this program, so not in the adaptor: pyverbs itself."""

    LENGTH = 3000
    BEFORE_THE_LAST_PACKET = 2048

    @pytest.fixture
    def pyverbs(self) -> Binding:
        if os.environ.get(bindings.VARIABLE, "pyverbs") != "pyverbs":
            pytest.skip(f"{bindings.VARIABLE} names the other")
        pytest.importorskip("pyverbs")
        return bindings.load("pyverbs")

    def post(self, one: End, other: End) -> None:
        from pyverbs.wr import SGE, SendWR

        with_immediate, signalled = 1, 2
        entry = SGE(one.memory.address, self.LENGTH, one.region.lkey)
        request = SendWR(wr_id=1, opcode=with_immediate, num_sge=1, sg=[entry], send_flags=signalled, imm_data=7)
        request.set_wr_rdma(other.region.rkey, other.memory.address)
        one.pair.raw.post_send(request)  # type: ignore[attr-defined]
        request.close()
        entry.close()

    def test_one_that_fails_for_want_of_a_receive_has_written_all_but_its_last_packet(self, pyverbs: Binding) -> None:
        with ends(pyverbs, persistence=HASTY, mtu_bytes=1024) as (one, other):
            one.memory[0 : self.LENGTH] = b"x" * self.LENGTH
            self.post(one, other)
            assert one.wait()[0].status is Status.RNR_RETRY_EXC_ERR
            assert other.memory[0 : self.LENGTH].rstrip(b"\0") == b"x" * self.BEFORE_THE_LAST_PACKET

    def test_while_it_tries_again_its_bytes_are_seen_before_any_receive_is_posted(self, pyverbs: Binding) -> None:
        with ends(pyverbs, persistence=PATIENT._replace(receiver_retries=7), mtu_bytes=1024) as (one, other):
            one.memory[0 : self.LENGTH] = b"x" * self.LENGTH
            self.post(one, other)
            last = self.BEFORE_THE_LAST_PACKET - 1
            wait_for(lambda: other.memory[last : last + 1] == b"x")
            assert one.completions.poll(4) == []
            assert other.memory[last + 1 : last + 2] == b"\0"
            other.pair.receive([Receive(2, other.memory.address + 4096, 16, other.region.lkey)])
            assert one.wait()[0].ok and other.wait()[0].ok
            assert other.memory[0 : self.LENGTH] == b"x" * self.LENGTH


def test_a_write_counts_although_the_message_behind_it_fails(real: Binding) -> None:
    """So an answer that a client never hears of may have changed the client's memory."""
    with ends(real, persistence=HASTY) as (one, other):
        one.memory[0:4096] = b"x" * 4096
        one.pair.post([one.work(Kind.WRITE, other, 4096, signalled=False), one.work(Kind.SEND, length=16)])
        assert one.wait()[0].status is Status.RNR_RETRY_EXC_ERR
        assert other.memory[0:4096] == b"x" * 4096


@contextlib.contextmanager
def device_of_mtu(mtu_bytes: int) -> Iterator[str]:
    """One more device, over a network device of this MTU; named for it."""
    net, name = f"mtu{mtu_bytes}", f"rxe_mtu{mtu_bytes}"
    subprocess.run(["modprobe", "dummy", "numdummies=0"], check=True)
    subprocess.run(["ip", "link", "add", net, "mtu", str(mtu_bytes), "type", "dummy"], check=True)
    try:
        subprocess.run(["ip", "link", "set", net, "up"], check=True)
        subprocess.run(["rdma", "link", "add", name, "type", "rxe", "netdev", net], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", net], check=True)


@pytest.mark.parametrize(
    ("network_mtu", "path_mtu"), [(4176, 4096), (4175, 2048), (2128, 2048), (2127, 1024), (1500, 1024), (9000, 4096)]
)
def test_a_path_mtu_takes_80_bytes_more_of_the_network_device(real: Binding, network_mtu: int, path_mtu: int) -> None:
    with device_of_mtu(network_mtu) as name:
        context = real.open(name)
        try:
            assert context.device().ports[0].mtu_bytes == path_mtu
        finally:
            context.close()


@pytest.mark.parametrize(("asked", "granted"), [(0, 16), (1, 16), (16, 16), (17, 17), (128, 128), (512, 512)])
def test_inline_bytes_that_are_granted(real: Binding, asked: int, granted: int) -> None:
    with ends(real, capacity=Capacity(8, 8, inline_bytes=asked)) as (one, _):
        assert one.pair.inline_bytes == granted


def test_more_than_512_inline_bytes_are_refused(real: Binding) -> None:
    context = real.open(real.devices()[0].name)
    try:
        queue = context.completion_queue(16)
        with pytest.raises(VerbsError) as refused:
            context.queue_pair(queue, Capacity(8, 8, inline_bytes=513))
        assert refused.value.number == errno.EINVAL
        assert context.counts().queue_pairs == 0
    finally:
        context.close()


@pytest.mark.parametrize(("length", "room", "written"), [(17, 16, 0), (3000, 2500, 2048)])
def test_a_send_too_long_for_its_receive(real: Binding, length: int, room: int, written: int) -> None:
    """The specification's words are REM_INV_REQ_ERR and LOC_LEN_ERR."""
    with ends(real, mtu_bytes=1024) as (one, other):
        one.memory[0:length] = b"x" * length
        other.pair.receive([Receive(1, other.memory.address, room, other.region.lkey)])
        one.pair.post([one.work(Kind.SEND, length=length)])
        assert one.wait()[0].status is Status.REM_OP_ERR
        assert other.wait()[0].status is Status.LOC_QP_OP_ERR
        assert other.memory[0:length].rstrip(b"\0") == b"x" * written


def test_seven_retries_are_for_ever(real: Binding) -> None:
    """Six are 7 packets. Nothing ends work with seven but this side."""
    counter = Path("/sys/class/infiniband", real.devices()[0].name, "ports/1/hw_counters/sent_pkts")

    def packets() -> int:
        return int(counter.read_text())

    with ends(real, persistence=HASTY._replace(retries=6)) as (one, other):
        other.pair.close()
        before = packets()
        one.pair.post([one.work(Kind.WRITE, other, 64)])
        assert one.wait()[0].status is Status.RETRY_EXC_ERR
        assert packets() - before == 7
    with ends(real, persistence=HASTY._replace(retries=7)) as (one, other):
        other.pair.close()
        before = packets()
        one.pair.post([one.work(Kind.WRITE, other, 64)])
        wait_for(lambda: packets() - before >= 28)
        assert one.completions.poll(1) == []
        one.pair.fail()
        assert one.wait()[0].status is Status.WR_FLUSH_ERR


def test_who_is_alone_hears_nothing_of_it(real: Binding) -> None:
    """The reason for the TCP connection beside each queue pair: only work that is under way tells of a dead peer."""
    with ends(real, persistence=HASTY) as (one, other):
        other.pair.receive([Receive(1, other.memory.address, 16, other.region.lkey)])
        one.pair.close()
        assert other.completions.poll(4) == []
        other.pair.post([other.work(Kind.READ, one)])
        assert {done.status for done in other.wait(2)} == {Status.RETRY_EXC_ERR, Status.WR_FLUSH_ERR}


def test_the_address_of_a_port_is_that_of_its_network_device(real: Binding) -> None:
    for device in real.devices():
        context = real.open(device.name)
        try:
            assert str(port_of(context.device())[1].ip).startswith("10.77.")
        finally:
            context.close()
