"""What every binding of verbs must do: over the fabric in memory everywhere, over real bindings where a device is."""

import errno
import os
import random

import pytest

from fs_common.transports.rdma.verbs import Access, Binding, Capacity, Kind, Receive, Status, VerbsError
from tests.rdma.adaptors import ALL, HASTY, Memory, ends, wait

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize("length", [1, 63, 4 * KIB, 64 * KIB + 1, MIB])
@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.READ])
def test_bytes_move(binding: Binding, kind: Kind, length: int) -> None:
    with ends(binding, size=MIB + 64) as (one, other):
        source, target = (one, other) if kind is Kind.WRITE else (other, one)
        content = random.Random(length).randbytes(length)
        source.memory[0:length] = content
        offset, to = (0, 64) if kind is Kind.WRITE else (64, 0)
        one.pair.post([one.work(kind, other, length, offset=offset, to=to, id=length)])
        (done,) = one.wait()
        assert done.ok and done.id == length and done.kind is kind and done.queue_pair == one.pair.number
        assert target.memory[64 : 64 + length] == content
        assert not any(target.memory[0:64]), "nothing beside it has changed"
        assert target.memory[64 + length : 128 + length] == bytes(len(target.memory[64 + length : 128 + length]))
        assert other.completions.poll(16) == [], "the other side hears nothing of it"


def test_a_chain_completes_once_for_each_signalled(binding: Binding) -> None:
    with ends(binding, size=MIB, capacity=Capacity(256, 16)) as (one, other):
        one.memory[0:MIB] = os.urandom(MIB)
        works = [
            one.work(Kind.WRITE, other, 4 * KIB, offset=n * 4 * KIB, to=n * 4 * KIB, id=n, signalled=n % 32 == 31)
            for n in range(256)
        ]
        one.pair.post(works)
        assert [done.id for done in one.wait(8)] == [31 + 32 * n for n in range(8)]
        assert one.memory[0:MIB] == other.memory[0:MIB]


def test_an_unsignalled_work_says_nothing(binding: Binding) -> None:
    with ends(binding) as (one, other):
        one.memory[0:4] = b"abcd"
        one.pair.post([one.work(Kind.WRITE, other, 4, signalled=False), one.work(Kind.WRITE, other, 1, to=8, id=7)])
        assert [done.id for done in one.wait()] == [7]
        assert other.memory[0:9] == b"abcd\0\0\0\0a"


def test_messages_use_slots_in_order(binding: Binding) -> None:
    with ends(binding) as (one, other):
        address, lkey = other.memory.address, other.region.lkey
        other.pair.receive([Receive(100 + n, address + n * KIB, KIB, lkey) for n in range(4)])
        for n, text in enumerate((b"first", b"second", b"the third")):
            one.memory[n * 64 : n * 64 + len(text)] = text
            one.pair.post([one.work(Kind.SEND, length=len(text), offset=n * 64)])
        got = other.wait(3)
        assert [(done.id, done.bytes, done.kind) for done in got] == [
            (100, 5, Kind.RECEIVE),
            (101, 6, Kind.RECEIVE),
            (102, 9, Kind.RECEIVE),
        ]
        assert other.memory[2 * KIB : 2 * KIB + 9] == b"the third"
        assert [done.kind for done in one.wait(3)] == [Kind.SEND] * 3


def test_a_slot_may_be_posted_twice(binding: Binding) -> None:
    with ends(binding) as (one, other):
        slot = Receive(1, other.memory.address, 16, other.region.lkey)
        other.pair.receive([slot, slot._replace(id=2), slot._replace(id=3)])
        one.pair.post([one.work(Kind.SEND, length=4)] * 3)
        assert [done.id for done in other.wait(3)] == [1, 2, 3]


def test_a_send_comes_after_the_writes_before_it(binding: Binding) -> None:
    with ends(binding, size=MIB) as (one, other):
        one.memory[0:MIB] = content = os.urandom(MIB)
        other.pair.receive([Receive(1, other.memory.address, 16, other.region.lkey)])
        one.pair.post(
            [one.work(Kind.WRITE, other, MIB - 16, offset=16, to=16, signalled=False), one.work(Kind.SEND, length=16)]
        )
        assert other.wait()[0].ok
        assert other.memory[0:MIB] == content


def test_an_inline_send_needs_no_region_and_its_memory_is_free_at_once(binding: Binding) -> None:
    with ends(binding, capacity=Capacity(64, 64, inline_bytes=128)) as (one, other):
        assert one.pair.inline_bytes >= 128
        other.pair.receive([Receive(n, other.memory.address + n * 128, 128, other.region.lkey) for n in range(8)])
        for n in range(8):
            one.memory[0:128] = bytes([n]) * 128
            one.pair.post([one.work(Kind.SEND, length=128, inline=True, lkey=0, signalled=n == 7)])
            one.memory[0:128] = b"\xff" * 128
        other.wait(8)
        one.wait()
        assert other.memory[0 : 8 * 128] == b"".join(bytes([n]) * 128 for n in range(8))


def test_a_message_waits_for_its_slot(binding: Binding) -> None:
    with ends(binding, persistence=HASTY._replace(receiver_retries=7)) as (one, other):
        one.memory[0:4] = b"here"
        one.pair.post([one.work(Kind.SEND, length=4)])
        assert one.completions.poll(4) == []
        other.pair.receive([Receive(1, other.memory.address, 16, other.region.lkey)])
        assert one.wait()[0].ok and other.wait()[0].bytes == 4


def test_a_message_without_a_slot_fails_at_last(binding: Binding) -> None:
    with ends(binding, persistence=HASTY) as (one, _other):
        one.pair.post([one.work(Kind.SEND, length=4), one.work(Kind.SEND, length=4, signalled=False)])
        assert [done.status for done in one.wait(2)] == [Status.RNR_RETRY_EXC_ERR, Status.WR_FLUSH_ERR]


def test_a_message_longer_than_its_slot_fails_at_both_ends(binding: Binding) -> None:
    with ends(binding) as (one, other):
        other.pair.receive([Receive(1, other.memory.address, 16, other.region.lkey)])
        one.pair.post([one.work(Kind.SEND, length=17)])
        sent, received = one.wait()[0], other.wait()[0]
        assert sent.status in (Status.REM_OP_ERR, Status.REM_INV_REQ_ERR)
        assert received.id == 1 and received.status in (Status.LOC_QP_OP_ERR, Status.LOC_LEN_ERR)


def test_more_than_fits_is_refused(binding: Binding) -> None:
    """The messages stay in the queue: nobody has a slot for them."""
    with ends(binding, capacity=Capacity(8, 8), persistence=HASTY._replace(receiver_retries=7)) as (one, other):
        with pytest.raises(VerbsError) as refused:
            for _ in range(100):
                one.pair.post([one.work(Kind.SEND, length=1)] * 7)
        assert refused.value.number == errno.ENOMEM
        with pytest.raises(VerbsError) as refused:
            for n in range(1000):
                other.pair.receive([Receive(n, other.memory.address, 1, other.region.lkey)])
        assert refused.value.number == errno.ENOMEM


@pytest.mark.parametrize("wrong", ["key", "bounds", "not allowed", "closed", "of another device"])
@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.READ])
def test_memory_that_is_not_given_cannot_be_reached(binding: Binding, kind: Kind, wrong: str) -> None:
    with ends(binding, size=64 * KIB) as (one, other):
        hidden = Memory(4 * KIB)
        hidden[0:4096] = b"h" * 4 * KIB
        one.memory[0:4096] = b"o" * 4 * KIB
        context = one.context if wrong == "of another device" else other.context
        allowed = Access.LOCAL_WRITE | (Access.REMOTE_READ if kind is Kind.WRITE else Access.REMOTE_WRITE)
        region = context.register(hidden.address, 4 * KIB, allowed if wrong == "not allowed" else ALL)
        rkey, address, length = region.rkey, hidden.address, 4 * KIB
        if wrong == "key":
            rkey ^= 0x5555
        elif wrong == "bounds":
            address += 1
        elif wrong == "closed":
            region.close()
        works = [
            one.work(kind, other, length, rkey=rkey, id=1)._replace(remote_address=address),
            one.work(Kind.WRITE, other, 8, id=2, signalled=False),
        ]
        one.pair.post(works)
        assert [(done.id, done.status) for done in one.wait(2)] == [
            (1, Status.REM_ACCESS_ERR),
            (2, Status.WR_FLUSH_ERR),
        ]
        assert hidden[0:4096] == b"h" * 4 * KIB and one.memory[0:4096] == b"o" * 4 * KIB
        one.pair.post([one.work(Kind.WRITE, other, 8, id=3)])
        assert [(done.id, done.status) for done in one.wait()] == [(3, Status.WR_FLUSH_ERR)]
        region.close()
        hidden.close()


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.READ])
def test_who_may_do_nothing_reaches_no_memory_with_the_right_key(binding: Binding, kind: Kind) -> None:
    with ends(binding, one_may=Access.NOTHING) as (one, other):
        one.memory[0:8] = b"one's..."
        other.memory[0:8] = b"other's."
        other.pair.receive([Receive(7, other.memory.address + 4 * KIB, KIB, other.region.lkey)])
        one.pair.post([one.work(Kind.SEND)])
        assert other.wait()[0].ok and one.wait()[0].ok
        other.pair.post([other.work(Kind.READ, one, 8, offset=64), other.work(Kind.WRITE, one, 8, to=64)])
        assert [done.ok for done in other.wait(2)] == [True, True]
        assert other.memory[64:72] == b"one's..." and one.memory[64:72] == b"other's."
        one.pair.post([one.work(kind, other, 8)])
        assert one.wait()[0].status in (Status.REM_ACCESS_ERR, Status.REM_INV_REQ_ERR)
        assert one.memory[0:8] == b"one's..." and other.memory[0:8] == b"other's."


def test_local_memory_must_be_registered_too(binding: Binding) -> None:
    with ends(binding) as (one, other):
        one.pair.post([one.work(Kind.WRITE, other, 8, lkey=one.region.lkey ^ 0x5555, id=5)])
        (done,) = one.wait()
        assert not done.ok and done.id == 5 and not any(other.memory[0:8])


def test_a_closed_queue_pair_does_not_answer(binding: Binding) -> None:
    with ends(binding, persistence=HASTY) as (one, other):
        one.pair.receive([Receive(2, one.memory.address, 16, one.region.lkey)])
        other.pair.close()
        one.pair.post([one.work(Kind.READ, other, 8, id=1)])
        assert {done.id: done.status for done in one.wait(2)} == {
            1: Status.RETRY_EXC_ERR,
            2: Status.WR_FLUSH_ERR,
        }


def test_fail_flushes_all_that_is_posted(binding: Binding) -> None:
    with ends(binding, persistence=HASTY._replace(receiver_retries=7)) as (one, other):
        one.pair.receive([Receive(n, one.memory.address + 16 * n, 16, one.region.lkey) for n in range(4)])
        one.pair.post([one.work(Kind.SEND, length=4, id=10 + n, signalled=False) for n in range(4)])
        one.pair.fail()
        one.pair.fail()
        got = one.wait(8)
        assert {done.status for done in got} == {Status.WR_FLUSH_ERR}
        assert sorted(done.id for done in got) == [0, 1, 2, 3, 10, 11, 12, 13]
        one.memory[0:8] = b"not seen"
        one.pair.post([one.work(Kind.WRITE, other, 8, id=20)])
        assert [done.id for done in one.wait()] == [20]
        assert not any(other.memory[0:8])


def test_who_has_failed_can_no_longer_be_written(binding: Binding) -> None:
    with ends(binding, persistence=HASTY) as (one, other):
        other.pair.fail()
        one.memory[0:8] = b"not seen"
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        assert one.wait()[0].status is Status.RETRY_EXC_ERR
        assert not any(other.memory[0:8])


def test_a_region_that_is_closed_while_it_is_written(binding: Binding) -> None:
    """Whatever happens, the work ends, and what is closed is not written after."""
    with ends(binding, size=4 * MIB, persistence=HASTY) as (one, other):
        one.memory[0 : 4 * MIB] = b"x" * 4 * MIB
        one.pair.post([one.work(Kind.WRITE, other, 4 * MIB)])
        other.region.close()
        before = other.memory[0 : 4 * MIB]
        one.wait()
        assert other.memory[0 : 4 * MIB] == before


def test_closing_is_harmless_in_any_order(binding: Binding) -> None:
    with ends(binding) as (one, other):
        one.completions.close()
        for part in (one.pair, one.completions, one.region, one.pair, one.region):
            part.close()
        assert one.context.counts() == (0, 0, 0)
        one.context.close()
        for part in (one.region, one.pair, one.completions, one.context):
            part.close()
        one.pair.fail()
        with pytest.raises(VerbsError):
            one.context.register(one.memory.address, 64, ALL)
        with pytest.raises(VerbsError):
            one.pair.post([one.work(Kind.WRITE, other, 8)])
        with pytest.raises(VerbsError):
            one.completions.poll(1)
        other.context.close()


def test_what_is_dropped_is_closed_with_its_device(binding: Binding) -> None:
    context = binding.open(binding.devices()[0].name)
    memory = Memory(4 * KIB)
    context.register(memory.address, 4 * KIB, ALL)
    context.queue_pair(context.completion_queue(16), Capacity(4, 4))
    assert context.counts() == (1, 1, 1)
    context.close()
    assert context.counts() == (0, 0, 0)
    memory.close()


def test_what_cannot_be_registered_is_refused(binding: Binding) -> None:
    with ends(binding) as (one, _other):
        context, memory = one.context, one.memory
        with pytest.raises(VerbsError) as refused:
            context.register(memory.address, 64, Access.REMOTE_WRITE)
        assert refused.value.number == errno.EINVAL
        gone = Memory(64 * KIB)
        address = gone.address
        gone.close()
        with pytest.raises(VerbsError) as refused:
            context.register(address, 64 * KIB, ALL)
        assert refused.value.number in (errno.EFAULT, errno.ENOMEM)
        assert context.counts().regions == 1


def test_nothing_is_used_before_it_is_connected(binding: Binding) -> None:
    context = binding.open(binding.devices()[0].name)
    try:
        pair = context.queue_pair(context.completion_queue(16), Capacity(4, 4))
        with pytest.raises(VerbsError):
            pair.receive([Receive(1, 4096, 1, 0)])
        with pytest.raises(VerbsError):
            binding.open("no such device")
    finally:
        context.close()


def test_completions_of_several_queue_pairs_are_told_apart(binding: Binding) -> None:
    with ends(binding, depth=512) as (one, other):
        pairs = [one.context.queue_pair(one.completions, Capacity(8, 8)) for _ in range(3)]
        assert len({one.pair.number, *(pair.number for pair in pairs)}) == 4
        one.pair.post([one.work(Kind.WRITE, other, 8)])
        assert one.wait()[0].queue_pair == one.pair.number
        for pair in pairs:
            pair.close()
        assert one.context.counts().queue_pairs == 1
        assert wait(one.completions, 0) == []
