"""The protocol core of a connection: bytes in, frames out, and the other way round. It does no I/O.

`FrameReader` says which memory it wants filled and turns what was filled into frames. A payload goes straight into
the memory of whoever it is for; only payload bytes that came in one read with their header are moved, once. The
window in which headers and bodies arrive adapts to that: after a frame without payload it doubles (many small frames
come by one system call), after one with payload it is small (next to nothing is moved).

`FrameWriter` is a queue of memory segments and file ranges in sending order.

Pure: no clock, socket, asyncio. Driven by `transports/tcp.py`.
"""

import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fs_common.checks import check
from fs_common.frames import HEADER_SIZE, Header, unpack
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX

STAGING_SIZE = 64 * 1024
"""Headers and bodies arrive here; a larger body gets memory of its own."""
WINDOW_MIN = 512
WINDOW_MAX = 16 * 1024
"""A window of the smallest frames is some milliseconds of work: others on the loop wait that long."""
SMALL_PAYLOAD = 8 * 1024
"""Up to here another system call costs more than to move the bytes from where they arrive to where they belong."""
IOVEC_MAX = 1024
"""Linux takes no more segments in one system call."""
DISCARD_SIZE = 256 * 1024

_discarded = memoryview(bytearray(DISCARD_SIZE))
"""Where payload goes that nobody wants; written only."""


class FileRange(NamedTuple):
    """Bytes of an open file, sent without being read by this process. The file stays open until they are sent."""

    file: int
    """File descriptor."""
    offset: int
    length: int
    """Bytes, >= 1; the file has them."""


Part = memoryview | bytes | bytearray | FileRange
"""A piece of a payload. Memory belongs to the caller and is stable until it is sent."""


class _State(enum.Enum):
    HEADER = 1
    """Wants the next header."""
    BODY = 2
    """Has a header, wants its body."""
    ASKED = 3
    """Has given out a frame with payload; waits for `payload_into` or `discard_payload`."""
    PAYLOAD = 4
    """Fills the payload's destination."""


class Frame(NamedTuple):
    """A frame whose payload, if it has one, is still to come. `body` is valid until the reader is used again."""

    kind: int
    method: int
    request: int
    body: memoryview
    payload_length: int
    deadline_ms: int
    trace: int = 0


class PayloadDone(enum.Enum):
    """The payload of the last frame is where it was wanted."""

    DONE = 1


PAYLOAD_DONE = PayloadDone.DONE


class FrameReader:
    """One connection's incoming bytes.

    The loop of the owner: fill the memory of `wants()` in order, tell `filled(n)`, then take `next_event()` until it
    gives None. A frame with payload is answered with `payload_into` or `discard_payload` before the next event.
    After a `FrameError` the reader is of no use.
    """

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        """May be changed between events (a stranger gets less than a friend)."""
        self.payload_bytes_max = payload_bytes_max
        self._staging = bytearray(STAGING_SIZE)
        self._view = memoryview(self._staging)
        self._start = 0
        """Staged and not yet consumed: `_staging[_start:_end]`."""
        self._end = 0
        self._window = 4096
        self._state = _State.HEADER
        self._header = Header(0, 0, 0, 0, 0, 0, 0)
        self._large_body: memoryview | None = None
        """Memory of a body that does not fit the staging area; filled up to `_large_end`."""
        self._large_end = 0
        self._views: Sequence[memoryview] = ()
        self._view_index = 0
        self._view_offset = 0
        self._remaining = 0
        """Payload bytes still to come. `_views` is where they go; None of them: they are discarded."""
        self._discard = False

    @property
    def between_frames(self) -> bool:
        """No frame is begun: the peer may end the connection here without breaking anything."""
        return self._state is _State.HEADER and self._start == self._end

    @property
    def within_frame(self) -> bool:
        """A header is here, and the rest of its frame is still to come."""
        return self._state is not _State.HEADER

    @property
    def payload_left(self) -> int:
        """Bytes that are still to come of the payload that is landing; 0: none is."""
        return self._remaining if self._state is _State.PAYLOAD else 0

    def wants(self) -> list[memoryview]:
        """Memory to fill, in order; at least one byte, at most `IOVEC_MAX` segments. Valid until `filled`."""
        state = self._state
        if state is _State.PAYLOAD:
            return self._payload_wants()
        if state is _State.HEADER:
            asked = self._window
            if self._end + asked > STAGING_SIZE:
                self._compact()
                asked = min(asked, STAGING_SIZE - self._end)
            return [self._view[self._end : self._end + asked]]
        check(state is _State.BODY, "a frame's payload has a destination before more is read", state)
        header = self._header
        if self._large_body is not None:
            rest = self._large_body[self._large_end :]
            return [rest] if header.payload_length else [rest, self._view[: self._window]]
        missing = header.body_length - (self._end - self._start)
        # Up to the body's end and no further where a payload follows: its bytes have a better place to go.
        asked = missing if header.payload_length else max(missing, self._window)
        if self._end + asked > STAGING_SIZE:
            self._compact()
            asked = min(asked, STAGING_SIZE - self._end)
        return [self._view[self._end : self._end + asked]]

    def filled(self, count: int) -> None:
        """The first `count` bytes (>= 1) of the memory of the last `wants()` are filled."""
        if self._state is _State.PAYLOAD:
            taken = min(count, self._remaining)
            self._advance(taken)
            self._end += count - taken
        elif self._large_body is not None:
            taken = min(count, len(self._large_body) - self._large_end)
            self._large_end += taken
            self._end += count - taken
        else:
            self._end += count

    def next_event(self) -> Frame | PayloadDone | None:
        """The next thing that is complete, or None: more bytes are needed. Raises `FrameError`."""
        state = self._state
        if state is _State.HEADER:
            start = self._start
            if self._end - start < HEADER_SIZE:
                if start == self._end:
                    self._start = self._end = 0
                return None
            header = unpack(self._view, start, self.body_bytes_max, self.payload_bytes_max)
            self._start = start + HEADER_SIZE
            self._header = header
            self._state = _State.BODY
            if header.body_length > STAGING_SIZE - HEADER_SIZE:
                self._begin_large_body(header.body_length)
        elif state is _State.PAYLOAD:
            if self._remaining:
                return None
            self._views = ()
            self._state = _State.HEADER
            return PAYLOAD_DONE
        elif state is _State.ASKED:
            check(False, "a frame's payload has a destination before the next event")
        header = self._header
        if self._large_body is not None:
            if self._large_end < header.body_length:
                return None
            body = self._large_body
            self._large_body = None
        else:
            start = self._start
            end = start + header.body_length
            if end > self._end:
                return None
            body = self._view[start:end]
            self._start = end
        if header.payload_length:
            # The next frame is expected to be like this one.
            self._window = WINDOW_MIN if header.payload_length > SMALL_PAYLOAD else WINDOW_MAX
            self._state = _State.ASKED
        else:
            self._window = min(self._window * 2, WINDOW_MAX)
            self._state = _State.HEADER
        return Frame(
            header.kind, header.method, header.request, body, header.payload_length, header.deadline_ms, header.trace
        )

    def payload_into(self, views: Sequence[memoryview]) -> None:
        """Where the payload of the frame just given goes: writable byte views, together exactly as long as it is."""
        check(self._state is _State.ASKED, "a destination is given for a payload that is due", self._state)
        length = self._header.payload_length
        sizes = list(map(len, views))
        check(sum(sizes) == length, "the destination is as long as the payload", length)
        # Segments without room would look like the end of the stream if nothing else was asked for.
        self._views = views if all(sizes) else [view for view in views if view]
        self._discard = False
        self._begin_payload(length)

    def discard_payload(self) -> None:
        """The payload of the frame just given, or the rest of the one that is landing, is wanted by nobody.

        The destination given before is not touched again.
        """
        if self._state is _State.PAYLOAD:
            self._views = ()
            self._discard = True
            return
        check(self._state is _State.ASKED, "a payload that is due is discarded", self._state)
        self._discard = True
        self._begin_payload(self._header.payload_length)

    def release(self) -> None:
        """The connection is over: the memory goes now, whoever still refers to the reader. It is of no use any more."""
        self._staging = bytearray()
        self._view = memoryview(self._staging)
        self._start = self._end = 0
        self._large_body = None
        self._views = ()

    def _begin_payload(self, length: int) -> None:
        self._state = _State.PAYLOAD
        self._remaining = length
        self._view_index = 0
        self._view_offset = 0
        staged = min(self._end - self._start, length)
        if staged:
            source = self._view[self._start : self._start + staged]
            if not self._discard:
                self._scatter(source)
            self._start += staged
            self._advance(staged)
        if self._remaining:
            # Nothing is staged behind an incomplete payload, so that the next header lands at the front.
            self._start = self._end = 0

    def _scatter(self, source: memoryview) -> None:
        position = 0
        for view in self._views:
            piece = source[position : position + len(view)]
            view[: len(piece)] = piece
            position += len(piece)
            if position == len(source):
                break

    def _payload_wants(self) -> list[memoryview]:
        if self._discard:
            wanted: list[memoryview] = []
            left = self._remaining
            while left > 0 and len(wanted) < 16:
                wanted.append(_discarded[:left])
                left -= DISCARD_SIZE
            if left <= 0:
                wanted.append(self._view[: self._window])
            return wanted
        views = self._views
        index = self._view_index
        first = views[index]
        if self._view_offset:
            first = first[self._view_offset :]
        wanted = [first]
        wanted.extend(views[index + 1 : index + IOVEC_MAX - 1])
        if index + IOVEC_MAX - 1 >= len(views):
            wanted.append(self._view[: self._window])
        return wanted

    def _advance(self, count: int) -> None:
        """`count` payload bytes have landed."""
        self._remaining -= count
        if self._discard or not self._remaining:
            return
        views = self._views
        index = self._view_index
        offset = self._view_offset + count
        while offset >= len(views[index]):
            offset -= len(views[index])
            index += 1
        self._view_index = index
        self._view_offset = offset

    def _begin_large_body(self, length: int) -> None:
        body = memoryview(bytearray(length))
        staged = min(self._end - self._start, length)
        body[:staged] = self._view[self._start : self._start + staged]
        self._start += staged
        if self._start == self._end:
            self._start = self._end = 0
        self._large_body = body
        self._large_end = staged

    def _compact(self) -> None:
        """Move what is staged to the front."""
        size = self._end - self._start
        self._staging[:size] = self._staging[self._start : self._end]
        self._start = 0
        self._end = size


class Outgoing:
    """A frame with payload on its way out.

    Stands in the queue behind its segments: when it is reached, they are sent.
    """

    __slots__ = ("done", "release", "segment_count")

    def __init__(self, segment_count: int, release: Callable[[], None] | None) -> None:
        self.segment_count = segment_count
        self.release = release
        self.done = False
        """Its memory is not looked at any more."""


class FrameWriter:
    """One connection's outgoing bytes, in order."""

    def __init__(self) -> None:
        self._queue: deque[Part | Outgoing] = deque()
        self._offset = 0
        """Bytes of the first segment that are sent; less than its length."""
        self.unsent_bytes = 0
        self.range_follows = False

    def append(self, frame: bytes) -> None:
        """A frame without payload: header and body."""
        self._queue.append(frame)
        self.unsent_bytes += len(frame)

    def append_with_payload(
        self, frame: bytes, parts: Sequence[Part], payload_length: int, release: Callable[[], None] | None
    ) -> Outgoing:
        """A frame and the parts of its payload: byte views, none of them empty.

        `release` is called once, when the last byte is sent, or the frame is withdrawn or dropped.
        """
        outgoing = Outgoing(1 + len(parts), release)
        queue = self._queue
        queue.append(frame)
        queue.extend(parts)
        queue.append(outgoing)
        self.unsent_bytes += len(frame) + payload_length
        return outgoing

    def gather(self, segments_max: int = IOVEC_MAX) -> list[memoryview | bytes | bytearray] | FileRange | None:
        """What to send next: memory segments, or a file range, or nothing.

        `range_follows` says whether a file range comes right after the segments.
        """
        self.range_follows = False
        if not self.unsent_bytes:
            return None
        segments: list[memoryview | bytes | bytearray] = []
        for segment in self._queue:
            kind = type(segment)
            if kind is FileRange:
                if segments:
                    self.range_follows = True
                    break
                file, offset, length = segment  # type: ignore[misc]
                return FileRange(file, offset + self._offset, length - self._offset)
            if kind is Outgoing:
                continue
            segments.append(segment)  # type: ignore[arg-type]
            if len(segments) == segments_max:
                break
        return self._from_offset(segments)

    def sent(self, count: int) -> None:
        """The first `count` bytes of what `gather` gave are sent (0 included)."""
        self.unsent_bytes -= count
        count += self._offset
        queue = self._queue
        while queue:
            head = queue[0]
            kind = type(head)
            if kind is Outgoing:
                queue.popleft()
                _finish(head)  # type: ignore[arg-type]
                continue
            size = head.length if kind is FileRange else len(head)  # type: ignore[union-attr,arg-type]
            if count < size:
                break
            count -= size
            queue.popleft()
        self._offset = count

    def withdraw(self, outgoing: Outgoing, read: Callable[[FileRange], bytes]) -> None:
        """The owner of the frame's memory and files takes them back now.

        A frame that has not begun is removed. Of one that has begun, the rest is copied (`read`: a file range's
        bytes, all of them): its receiver counts on it. What `read` raises leaves the frame as it was.
        """
        if outgoing.done:
            return
        queue = self._queue
        end = queue.index(outgoing)
        begin = max(end - outgoing.segment_count, 0)
        whole = end - begin == outgoing.segment_count and not (begin == 0 and self._offset)
        if whole:
            for position in range(begin, end):
                segment = queue[position]
                self.unsent_bytes -= segment.length if isinstance(segment, FileRange) else len(segment)  # type: ignore[arg-type]
            for _ in range(end - begin + 1):
                del queue[begin]
        else:
            for position in range(begin, end):
                segment = queue[position]
                if isinstance(segment, FileRange):
                    queue[position] = read(segment)
                elif isinstance(segment, memoryview | bytearray):
                    queue[position] = bytes(segment)
            del queue[end]
        _finish(outgoing)

    def drop(self) -> None:
        """Nothing of the queue will be sent: release everything."""
        queue = self._queue
        self.unsent_bytes = 0
        self._offset = 0
        while queue:
            segment = queue.popleft()
            if isinstance(segment, Outgoing):
                _finish(segment)

    def _from_offset(self, segments: list[memoryview | bytes | bytearray]) -> list[memoryview | bytes | bytearray]:
        if self._offset:
            segments[0] = memoryview(segments[0])[self._offset :]
        return segments


def _finish(outgoing: Outgoing) -> None:
    outgoing.done = True
    release = outgoing.release
    if release is not None:
        outgoing.release = None
        release()
