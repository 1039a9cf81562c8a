"""What is said by SEND and RECV: envelopes of frames, the messages that they are cut into, and credits.

An *envelope* is a frame without its payload, and where its payload lies. Integers are little-endian:

    offset  size  field
    0       2     sends          descriptors of what a request sends; 0 in all other frames
    2       2     intos          descriptors of where a request's answer goes; 0 in all other frames
    4       4     frame length   bytes of frame header and body
    8       16n   descriptors    the sends, then the intos: address 8, length 4, rkey 4
    8+16n         frame          header (`frames.py`) and body

Envelopes follow one another without a gap. This stream is cut into *messages*, each sent into one slot:

    offset  size  field
    0       4     sequence       number of the message, from 0 on, modulo 2**32
    4       2     credits        slots that the sender has emptied since it said so last
    6       1     flags          1: needs a credit (it has content); 2: the last one, nothing follows
    7       1     zero
    8             content        a piece of the stream; nothing in a message that carries credits only

Credits: the receiver posts `RECEIVE_SLOTS` slots. A message with content takes one of the `CREDITS` that its sender
has, so who does not read is sent no more than he has room for. Messages that carry credits only take none: they are
sent when `CREDITS_OWED_MAX` are owed, so no more than `SPARE_SLOTS` are on their way. The last message takes the last
slot.

Any bytes give envelopes or a `FrameError` that names the bad field. Pure.
"""

import struct
from collections import deque
from collections.abc import Sequence
from itertools import starmap
from operator import itemgetter
from typing import NamedTuple

from fs_common import frames
from fs_common.checks import violated
from fs_common.frames import HEADER_SIZE, REQUEST, FrameError
from fs_common.limits import BODY_BYTES_MAX, KIB, PAYLOAD_BYTES_MAX
from fs_common.wire import Frame

SLOT_BYTES = 8 * KIB
CREDITS = 16
"""Messages with content that may be on their way to one side."""
CREDITS_OWED_MAX = CREDITS // 2
"""From so many on they are given back by a message of their own."""
SPARE_SLOTS = CREDITS // CREDITS_OWED_MAX
"""For messages that carry credits only: each gives back half of all that there are."""
RECEIVE_SLOTS = CREDITS + SPARE_SLOTS + 1
DESCRIPTORS_MAX = 2**13
"""Of either kind, in one envelope."""

CONTENT = 1
LAST = 2

_MESSAGE = struct.Struct("<IHBB")
_PREFIX = struct.Struct("<HHI")
_DESCRIPTOR = struct.Struct("<QII")
MESSAGE_HEADER_BYTES = _MESSAGE.size
PREFIX_BYTES = _PREFIX.size
DESCRIPTOR_BYTES = _DESCRIPTOR.size
CONTENT_BYTES_MAX = SLOT_BYTES - MESSAGE_HEADER_BYTES

assert (MESSAGE_HEADER_BYTES, PREFIX_BYTES, DESCRIPTOR_BYTES) == (8, 8, 16)

_SEQUENCE_MAX = 2**32 - 1
_LAST_ADDRESSES = 2**64 - 2**32
_LENGTH = itemgetter(1)


class Descriptor(NamedTuple):
    """Memory that is lent to the other side."""

    address: int
    length: int
    """Bytes, < 2**32."""
    rkey: int


class Envelope(NamedTuple):
    """A frame that has arrived, and where its payload lies. `frame.body` is valid until the reader is used again."""

    frame: Frame
    sends: Sequence[tuple[int, int, int]]
    """`Descriptor`s, plain: what the frame's payload is read from. Together as long as it, in a request."""
    intos: Sequence[tuple[int, int, int]]
    """Where the answer's payload is written to."""


def pack_envelope(
    frame: bytes, sends: Sequence[tuple[int, int, int]] = (), intos: Sequence[tuple[int, int, int]] = ()
) -> bytes:
    """`frame`: header and body. The caller keeps the descriptors within `DESCRIPTORS_MAX`."""
    prefix = _PREFIX.pack(len(sends), len(intos), len(frame))
    if not sends and not intos:
        return prefix + frame
    return b"".join((prefix, *starmap(_DESCRIPTOR.pack, sends), *starmap(_DESCRIPTOR.pack, intos), frame))


class MessageWriter:
    """Cuts the stream of envelopes into messages, as credits allow."""

    def __init__(self) -> None:
        self._pending: deque[bytes | memoryview] = deque()
        self._sequence = 0
        self.pending_bytes = 0
        """Of the stream, not yet in messages."""
        self.credits = CREDITS
        """Messages with content that may be sent."""

    def append(self, envelope: bytes) -> None:
        self._pending.append(envelope)
        self.pending_bytes += len(envelope)

    def write(self, slot: memoryview, owed: int, last: bool = False) -> int:
        """The next message, into `slot`: as much of the stream as fits, for a credit; where there is none, or nothing
        to send, it has no content. `owed` slots are given back by it. Returns its bytes."""
        length = self.pending_bytes
        flags = LAST if last else 0
        if length and self.credits:
            self.credits -= 1
            flags |= CONTENT
            pending = self._pending
            if length <= CONTENT_BYTES_MAX:
                slot[MESSAGE_HEADER_BYTES : MESSAGE_HEADER_BYTES + length] = b"".join(pending)
                pending.clear()
                self.pending_bytes = 0
            else:
                length = CONTENT_BYTES_MAX
                self._cut(slot)
        else:
            length = 0
        _MESSAGE.pack_into(slot, 0, self._sequence, owed, flags, 0)
        self._sequence = self._sequence + 1 & _SEQUENCE_MAX
        return MESSAGE_HEADER_BYTES + length

    def _cut(self, slot: memoryview) -> None:
        """Fill the slot with the beginning of a stream that is longer."""
        pending = self._pending
        at = MESSAGE_HEADER_BYTES
        while at < SLOT_BYTES:
            piece = pending.popleft()
            length = min(len(piece), SLOT_BYTES - at)
            slot[at : at + length] = memoryview(piece)[:length]
            if length < len(piece):
                pending.appendleft(memoryview(piece)[length:])
            at += length
        self.pending_bytes -= CONTENT_BYTES_MAX

    def give(self, credits: int) -> None:
        """The other side has emptied so many slots. Raises `FrameError`: there are not so many."""
        self.credits += credits
        if self.credits > CREDITS:
            raise FrameError("credits", f"{credits} were given back, which makes {self.credits} of {CREDITS}")

    def drop(self) -> None:
        """Nothing more will be sent."""
        self._pending.clear()
        self.pending_bytes = 0


class MessageReader:
    """Takes messages in their order."""

    def __init__(self) -> None:
        self._sequence = 0
        self._unread = 0
        """Messages with content whose slots are not given back."""
        self._last = False

    def read(self, slot: memoryview) -> tuple[int, int, memoryview]:
        """`slot`: as long as what has arrived. Returns credits, flags, and content, a view of the slot. Raises
        `FrameError`."""
        if not MESSAGE_HEADER_BYTES <= len(slot) <= SLOT_BYTES:
            raise FrameError("message length", f"{len(slot)} bytes are none of {MESSAGE_HEADER_BYTES} to {SLOT_BYTES}")
        sequence, credits, flags, zero = _MESSAGE.unpack_from(slot)
        if sequence != self._sequence:
            raise FrameError("sequence", f"message {sequence} came where {self._sequence} was due")
        content = slot[MESSAGE_HEADER_BYTES:]
        if flags > CONTENT | LAST or zero or flags & CONTENT != bool(content):
            raise FrameError("flags", f"{flags}, {zero} of a message with {len(content)} bytes of content")
        if self._last:
            raise FrameError("flags", "a message came after the last one")
        if flags & CONTENT:
            self._unread += 1
            if self._unread > CREDITS:
                raise FrameError("credits", f"more than {CREDITS} messages came that were not read")
        if flags >= LAST:
            self._last = True
        self._sequence = sequence + 1 & _SEQUENCE_MAX
        return credits, flags, content

    def given_back(self, credits: int) -> None:
        """The other side is told that so many slots are empty again."""
        self._unread -= credits


class EnvelopeReader:
    """Envelopes out of contents of messages.

    The loop of the owner: `feed` one content, then `next_envelope` until it gives None: the content is of no use then.
    After a `FrameError` the reader is of no use.
    """

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self.payload_bytes_max = payload_bytes_max
        self._view = memoryview(b"")
        """What was fed; `_start` bytes of it are taken."""
        self._start = 0
        self.used_up = True
        """Nothing of what was fed is left: it is not looked at any more."""
        self._cut = bytearray()
        """The beginning of an envelope that was cut, up to `_filled`; as long as the envelope once its length is known.
        """
        self._filled = 0

    @property
    def within_envelope(self) -> bool:
        """An envelope has begun to arrive, and the rest of it is still to come."""
        return self._filled > 0

    def feed(self, content: memoryview) -> None:
        if not self.used_up:
            violated("a content is taken to its end before the next", self._start)
        self._view = content
        self._start = 0
        self.used_up = not content

    def release(self) -> None:
        """The connection is over."""
        self._view = memoryview(b"")
        self._cut = bytearray()
        self._start = self._filled = 0
        self.used_up = True

    def next_envelope(self) -> Envelope | None:
        """None: another content is needed. Raises `FrameError`."""
        if self._filled:
            return self._next_of_cut()
        view, start = self._view, self._start
        left = len(view) - start
        if left >= PREFIX_BYTES:
            sends, intos, frame_length = _PREFIX.unpack_from(view, start)
            begin = start + PREFIX_BYTES + (sends + intos) * DESCRIPTOR_BYTES
            end = begin + frame_length
            if end <= start + left:
                self._start = end
                self.used_up = end == start + left
                return self._parse(view, start + PREFIX_BYTES, begin, end, sends, intos)
            self._check_prefix(sends, intos, frame_length)
            self._cut = bytearray(end - start)
        elif left:
            self._cut = bytearray(PREFIX_BYTES)
        else:
            return None
        self._cut[:left] = view[start:]
        self._filled = left
        self._start = len(view)
        self.used_up = True
        return None

    def _next_of_cut(self) -> Envelope | None:
        if self._filled < PREFIX_BYTES:
            self._fill(PREFIX_BYTES)
            if self._filled < PREFIX_BYTES:
                return None
            sends, intos, frame_length = _PREFIX.unpack_from(self._cut)
            self._check_prefix(sends, intos, frame_length)
            self._cut.extend(bytes((sends + intos) * DESCRIPTOR_BYTES + frame_length))
        self._fill(len(self._cut))
        if self._filled < len(self._cut):
            return None
        # The envelope keeps these bytes; the next one that is cut has others.
        whole, self._cut, self._filled = self._cut, bytearray(), 0
        sends, intos, frame_length = _PREFIX.unpack_from(whole)
        end = len(whole)
        return self._parse(memoryview(whole), PREFIX_BYTES, end - frame_length, end, sends, intos)

    def _fill(self, end: int) -> None:
        """Take what there is, until so many bytes of the cut envelope are here."""
        taken = self._view[self._start : self._start + end - self._filled]
        self._cut[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        self._start += len(taken)
        self.used_up = self._start == len(self._view)

    def _check_prefix(self, sends: int, intos: int, frame_length: int) -> None:
        if sends > DESCRIPTORS_MAX or intos > DESCRIPTORS_MAX:
            raise FrameError("descriptors", f"{sends} and {intos} are over the bound of {DESCRIPTORS_MAX}")
        if not HEADER_SIZE <= frame_length <= HEADER_SIZE + self.body_bytes_max:
            raise FrameError("frame length", f"{frame_length} bytes, with a body of at most {self.body_bytes_max}")

    def _parse(self, content: memoryview, start: int, begin: int, end: int, sends: int, intos: int) -> Envelope:
        """An envelope that is here: its descriptors from `start` to `begin`, its frame from there to `end`."""
        if sends | intos > DESCRIPTORS_MAX or end < begin + HEADER_SIZE:
            self._check_prefix(sends, intos, end - begin)
        kind, method, request, body_length, payload_length, deadline_ms, trace = frames.unpack(
            content, begin, self.body_bytes_max, self.payload_bytes_max
        )
        begin_body = begin + HEADER_SIZE
        if begin_body + body_length != end:
            raise FrameError("frame length", f"{end - begin} bytes, of a frame with a body of {body_length}")
        frame = Frame(kind, method, request, content[begin_body:end], payload_length, deadline_ms, trace)
        if kind != REQUEST:
            if sends or intos:
                raise FrameError("descriptors", "a frame that is no request lends memory")
            return Envelope(frame, (), ())
        middle = start + sends * DESCRIPTOR_BYTES
        sent: Sequence[tuple[int, int, int]] = list(_DESCRIPTOR.iter_unpack(content[start:middle])) if sends else ()
        wanted: Sequence[tuple[int, int, int]] = list(_DESCRIPTOR.iter_unpack(content[middle:begin])) if intos else ()
        # Only what is at the highest address can reach beyond all memory: lengths have 32 bits.
        if (sends and max(sent)[0] >= _LAST_ADDRESSES) or (intos and max(wanted)[0] >= _LAST_ADDRESSES):
            raise FrameError("descriptors", "memory is lent that reaches beyond all addresses")
        if payload_length != (sum(map(_LENGTH, sent)) if sends else 0):
            raise FrameError("descriptors", f"those of the payload are not of {payload_length} bytes together")
        return Envelope(frame, sent, wanted)
