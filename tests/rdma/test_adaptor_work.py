"""How much Python a binding runs for a work request, a slot, a completion: instructions and calls, counted."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import pytest

from fs_common.transports.rdma.verbs import Binding, Capacity, Kind, Receive
from tests.rdma.adaptors import ends
from tests.rdma.soft_verbs import SoftBinding


class Work(NamedTuple):
    instructions: int
    calls: int
    """Of functions of Python and of C."""


def counted(action: Callable[[], Any]) -> Work:
    instructions = calls = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal instructions
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        instructions += event == "opcode"
        return trace

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before[0])
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(before[1])
    return Work(instructions, calls)


@pytest.mark.parametrize(("kind", "most"), [(Kind.WRITE, 60), (Kind.READ, 60), (Kind.SEND, 55)])
def test_of_a_work_request(binding: Binding, kind: Kind, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch of 256, one in 32 signalled; all in few calls of the library."""
    if isinstance(binding, SoftBinding):
        pytest.skip("it counts what runs on devices")
    with ends(binding, capacity=Capacity(1024, 1024), depth=2048) as (one, other):
        if kind is Kind.SEND:
            other.pair.receive([Receive(n, other.memory.address, 64, other.region.lkey) for n in range(768)])
        works = [one.work(kind, other, 8, signalled=n % 32 == 31) for n in range(256)]
        one.pair.post(works)
        one.wait(8)
        work = counted(lambda: one.pair.post(works))
        one.wait(16)
        with capsys.disabled():
            each = work.instructions / 256
            print(f"\n{binding.name} {kind.name}: {each:.1f} instructions, {work.calls / 256:.2f} calls, each of 256")
        assert work.instructions < most * 256
        assert work.calls < 3 * 256


def test_of_a_slot(binding: Binding, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is posted again and again, as those of messages are."""
    if isinstance(binding, SoftBinding):
        pytest.skip("it counts what runs on devices")
    with ends(binding, capacity=Capacity(64, 64)) as (one, _other):
        slots = [Receive(n, one.memory.address + n * 64, 64, one.region.lkey) for n in range(16)]
        one.pair.receive(slots)
        work = counted(lambda: one.pair.receive(slots))
        with capsys.disabled():
            each = work.instructions / 16
            print(f"\n{binding.name} slots: {each:.1f} instructions, {work.calls / 16:.2f} calls for each of 16")
        assert work.instructions < 60 * 16
        assert work.calls < 4 * 16
