"""Frames with payload on their way over RDMA: requests that lend memory, and answers that are written into lent memory.

Called by `sending.Sender` and `link.RdmaLink`.
"""

import logging
import mmap
import os
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.landing import filled
from fs_common.transports.rdma.memory import LOCAL_READ, REMOTE_READ, REMOTE_WRITE, RegisteredMemory, Use
from fs_common.transports.rdma.plan import WORK_BYTES_MAX, Move, Piece, WorkLedger, dense, moves, take
from fs_common.transports.rdma.slabs import Slab
from fs_common.transports.rdma.stream import DESCRIPTORS_MAX, pack_envelope
from fs_common.wire import FileRange, Outgoing, Part

logger = logging.getLogger(__name__)


class Loan(Outgoing):
    """A request that lends memory of its caller, until its answer is here or the queue pair is over."""

    __slots__ = ("envelope", "keeps", "number", "sent", "uses")

    envelope: bytes
    keeps: tuple[object, ...]
    """What has the memory, while it is lent."""

    def __init__(self, number: int, release: Callable[[], None] | None) -> None:
        self.release = release
        self.done = False
        self.number = number
        """Of the request."""
        self.uses: list[Use] = []
        self.sent = False
        """It has begun to leave, or is about to."""

    def finish(self) -> None:
        """Nothing is lent any more."""
        self.done = True
        uses = self.uses
        while uses:
            uses.pop().release()
        self.keeps = ()
        release, self.release = self.release, None
        if release is not None:
            release()


def lend(
    memory: RegisteredMemory,
    frame: bytes,
    parts: Sequence[Part],
    into: Sequence[memoryview],
    release: Callable[[], None] | None,
) -> Loan:
    """A request with what it lends. Raises `EmberError` if that cannot be; nothing is lent then."""
    loan = Loan(frames.kind_and_request(frame)[1], release)
    views: Sequence[memoryview | bytes] = ()
    sends: Sequence[Piece] = ()
    intos: Sequence[Piece] = ()
    try:
        if parts:
            views = [_view(part) for part in parts]
            sends = _lent(memory, views, REMOTE_READ, loan)
        if len(into) == 1:
            # The usual call.
            (view,) = into
            address, key, use = memory.one(view, REMOTE_WRITE, True)
            loan.uses.append(use)
            intos = ((address, len(view), key),)
        elif into:
            intos = _lent(memory, into, REMOTE_WRITE, loan)
    except BaseException:
        loan.finish()
        raise
    loan.keeps = (views, into)
    loan.envelope = pack_envelope(frame, sends, intos)
    return loan


def _lent(memory: RegisteredMemory, views: Sequence[memoryview | bytes], rights: int, loan: Loan) -> Sequence[Piece]:
    if len(views) > DESCRIPTORS_MAX:
        raise EmberError(
            Code.TOO_LARGE, f"memory in {len(views)} pieces is lent: over RDMA in at most {DESCRIPTORS_MAX}"
        )
    lent = memory.remote(views, rights)
    loan.uses.append(lent.use)
    return list(zip(lent.addresses, lent.lengths, lent.keys, strict=True))


class Answer(Outgoing):
    """An answer with payload: its WRITEs are posted before its envelope is sent."""

    __slots__ = ("_remote", "_slab_end", "at", "envelope", "moves", "parts", "payload_length", "single", "slab", "uses")

    def __init__(
        self,
        frame: bytes,
        parts: Sequence[Part],
        payload_length: int,
        release: Callable[[], None] | None,
        into: Sequence[Piece],
        lengths: Sequence[int] | None,
    ) -> None:
        """`into`: what was lent with the request."""
        self.release = release
        self.done = False
        self.envelope = pack_envelope(frame)
        self.payload_length = payload_length
        self.slab: Slab | None = None
        """Bytes of files are read into it, from `_slab_end` on."""
        self.uses: list[Use] = []
        self.single: tuple[memoryview | bytes, Piece] | None = None
        """One WRITE does for all of it, and is not posted yet; the rest is empty then. The usual answer is one buffer,
        for one buffer."""
        self.parts: Sequence[Part] = ()
        """Not laid out yet. None of them are sent if they do not fit: the caller finds the same, and refuses them."""
        self.moves: Sequence[Move] = ()
        """Laid out; up to `at` they are posted."""
        self.at = 0
        if len(parts) == 1 and len(into) == 1 and payload_length == into[0][1] <= WORK_BYTES_MAX:
            part = parts[0]
            if type(part) is not FileRange:
                self.single = (part, into[0])  # type: ignore[assignment]
                return
        self.parts = deque()
        self._remote: deque[Piece] = deque()
        """Where they go."""
        self._slab_end = 0
        given = list(map(itemgetter(1), into))
        sizes = given if sum(given) == payload_length else filled(given, lengths, payload_length)
        if sizes is not None:
            self.parts.extend(parts)
            if sizes is not given:
                into = [(address, size, key) for (address, _, key), size in zip(into, sizes, strict=True) if size]
            self._remote.extend(dense(into))

    def finish(self) -> None:
        """No WRITE of it is outstanding any more."""
        self.done = True
        self.parts = ()
        self.single = None
        if self.slab is not None:
            slab, self.slab = self.slab, None
            slab.release()
        uses = self.uses
        while uses:
            uses.pop().release()
        release, self.release = self.release, None
        if release is not None:
            release()

    @property
    def wants_slab(self) -> int:
        """So many bytes of a file come next, and there is no slab for them; 0: go on."""
        if not self.parts or self.slab is not None:
            return 0
        first = self.parts[0]
        return first.length if isinstance(first, FileRange) else 0

    def lay_out(self, memory: RegisteredMemory) -> int:
        """Find the WRITEs of the next parts; all those found before are posted. Returns the bytes read from files.

        Raises `EmberError`: a file cannot be read as promised, memory cannot be registered.
        """
        parts = self.parts
        assert type(parts) is deque
        first = parts[0]
        if not isinstance(first, FileRange):
            views: list[memoryview | bytes] = []
            while parts and not isinstance(parts[0], FileRange):
                views.append(parts.popleft())
            lent = memory.local(views, LOCAL_READ)
            self.uses.append(lent.use)
            local = list(zip(lent.addresses, lent.lengths, lent.keys, strict=True))
            if parts:
                self.moves = moves(local, take(self._remote, sum(lent.lengths)))
            else:
                self.moves = moves(local, self._remote)
            self.at = 0
            return 0
        slab = self.slab
        assert slab is not None, "there is a slab for bytes of files"
        parts.popleft()
        begin = self._slab_end
        size = min(first.length, len(slab.view) - begin)
        if size < first.length:
            parts.appendleft(FileRange(first.file, first.offset + size, first.length - size))
        view = slab.view[begin : begin + size]
        fill(view, first.file, first.offset)
        lent = memory.local([view], LOCAL_READ)
        self.uses.append(lent.use)
        self.moves = moves([(lent.addresses[0], size, lent.keys[0])], take(self._remote, size))
        self.at = 0
        self._slab_end += size
        return size

    def done_with_slab(self, ledger: WorkLedger) -> None:
        """All WRITEs of what is laid out are posted: a slab that is full, or has served, comes back with them."""
        slab = self.slab
        if slab is not None and (not self.parts or self._slab_end == len(slab.view)):
            self.slab = None
            self._slab_end = 0
            ledger.when_complete(slab.release)


def fill(view: memoryview, file: int, offset: int) -> None:
    """Fill `view` with bytes of a file that has them. Raises `EmberError`."""
    while view:
        try:
            count = os.preadv(file, [view], offset)
        except OSError as error:
            raise EmberError(Code.PEER_GONE, f"a file cannot be read: {error.strerror}") from None
        if not count:
            message = f"file ended before byte {offset} that was promised"
            logger.error("%s", message)
            raise EmberError(Code.PEER_GONE, message)
        view = view[count:]
        offset += count


def _view(part: Part) -> memoryview | bytes:
    """Memory with the bytes of a part; of a file range, memory of their own."""
    if not isinstance(part, FileRange):
        return memoryview(part) if isinstance(part, bytearray) else part
    view = memoryview(mmap.mmap(-1, part.length))
    fill(view, part.file, part.offset)
    return view
