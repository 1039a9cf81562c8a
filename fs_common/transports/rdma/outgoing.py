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
from fs_common.transports.rdma.memory import RegisteredMemory, Use
from fs_common.transports.rdma.plan import WORK_BYTES_MAX, Move, Piece, WorkLedger, dense, moves, take
from fs_common.transports.rdma.slabs import Slab
from fs_common.transports.rdma.stream import DESCRIPTORS_MAX, pack_envelope
from fs_common.transports.rdma.verbs import Access
from fs_common.wire import FileRange, Outgoing, Part

logger = logging.getLogger(__name__)


class Loan(Outgoing):
    """A request that lends memory of its caller, until its answer is here or the queue pair is over."""

    __slots__ = ("envelope", "keeps", "number", "sent", "uses")

    def __init__(self, number: int, release: Callable[[], None] | None) -> None:
        super().__init__(0, release)
        self.number = number
        """Of the request."""
        self.envelope = b""
        self.uses: list[Use] = []
        self.keeps: tuple[object, ...] = ()
        """What has the memory."""
        self.sent = False
        """It has begun to leave, or is about to."""

    def finish(self) -> None:
        """Nothing is lent any more."""
        _finish(self, self.uses)
        self.keeps = ()


def lend(
    memory: RegisteredMemory,
    frame: bytes,
    parts: Sequence[Part],
    into: Sequence[memoryview],
    release: Callable[[], None] | None,
) -> Loan:
    """A request with what it lends. Raises `EmberError` if that cannot be; nothing is lent then."""
    if len(parts) > DESCRIPTORS_MAX or len(into) > DESCRIPTORS_MAX:
        raise EmberError(
            Code.TOO_LARGE,
            f"a payload in {len(parts)} pieces, for an answer in {len(into)}: over RDMA at most {DESCRIPTORS_MAX}",
        )
    loan = Loan(frames.kind_and_request(frame)[1], release)
    try:
        views: list[memoryview | bytes] = [_view(part) for part in parts]
        sends: list[Piece] = []
        intos: list[Piece] = []
        if views:
            lent = memory.remote(views, Access.REMOTE_READ)
            loan.uses.append(lent.use)
            sends = list(zip(lent.addresses, lent.lengths, lent.keys, strict=True))
        if into:
            lent = memory.remote(into, Access.REMOTE_WRITE)
            loan.uses.append(lent.use)
            intos = list(zip(lent.addresses, lent.lengths, lent.keys, strict=True))
    except BaseException:
        loan.finish()
        raise
    loan.keeps = (views, into)
    loan.envelope = pack_envelope(frame, sends, intos)
    return loan


class Answer(Outgoing):
    """An answer with payload: its WRITEs are posted before its envelope is sent."""

    __slots__ = ("_remote", "_slab_end", "at", "envelope", "moves", "parts", "payload_length", "slab", "uses")

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
        super().__init__(0, release)
        self.envelope = pack_envelope(frame)
        self.payload_length = payload_length
        self.parts: deque[Part] = deque()
        """Not laid out yet. None of them are sent if they do not fit: the caller finds the same, and refuses them."""
        self._remote: deque[Piece] = deque()
        """Where they go."""
        self.moves: list[Move] = []
        """Laid out; up to `at` they are posted."""
        self.at = 0
        self.slab: Slab | None = None
        """Bytes of files are read into it, from `_slab_end` on."""
        self._slab_end = 0
        self.uses: list[Use] = []
        given = list(map(itemgetter(1), into))
        sizes = given if sum(given) == payload_length else filled(given, lengths, payload_length)
        if sizes is not None:
            self.parts.extend(parts)
            if sizes is not given:
                into = [(address, size, key) for (address, _, key), size in zip(into, sizes, strict=True) if size]
            self._remote.extend(dense(into))

    def finish(self) -> None:
        """No WRITE of it is outstanding any more."""
        self.parts.clear()
        slab, self.slab = self.slab, None
        if slab is not None:
            slab.release()
        _finish(self, self.uses)

    @property
    def single(self) -> bool:
        """One WRITE does for all of it: the usual answer is one buffer, for one buffer."""
        parts = self.parts
        return (
            len(parts) == 1 == len(self._remote)
            and self.payload_length <= WORK_BYTES_MAX
            and type(parts[0]) is not FileRange
        )

    def lay_out_single(self, memory: RegisteredMemory) -> Move:
        """The one WRITE."""
        part = self.parts.pop()
        lent = memory.local((part,), Access.NOTHING)  # type: ignore[arg-type]
        self.uses.append(lent.use)
        remote_address, length, rkey = self._remote.pop()
        return Move(lent.addresses[0], length, lent.keys[0], remote_address, rkey)

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
        first = parts[0]
        if not isinstance(first, FileRange):
            views: list[memoryview | bytes] = []
            while parts and not isinstance(parts[0], FileRange):
                views.append(parts.popleft())  # type: ignore[arg-type]
            lent = memory.local(views, Access.NOTHING)
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
        lent = memory.local([view], Access.NOTHING)
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


def _finish(outgoing: Outgoing, uses: list[Use]) -> None:
    outgoing.done = True
    for use in uses:
        use.release()
    uses.clear()
    release, outgoing.release = outgoing.release, None
    if release is not None:
        release()
