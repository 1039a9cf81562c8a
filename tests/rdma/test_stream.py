"""Envelopes, messages and credits: golden bytes, any cuts, any garbage, and two sides that never run out of slots."""

import struct
from collections import deque
from random import Random

import pytest

from fs_common import frames
from fs_common.frames import FrameError
from fs_common.transports.rdma.stream import (
    CONTENT,
    CONTENT_BYTES_MAX,
    CREDITS,
    CREDITS_OWED_MAX,
    DESCRIPTORS_MAX,
    LAST,
    MESSAGE_HEADER_BYTES,
    RECEIVE_SLOTS,
    SLOT_BYTES,
    SPARE_SLOTS,
    Envelope,
    EnvelopeReader,
    MessageReader,
    MessageWriter,
    pack_envelope,
)
from fs_common.wire import Frame

Descriptors = list[tuple[int, int, int]]


def request(body: bytes, sends: Descriptors, intos: Descriptors, number: int = 9) -> tuple[bytes, Envelope]:
    """Bytes of an envelope, and what they are to be read as."""
    payload_length = sum(length for _, length, _ in sends)
    frame = frames.pack(frames.REQUEST, 200, number, len(body), payload_length, 77, 5) + body
    whole = Frame(frames.REQUEST, 200, number, memoryview(body), payload_length, 77, 5)
    return pack_envelope(frame, sends, intos), Envelope(whole, sends, intos)


def random_request(random: Random) -> tuple[bytes, Envelope]:
    body = random.randbytes(random.choice([0, 1, 40, 300, 9000, 30_000]))
    sends = [_descriptor(random) for _ in range(random.choice([0, 0, 1, 3, 700]))]
    intos = [_descriptor(random) for _ in range(random.choice([0, 0, 1, 3, 700]))]
    return request(body, sends, intos, random.randrange(1, 2**32))


def _descriptor(random: Random) -> tuple[int, int, int]:
    return random.randrange(2**48), random.randrange(1, 50_000), random.randrange(2**32)


def owned(envelope: Envelope) -> tuple[object, ...]:
    """What is left when the reader goes on."""
    frame, sends, intos = envelope
    return bytes(frame.body), frame._replace(body=memoryview(b"")), list(sends), list(intos)


def read_all(reader: EnvelopeReader, content: bytes) -> list[tuple[object, ...]]:
    return [owned(envelope) for envelope in reader.read(memoryview(content))]


def test_golden_bytes() -> None:
    frame = frames.pack(frames.REQUEST, 200, 9, 2, 5) + b"ab"
    envelope = pack_envelope(frame, [(0x1122334455667788, 5, 0xAABBCCDD)], [(1, 2, 3)])
    assert (
        envelope.hex()
        == (
            "0100 0100 22000000"  # one send, one into, 34 bytes of frame
            "8877665544332211 05000000 ddccbbaa"
            "0100000000000000 02000000 03000000"
        ).replace(" ", "")
        + frame.hex()
    )
    writer = MessageWriter()
    writer.append(b"xyz")
    slot = memoryview(bytearray(SLOT_BYTES))
    assert slot[: writer.write(slot, 3)].hex() == "00000000 0300 01 00 78797a".replace(" ", "")
    assert slot[: writer.write(slot, 8)].hex() == "01000000 0800 00 00".replace(" ", "")
    assert slot[: writer.write(slot, 0, last=True)].hex() == "02000000 0000 02 00".replace(" ", "")


@pytest.mark.parametrize("seed", range(20))
def test_envelopes_come_whole_out_of_any_cuts(seed: int) -> None:
    random = Random(seed)
    packed, expected = zip(*[random_request(random) for _ in range(30)], strict=True)
    stream = b"".join(packed)
    reader = EnvelopeReader()
    found: list[tuple[object, ...]] = []
    at = 0
    while at < len(stream):
        size = random.choice([1, 2, 7, 8, 9, 100, 8000, 8192, 20_000])
        found += read_all(reader, stream[at : at + size])
        at += size
    assert found == [owned(envelope) for envelope in expected]
    assert not reader.within_envelope


@pytest.mark.parametrize("seed", range(10))
def test_envelopes_come_whole_through_messages(seed: int) -> None:
    random = Random(seed)
    packed, expected = zip(*[random_request(random) for _ in range(20)], strict=True)
    writer, messages, envelopes = MessageWriter(), MessageReader(), EnvelopeReader()
    found: list[tuple[object, ...]] = []
    slot = memoryview(bytearray(SLOT_BYTES))
    todo = deque(packed)
    while todo or writer.pending_bytes:
        while todo and random.random() < 0.7:
            writer.append(todo.popleft())
        if not writer.pending_bytes:
            continue
        _, flags, content = messages.read(slot[: writer.write(slot, 0)])
        assert flags == CONTENT
        found += read_all(envelopes, bytes(content))
        messages.given_back(1)
        writer.give(1)
    assert found == [owned(envelope) for envelope in expected]


def test_small_envelopes_share_a_message() -> None:
    writer = MessageWriter()
    one, _ = request(b"body", [], [])
    for _ in range(100):
        writer.append(one)
    slot = memoryview(bytearray(SLOT_BYTES))
    sizes = []
    while writer.pending_bytes:
        sizes.append(writer.write(slot, 0))
    assert sizes == [MESSAGE_HEADER_BYTES + 100 * len(one)]


def test_a_reader_says_whether_it_is_within_an_envelope() -> None:
    reader = EnvelopeReader()
    one, _ = request(b"body", [], [])
    assert read_all(reader, one[:3]) == []
    assert reader.within_envelope
    assert read_all(reader, one[3:-1]) == []
    assert reader.within_envelope
    assert len(read_all(reader, one[-1:])) == 1
    assert not reader.within_envelope


FRAME = frames.pack(frames.REQUEST, 200, 9, 2) + b"ab"
RESPONSE = frames.pack(frames.RESPONSE, 200, 9, 2, 100) + b"ab"


@pytest.mark.parametrize(
    ("envelope", "field"),
    [
        (struct.pack("<HHI", DESCRIPTORS_MAX + 1, 0, 34), "descriptors"),
        (struct.pack("<HHI", 0, DESCRIPTORS_MAX + 1, 34), "descriptors"),
        (struct.pack("<HHI", 0, 0, 31), "frame length"),
        (struct.pack("<HHI", 0, 0, 2**32 - 1), "frame length"),
        (struct.pack("<HHI", 0, 0, 33) + FRAME[:33], "frame length"),
        (struct.pack("<HHI", 0, 0, 34) + b"\0" * 34, "magic"),
        (pack_envelope(FRAME, [(1, 2, 3)]), "descriptors"),  # a request without payload that sends some
        (pack_envelope(frames.pack(frames.REQUEST, 200, 9, 0, 7)), "descriptors"),  # with payload that lies nowhere
        (pack_envelope(frames.pack(frames.REQUEST, 200, 9, 0, 7), [(1, 6, 3)]), "descriptors"),
        (pack_envelope(RESPONSE, [(1, 100, 3)]), "descriptors"),  # an answer that lends
        (pack_envelope(RESPONSE, [], [(1, 100, 3)]), "descriptors"),
        (pack_envelope(FRAME, [], [(2**64 - 1, 2, 3)]), "descriptors"),
    ],
)
def test_a_bad_envelope_is_named(envelope: bytes, field: str) -> None:
    for cut in (1, 5, 8, len(envelope)):
        reader = EnvelopeReader()
        with pytest.raises(FrameError) as caught:
            read_all(reader, envelope[:cut])
            read_all(reader, envelope[cut:])
        assert caught.value.field == field


def test_bounds_hold_for_the_next_envelopes() -> None:
    reader = EnvelopeReader(body_bytes_max=10, payload_bytes_max=0)
    assert read_all(reader, request(b"x" * 10, [], [])[0])
    with pytest.raises(FrameError) as caught:
        read_all(reader, request(b"x" * 11, [], [])[0])
    assert caught.value.field == "body length"
    with pytest.raises(FrameError) as caught:
        read_all(EnvelopeReader(body_bytes_max=10), request(b"x" * 11, [], [])[0][:8])
    assert caught.value.field == "frame length"
    with pytest.raises(FrameError) as caught:
        read_all(EnvelopeReader(payload_bytes_max=4), request(b"", [(1, 5, 2)], [])[0])
    assert caught.value.field == "payload length"


@pytest.mark.parametrize("seed", range(300))
def test_any_bytes_give_envelopes_or_a_clean_error(seed: int) -> None:
    random = Random(seed)
    stream = bytearray(b"".join(random_request(random)[0] for _ in range(3)))
    for _ in range(random.randrange(1, 6)):
        stream[random.randrange(len(stream) if random.random() < 0.5 else 60)] = random.randrange(256)
    reader = EnvelopeReader()
    at = 0
    try:
        while at < len(stream):
            size = random.randrange(1, 9000)
            read_all(reader, bytes(stream[at : at + size]))
            at += size
    except FrameError as error:
        assert error.field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (b"", "message length"),
        (b"1234567", "message length"),
        (bytes(SLOT_BYTES + 1), "message length"),
        (struct.pack("<IHBB", 1, 0, 0, 0), "sequence"),
        (struct.pack("<IHBB", 0, 0, CONTENT, 0), "flags"),  # says that it has content
        (struct.pack("<IHBB", 0, 0, 0, 0) + b"x", "flags"),
        (struct.pack("<IHBB", 0, 0, 4, 0), "flags"),
        (struct.pack("<IHBB", 0, 0, 0, 1), "flags"),
    ],
)
def test_a_bad_message_is_named(message: bytes, field: str) -> None:
    with pytest.raises(FrameError) as caught:
        MessageReader().read(memoryview(message))
    assert caught.value.field == field


def test_nothing_comes_after_the_last_message() -> None:
    reader = MessageReader()
    assert reader.read(memoryview(struct.pack("<IHBB", 0, 0, LAST, 0)))[:2] == (0, LAST)
    with pytest.raises(FrameError) as caught:
        reader.read(memoryview(struct.pack("<IHBB", 1, 0, 0, 0)))
    assert caught.value.field == "flags"


def test_who_sends_more_than_it_has_credits_for_is_refused() -> None:
    reader = MessageReader()
    for sequence in range(CREDITS):
        reader.read(memoryview(struct.pack("<IHBB", sequence, 0, CONTENT, 0) + b"x"))
    with pytest.raises(FrameError) as caught:
        reader.read(memoryview(struct.pack("<IHBB", CREDITS, 0, CONTENT, 0) + b"x"))
    assert caught.value.field == "credits"


def test_credits_that_were_never_taken_are_refused() -> None:
    writer = MessageWriter()
    with pytest.raises(FrameError) as caught:
        writer.give(1)
    assert caught.value.field == "credits"


def test_sequence_numbers_go_round() -> None:
    writer, reader = MessageWriter(), MessageReader()
    writer._sequence = reader._sequence = 2**32 - 1
    slot = memoryview(bytearray(SLOT_BYTES))
    for _ in range(3):
        writer.append(b"x")
        reader.read(slot[: writer.write(slot, 0)])
    assert writer._sequence == 2


class Side:
    """One side of a connection: what a link does with credits, without anything else."""

    def __init__(self) -> None:
        self.writer, self.reader = MessageWriter(), MessageReader()
        self.owed = 0
        self.posted = RECEIVE_SLOTS
        self.arrived: deque[bytes] = deque()
        """Looked at: their credits are taken. Not read: they hold a slot."""
        self.paused = False
        self.read_bytes = 0

    def arrives(self, data: bytes) -> None:
        assert self.posted, "a message came to a side that has no slot for it"
        self.posted -= 1
        credits, flags, content = self.reader.read(memoryview(data))
        self.writer.give(credits)
        if flags & CONTENT:
            self.arrived.append(bytes(content))
        else:
            self.posted += 1

    def reads(self) -> None:
        if self.arrived and not self.paused:
            self.read_bytes += len(self.arrived.popleft())
            self.posted += 1
            self.owed += 1

    def sends(self) -> bytes | None:
        if not (self.writer.pending_bytes and self.writer.credits) and self.owed < CREDITS_OWED_MAX:
            return None
        slot = memoryview(bytearray(SLOT_BYTES))
        size = self.writer.write(slot, self.owed)
        self.reader.given_back(self.owed)
        self.owed = 0
        return bytes(slot[:size])


@pytest.mark.parametrize("seed", range(40))
def test_slots_never_run_out_and_nobody_waits_for_ever(seed: int) -> None:
    """Whatever the order in which messages leave, arrive and are read; one side may stop reading for long."""
    random = Random(seed)
    sides = [Side(), Side()]
    wire: list[deque[bytes]] = [deque(), deque()]
    given = [0, 0]
    for step in range(6000):
        at = random.randrange(2)
        side = sides[at]
        match random.randrange(5):
            case 0 if step < 4000 and side.writer.pending_bytes < 10 * SLOT_BYTES:
                size = random.choice([1, 100, CONTENT_BYTES_MAX, 3 * SLOT_BYTES])
                side.writer.append(bytes(size))
                given[at] += size
            case 1:
                if (data := side.sends()) is not None:
                    wire[at].append(data)
            case 2 if wire[1 - at]:
                side.arrives(wire[1 - at].popleft())
            case 3:
                side.reads()
            case _:
                if random.random() < 0.02:
                    side.paused = not side.paused and step < 4000
    for side in sides:
        side.paused = False
    for _ in range(2000):
        for at, side in enumerate(sides):
            side.reads()
            if (data := side.sends()) is not None:
                wire[at].append(data)
            if wire[1 - at]:
                side.arrives(wire[1 - at].popleft())
    assert [sides[1].read_bytes, sides[0].read_bytes] == given
    assert SPARE_SLOTS == 2


def test_a_closed_side_forgets_what_it_had() -> None:
    writer, reader = MessageWriter(), EnvelopeReader()
    writer.append(b"x" * 100)
    writer.drop()
    assert writer.pending_bytes == 0
    read_all(reader, request(b"body", [], [])[0][:20])
    reader.release()
    assert not reader.within_envelope
