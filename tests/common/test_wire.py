"""The protocol core, fed and drained in every way the kernel might."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common import frames, wire
from fs_common.checks import InvariantViolation
from fs_common.frames import FrameError, pack
from fs_common.wire import PAYLOAD_DONE, FileRange, FrameReader, FrameWriter


@dataclass
class Sample:
    """A frame, and what its receiver does with the payload."""

    request: int
    body: bytes
    payload: bytes = b""
    cuts: list[int] = field(default_factory=list)
    """Sizes of the views the payload goes to, before the last one that takes the rest."""
    wanted: bool = True

    def encoded(self) -> bytes:
        return pack(frames.REQUEST, 9, self.request, len(self.body), len(self.payload)) + self.body + self.payload


def pattern(size: int, seed: int) -> bytes:
    return bytes((seed + i * 7) % 251 for i in range(size))


class Driver:
    """The owner of a reader: feeds it, takes its events."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.reader = FrameReader()
        self.samples = {sample.request: sample for sample in samples}
        self.log: list[tuple[object, ...]] = []
        self.views: list[memoryview] = []
        self.largest_segment = 0
        self.reads = 0

    def feed(self, data: bytes, sizes: Iterator[int]) -> None:
        """All of `data`, in reads of these sizes; a read takes no more than the reader wants."""
        position = 0
        while position < len(data):
            size = min(next(sizes), len(data) - position)
            taken = 0
            wanted = self.reader.wants()
            assert 0 < len(wanted) <= wire.IOVEC_MAX
            assert sum(map(len, wanted)) > 0
            for segment in wanted:
                self.largest_segment = max(self.largest_segment, len(segment))
                piece = data[position + taken : position + min(taken + len(segment), size)]
                segment[: len(piece)] = piece
                taken += len(piece)
            self.reader.filled(taken)
            self.reads += 1
            position += taken
            self.take_events()

    def take_events(self) -> None:
        while (event := self.reader.next_event()) is not None:
            if event is PAYLOAD_DONE:
                self.log.append(("done", b"".join(self.views)))
                continue
            assert isinstance(event, wire.Frame)
            self.log.append(("frame", event.request, bytes(event.body), event.payload_length))
            if event.payload_length:
                sample = self.samples[event.request]
                self.views = []
                if not sample.wanted:
                    self.reader.discard_payload()
                    continue
                left = event.payload_length
                for cut in sample.cuts:
                    self.views.append(memoryview(bytearray(min(cut, left))))
                    left -= len(self.views[-1])
                self.views.append(memoryview(bytearray(left)))
                self.reader.payload_into(self.views)


def expected(samples: Sequence[Sample]) -> list[tuple[object, ...]]:
    log: list[tuple[object, ...]] = []
    for sample in samples:
        log.append(("frame", sample.request, sample.body, len(sample.payload)))
        if sample.payload:
            log.append(("done", sample.payload if sample.wanted else b""))
    return log


def read_all(samples: Sequence[Sample], sizes: Iterator[int]) -> Driver:
    driver = Driver(samples)
    driver.feed(b"".join(sample.encoded() for sample in samples), sizes)
    assert driver.log == expected(samples)
    assert driver.reader.between_frames
    return driver


sizes_strategy = st.one_of(st.integers(0, 40), st.sampled_from([480, 512, 4096, 65_503, 65_504, 65_505, 70_000]))


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Sample]:
    samples = []
    for request in range(1, draw(st.integers(1, 8)) + 1):
        samples.append(
            Sample(
                request,
                pattern(draw(sizes_strategy), request),
                pattern(draw(sizes_strategy), request * 3),
                draw(st.lists(st.integers(0, 5000), max_size=4)),
                draw(st.booleans()),
            )
        )
    return samples


@given(samples=sample_lists(), cuts=st.lists(st.integers(1, 70_000), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_same_events_wherever_the_stream_is_cut(samples: list[Sample], cuts: list[int]) -> None:
    read_all(samples, itertools.cycle(cuts))


def test_byte_by_byte() -> None:
    samples = [Sample(1, b""), Sample(2, b"body", b"payload", [3]), Sample(3, b"x" * 100), Sample(4, b"", b"p" * 600)]
    read_all(samples, itertools.repeat(1))


def test_many_small_frames_come_in_one_read() -> None:
    driver = Driver([])
    data = b"".join(Sample(n, b"body").encoded() for n in range(1, 1001))
    driver.feed(data, itertools.repeat(1 << 20))
    assert len(driver.log) == 1000
    assert driver.largest_segment == wire.WINDOW_MAX


def test_after_a_payload_next_to_nothing_is_moved() -> None:
    """The window for the next header is small, so payload lands where it belongs."""
    driver = read_all([Sample(1, b"a", b"p" * 100_000), Sample(2, b"b", b"q" * 100_000)], itertools.repeat(1 << 20))
    assert sum(map(len, driver.reader.wants())) == wire.WINDOW_MIN


def test_frames_with_small_payloads_come_several_in_one_read() -> None:
    driver = read_all([Sample(n, b"body", b"p" * 4096) for n in range(1, 31)], itertools.repeat(1 << 20))
    assert driver.reads <= 15


def test_header_of_the_next_frame_comes_with_the_payload() -> None:
    driver = Driver([sample := Sample(1, b"", b"p" * 5000)])
    encoded = sample.encoded()
    driver.feed(encoded[:33], itertools.repeat(100))
    wanted = driver.reader.wants()
    assert [len(segment) for segment in wanted] == [4999, wire.WINDOW_MAX]


def test_nothing_behind_a_frame_with_payload_is_read_before_its_destination_is_known() -> None:
    reader = FrameReader()
    reader.wants()[0][:32] = pack(frames.REQUEST, 1, 1, 1000, 50)
    reader.filled(32)
    assert reader.next_event() is None
    assert sum(map(len, reader.wants())) == 1000


def test_more_views_than_one_system_call_takes() -> None:
    sample = Sample(1, b"", pattern(9000, 5), [3] * 2500)
    read_all([sample, Sample(2, b"after")], itertools.repeat(1 << 20))


def test_views_without_room_are_skipped() -> None:
    sample = Sample(1, b"", b"payload", [0] * 2000)
    read_all([sample, Sample(2, b"after")], itertools.repeat(4))


def test_discarding_while_landing_touches_nothing_more() -> None:
    reader = FrameReader()
    data = Sample(1, b"", b"p" * 1000).encoded()
    reader.wants()[0][:32] = data[:32]
    reader.filled(32)
    destination = bytearray(1000)
    assert isinstance(reader.next_event(), wire.Frame)
    reader.payload_into([memoryview(destination)])
    reader.wants()[0][:10] = data[32:42]
    reader.filled(10)
    reader.discard_payload()
    assert reader.next_event() is None
    for segment in reader.wants():
        segment[:] = b"!" * len(segment)
    reader.filled(990)
    assert reader.next_event() is PAYLOAD_DONE
    assert destination == b"p" * 10 + bytes(990)
    assert reader.between_frames


def test_a_destination_of_the_wrong_size_is_refused() -> None:
    reader = FrameReader()
    reader.wants()[0][:32] = pack(frames.REQUEST, 1, 1, 0, 10)
    reader.filled(32)
    assert isinstance(reader.next_event(), wire.Frame)
    with pytest.raises(InvariantViolation, match="as long as the payload"):
        reader.payload_into([memoryview(bytearray(9))])


@given(st.binary(min_size=32, max_size=300), st.integers(1, 64))
@settings(deadline=None)
def test_garbage_is_a_clean_error(data: bytes, size: int) -> None:
    driver = Driver([])
    with pytest.raises(FrameError):
        driver.feed(data, itertools.repeat(size))


@given(samples=sample_lists(), where=st.floats(0, 0.999), bit=st.integers(0, 7), size=st.integers(1, 70_000))
@settings(deadline=None)
def test_damage_anywhere_ends_in_events_or_an_error(samples: list[Sample], where: float, bit: int, size: int) -> None:
    """Damage of a header is found; damage of body or payload is their owners' to find. Nothing hangs or grows."""
    data = bytearray(b"".join(sample.encoded() for sample in samples))
    position = int(where * len(data))
    data[position] ^= 1 << bit
    driver = Driver(samples)
    try:
        driver.feed(bytes(data), itertools.repeat(size))
    except FrameError:
        assert len(driver.log) < len(expected(samples))
    else:
        assert len(driver.log) == len(expected(samples))
    assert driver.largest_segment <= wire.DISCARD_SIZE


def test_a_length_over_its_bound_allocates_nothing() -> None:
    reader = FrameReader(body_bytes_max=100)
    reader.wants()[0][:32] = pack(frames.REQUEST, 1, 1, 101)
    reader.filled(32)
    with pytest.raises(FrameError, match="body length"):
        reader.next_event()


# --- writer ---


def drain(writer: FrameWriter, files: dict[int, bytes], sizes: Iterator[int]) -> bytes:
    """What goes out when each system call takes as many bytes as `sizes` says."""
    out = bytearray()
    while (due := writer.gather()) is not None:
        if isinstance(due, FileRange):
            data = files[due.file][due.offset : due.offset + due.length]
        else:
            assert 0 < len(due) <= wire.IOVEC_MAX
            data = b"".join(due)
        size = min(next(sizes), len(data))
        out += data[:size]
        writer.sent(size)
    assert writer.unsent_bytes == 0
    return bytes(out)


@given(data=st.data(), cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=8))
@settings(deadline=None)
def test_everything_leaves_in_order_and_is_released_when_sent(data: st.DataObject, cuts: list[int]) -> None:
    writer = FrameWriter()
    files = {3: pattern(5000, 1)}
    expected_bytes = bytearray()
    released: list[int] = []
    frame_count = data.draw(st.integers(1, 6))
    for number in range(frame_count):
        head = pattern(data.draw(st.integers(1, 100)), number)
        expected_bytes += head
        parts: list[wire.Part] = []
        for size in data.draw(st.lists(st.integers(1, 4000), max_size=3)):
            if data.draw(st.booleans()):
                parts.append(FileRange(3, 5000 - size, size))
                expected_bytes += files[3][5000 - size :]
            else:
                memory = pattern(size, size)
                parts.append(memoryview(memory))
                expected_bytes += memory
        if parts:
            length = sum(part.length if isinstance(part, FileRange) else len(part) for part in parts)
            writer.append_with_payload(head, parts, length, partial(released.append, number))
        else:
            writer.append(head)
            released.append(number)
    assert drain(writer, files, itertools.cycle(cuts)) == expected_bytes
    assert sorted(released) == list(range(frame_count))


def test_range_follows_tells_where_a_file_comes_next() -> None:
    writer = FrameWriter()
    writer.append(b"one")
    writer.append_with_payload(b"two", [FileRange(3, 0, 5), b"tail"], 9, None)
    assert writer.gather() == [b"one", b"two"]
    assert writer.range_follows
    writer.sent(6)
    assert writer.gather() == FileRange(3, 0, 5)
    writer.sent(2)
    assert writer.gather() == FileRange(3, 2, 3)
    writer.sent(3)
    assert writer.gather() == [b"tail"]
    assert not writer.range_follows


@given(sent=st.integers(0, 40), which=st.integers(0, 2))
@settings(deadline=None)
def test_withdrawn_memory_is_free_and_the_stream_stays_whole(sent: int, which: int) -> None:
    """Whatever was sent before: the other frames are whole, the withdrawn one is whole or absent."""
    writer = FrameWriter()
    file = b"filebytes"
    memories = [bytearray(b"%d-memory" % n) for n in range(3)]
    released: list[int] = []
    outgoing = []
    encoded = []
    for n, memory in enumerate(memories):
        parts: list[wire.Part] = [memoryview(memory), FileRange(7, 1, 4)]
        encoded.append(b"<%d>" % n + bytes(memory) + file[1:5])
        outgoing.append(writer.append_with_payload(b"<%d>" % n, parts, len(memory) + 4, partial(released.append, n)))
    total = b"".join(encoded)
    out = bytearray()
    while len(out) < sent and (due := writer.gather()) is not None:
        data = file[due.offset : due.offset + due.length] if isinstance(due, FileRange) else b"".join(due)
        size = min(sent - len(out), len(data))
        out += data[:size]
        writer.sent(size)
    writer.withdraw(outgoing[which], lambda part: file[part.offset : part.offset + part.length])
    assert which in released
    assert outgoing[which].done
    memories[which][:] = b"!" * len(memories[which])
    out += drain(writer, {7: file}, itertools.repeat(3))
    begin = sum(map(len, encoded[:which]))
    if sent > begin:
        assert out == total
    else:
        assert out == b"".join(frame for n, frame in enumerate(encoded) if n != which)
    assert sorted(released) == [0, 1, 2]
    writer.withdraw(outgoing[which], lambda part: b"")
    assert sorted(released) == [0, 1, 2]


def test_what_is_dropped_is_released() -> None:
    writer = FrameWriter()
    released: list[str] = []
    writer.append(b"frame")
    writer.append_with_payload(b"head", [b"payload"], 7, lambda: released.append("first"))
    writer.append_with_payload(b"head", [b"payload"], 7, lambda: released.append("second"))
    writer.drop()
    assert released == ["first", "second"]
    assert writer.unsent_bytes == 0
    assert writer.gather() is None
