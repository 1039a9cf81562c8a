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
from collections.abc import Iterator, Sequence
from itertools import starmap
from operator import itemgetter
from typing import NamedTuple

from fs_common.frames import HEADER_SIZE, REQUEST, FrameError, unpack
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


Piece = tuple[int, int, int]
"""Memory that is lent to the other side: address, length in bytes (< 2**32), rkey."""


class Envelope(NamedTuple):
    """A frame that has arrived, and where its payload lies. `frame.body` is valid until the reader is used again."""

    frame: Frame
    sends: Sequence[Piece]
    """What the frame's payload is read from. Together as long as it, in a request."""
    intos: Sequence[Piece]
    """Where the answer's payload is written to."""


def pack_envelope(frame: bytes, sends: Sequence[Piece] = (), intos: Sequence[Piece] = ()) -> bytes:
    """`frame`: header and body. The caller keeps the descriptors within `DESCRIPTORS_MAX`."""
    prefix = _PREFIX.pack(len(sends), len(intos), len(frame))
    if not sends:
        if not intos:
            return prefix + frame
        if len(intos) == 1:
            return prefix + _DESCRIPTOR.pack(*intos[0]) + frame
    return b"".join((prefix, *starmap(_DESCRIPTOR.pack, sends), *starmap(_DESCRIPTOR.pack, intos), frame))


class MessageWriter:
    """Cuts the stream of envelopes into messages, as credits allow."""

    def __init__(self) -> None:
        self.pending: deque[bytes | memoryview] = deque()
        """The stream, as far as it is not in messages,"""
        self.pending_bytes = 0
        """and how long that is. Who adds an envelope adds to both."""
        self._sequence = 0
        self.credits = CREDITS
        """Messages with content that may be sent."""

    def append(self, envelope: bytes) -> None:
        self.pending.append(envelope)
        self.pending_bytes += len(envelope)

    def write(self, slot: memoryview, owed: int, last: bool = False) -> int:
        """The next message, into `slot`: as much of the stream as fits, for a credit; where there is none, or nothing
        to send, it has no content. `owed` slots are given back by it. Returns its bytes."""
        length = self.pending_bytes
        flags = LAST if last else 0
        if length and self.credits:
            self.credits -= 1
            flags |= CONTENT
            pending = self.pending
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
        pending = self.pending
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
        self.pending.clear()
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
        content = slot[MESSAGE_HEADER_BYTES:]
        if sequence != self._sequence or flags != CONTENT or zero or not content or self._last:
            self._check(sequence, flags, zero, content)
        if content:
            self._unread += 1
            if self._unread > CREDITS:
                raise FrameError("credits", f"more than {CREDITS} messages came that were not read")
        self._sequence = sequence + 1 & _SEQUENCE_MAX
        return credits, flags, content

    def _check(self, sequence: int, flags: int, zero: int, content: memoryview) -> None:
        """One that is not of the usual kind."""
        if sequence != self._sequence:
            raise FrameError("sequence", f"message {sequence} came where {self._sequence} was due")
        if flags > CONTENT | LAST or zero or flags & CONTENT != bool(content):
            raise FrameError("flags", f"{flags}, {zero} of a message with {len(content)} bytes of content")
        if self._last:
            raise FrameError("flags", "a message came after the last one")
        self._last = flags >= LAST

    def given_back(self, credits: int) -> None:
        """The other side is told that so many slots are empty again."""
        self._unread -= credits


class EnvelopeReader:
    """Envelopes out of contents of messages, each `read` to its end before the next. After a `FrameError` the reader is
    of no use."""

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self.payload_bytes_max = payload_bytes_max
        self._cut = bytearray()
        """The beginning of an envelope that was cut, up to `_filled`; as long as the envelope once its length is known.
        """
        self._filled = 0

    @property
    def within_envelope(self) -> bool:
        """An envelope has begun to arrive, and the rest of it is still to come."""
        return self._filled > 0

    def release(self) -> None:
        """The connection is over."""
        self._cut = bytearray()
        self._filled = 0

    def read(self, content: memoryview) -> Iterator[Envelope]:
        """Those that end in this content, each when it is asked for. Raises `FrameError`."""
        at, length = 0, len(content)
        last = length - PREFIX_BYTES
        if self._filled:
            at = self._complete(content)
            if self._filled < len(self._cut) or self._filled < PREFIX_BYTES:
                return
            # The envelope keeps these bytes; the next one that is cut has others.
            whole, self._cut, self._filled = self._cut, bytearray(), 0
            yield from self.read(memoryview(whole))
        while at <= last:
            sends, intos, frame_length = _PREFIX.unpack_from(content, at)
            begin = at + PREFIX_BYTES + (sends + intos) * DESCRIPTOR_BYTES
            end = begin + frame_length
            if sends | intos > DESCRIPTORS_MAX or end > length or frame_length < HEADER_SIZE:
                self._check_prefix(sends, intos, frame_length)
                if end > length:
                    break
            kind, method, request, body_length, payload_length, deadline_ms, trace = unpack(
                content, begin, self.body_bytes_max, self.payload_bytes_max
            )
            if begin + HEADER_SIZE + body_length != end:
                raise FrameError("frame length", f"{frame_length} bytes, of a frame with a body of {body_length}")
            body = content[begin + HEADER_SIZE : end]
            frame = Frame(kind, method, request, body, payload_length, deadline_ms, trace)
            if sends or intos:
                yield Envelope(frame, *_descriptors(frame, content[at + PREFIX_BYTES : begin], sends))
            elif kind == REQUEST and payload_length:
                raise FrameError("descriptors", f"none, of a request with a payload of {payload_length} bytes")
            else:
                yield Envelope(frame, (), ())
            at = end
        if at < length:
            rest = length - at
            self._cut = bytearray(PREFIX_BYTES if rest < PREFIX_BYTES else end - at)
            self._cut[:rest] = content[at:]
            self._filled = rest

    def _complete(self, content: memoryview) -> int:
        """Go on with the envelope that was cut. Returns how much of the content it takes."""
        at = 0
        if self._filled < PREFIX_BYTES:
            at = self._fill(content, PREFIX_BYTES)
            if self._filled < PREFIX_BYTES:
                return at
            sends, intos, frame_length = _PREFIX.unpack_from(self._cut)
            self._check_prefix(sends, intos, frame_length)
            self._cut.extend(bytes((sends + intos) * DESCRIPTOR_BYTES + frame_length))
        return at + self._fill(content[at:], len(self._cut))

    def _fill(self, content: memoryview, end: int) -> int:
        """Take what there is, until so many bytes of the cut envelope are here. Returns how much that is."""
        taken = content[: end - self._filled]
        self._cut[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        return len(taken)

    def _check_prefix(self, sends: int, intos: int, frame_length: int) -> None:
        if sends > DESCRIPTORS_MAX or intos > DESCRIPTORS_MAX:
            raise FrameError("descriptors", f"{sends} and {intos} are over the bound of {DESCRIPTORS_MAX}")
        if not HEADER_SIZE <= frame_length <= HEADER_SIZE + self.body_bytes_max:
            raise FrameError("frame length", f"{frame_length} bytes, with a body of at most {self.body_bytes_max}")


def _descriptors(frame: Frame, packed: memoryview, sends: int) -> tuple[list[Piece], list[Piece]]:
    if frame.kind != REQUEST:
        raise FrameError("descriptors", "a frame that is no request lends memory")
    pieces: list[Piece] = list(_DESCRIPTOR.iter_unpack(packed))
    # Only what is at the highest address can reach beyond all memory: lengths have 32 bits.
    if max(pieces)[0] >= _LAST_ADDRESSES:
        raise FrameError("descriptors", "memory is lent that reaches beyond all addresses")
    sent = pieces[:sends]
    if frame.payload_length != sum(map(_LENGTH, sent)):
        raise FrameError("descriptors", f"those of the payload are not of {frame.payload_length} bytes together")
    return sent, pieces[sends:]
