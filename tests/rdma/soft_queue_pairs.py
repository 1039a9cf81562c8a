"""A queue pair of the soft fabric: what is posted, piece by piece, and how it ends."""

import ctypes
import errno
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fs_common.transports.rdma.verbs import (
    Access,
    AsyncEvent,
    Capacity,
    Completion,
    Kind,
    Path,
    Receive,
    RemoteEnd,
    Status,
    VerbsError,
    Work,
)

if TYPE_CHECKING:
    from tests.rdma.soft_verbs import SoftCompletionQueue, SoftContext

TRY_TURNS = 8
"""Turns that one try takes while nobody answers, or no receive is posted."""


class Entry:
    __slots__ = ("completion", "pair", "sequence", "solicited")

    def __init__(self, completion: Completion, pair: "SoftQueuePair", sequence: int | None, *, solicited: bool) -> None:
        self.completion = completion
        self.pair = pair
        self.sequence = sequence
        """Of the send queue; None: of a receive."""
        self.solicited = solicited


class _Posted:
    """A work request on its way."""

    __slots__ = ("data", "ended", "landed_bytes", "moved_bytes", "sequence", "snapshots", "work")

    def __init__(self, work: Work, sequence: int) -> None:
        self.work = work
        self.sequence = sequence
        self.data = ctypes.string_at(work.address, work.length) if work.inline else None
        self.moved_bytes = 0
        self.snapshots: deque[bytes] = deque()
        """Of a READ: what the other side has sent."""
        self.landed_bytes = 0
        self.ended: Status | None = None


class SoftQueuePair:
    """States: fresh, connected, failed, closed."""

    def __init__(self, context: "SoftContext", completions: "SoftCompletionQueue", capacity: Capacity) -> None:
        self.context = context
        self.completions = completions
        self.capacity = capacity
        self.number = context.fabric.next_number()
        self.inline_bytes = max(capacity.inline_bytes, 16)
        self.path: Path | None = None
        self.remote: RemoteEnd | None = None
        self.failed = False
        self.closed = False
        self.last_due = 0
        self._posted_count = 0
        self._freed_count = 0
        self._issue: deque[_Posted] = deque()
        """Not yet wholly sent (or asked for)."""
        self._reads: deque[_Posted] = deque()
        """Asked for in part or wholly, and not wholly landed."""
        self._open_works: deque[_Posted] = deque()
        """All that are not completed, in order."""
        self._receives: deque[Receive] = deque()
        self._tries = 0
        self._broken = False
        """One has gone wrong; those before it are still to end."""
        context.pairs.append(self)
        context.fabric.queue_pairs[self.number] = self

    def connect(self, path: Path, remote: RemoteEnd) -> None:
        self._usable()
        self.context.fabric.check("connect")
        ours = self.context.fabric.addresses[self.context.name]
        if self.remote is not None or self.failed:
            raise VerbsError("a queue pair is connected once", errno.EINVAL)
        if path.port != 1 or path.gid.address != ours or path.mtu_bytes > self.context.fabric.mtu_bytes:
            raise VerbsError("there is no such path", errno.EINVAL)
        if max(path.reads_out, path.reads_served) > self.context.fabric.reads_max:
            raise VerbsError("more READs than the device can", errno.EINVAL)
        self.path, self.remote = path, remote

    def post(self, works: Sequence[Work]) -> None:
        self._usable()
        fabric = self.context.fabric
        fabric.check("post")
        if self.remote is None and not self.failed:
            raise VerbsError("the queue pair is not connected", errno.EINVAL)
        fabric.posts += 1
        for work in works:
            if self._posted_count - self._freed_count >= self.capacity.sends:
                raise VerbsError(f"more than {self.capacity.sends} work requests are posted", errno.ENOMEM)
            if work.length < 1 or work.kind is Kind.RECEIVE or (work.inline and work.length > self.inline_bytes):
                raise VerbsError(f"no such work request: {work}", errno.EINVAL)
            self._posted_count += 1
            fabric.posted[work.kind] += 1
            fabric.signalled += work.signalled
            posted = _Posted(work, self._posted_count)
            self._open_works.append(posted)
            if self.failed:
                self._flush()
            else:
                self._issue.append(posted)
        if not self.failed:
            fabric.wake(self)

    def receive(self, receives: Sequence[Receive]) -> None:
        self._usable()
        self.context.fabric.check("receive")
        if self.remote is None and not self.failed:
            raise VerbsError("the queue pair is not connected", errno.EINVAL)
        if self.failed and self.context.fabric.random.random() < 0.5:
            return
        for receive in receives:
            if len(self._receives) >= self.capacity.receives:
                raise VerbsError(f"more than {self.capacity.receives} receives are posted", errno.ENOMEM)
            self.context.fabric.posted[Kind.RECEIVE] += 1
            self._receives.append(receive)
        if self.failed:
            self._flush()
            return
        peer = self._peer()
        if peer is not None:
            self.context.fabric.wake(peer)

    def fail(self) -> None:
        if self.closed or self.failed:
            return
        self.failed = True
        self._flush()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = self.failed = True
        self.context.pairs.remove(self)
        self.context.fabric.forget(self)
        for queue in (self._issue, self._reads, self._open_works, self._receives):
            queue.clear()

    def freed(self, sequence: int) -> None:
        """The completion of this one was polled: those before it are known to be done."""
        self._freed_count = max(self._freed_count, sequence)

    def step(self) -> bool:
        """Do a piece of what is to be done. False: there is nothing more for now."""
        if self.failed or self.closed:
            return False
        assert self.path is not None
        fabric = self.context.fabric
        landing = bool(self._reads) and bool(self._reads[0].snapshots)
        if landing and (fabric.seed is None or not self._may_issue() or fabric.random.random() < 0.5):
            self._land(self._reads[0])
            return self._more()
        if not self._may_issue():
            return self._more()
        posted = self._issue[0]
        peer = self._peer()
        if peer is None:
            return self._tried(posted, self.path.persistence.retries, Status.RETRY_EXC_ERR)
        if posted.work.kind is Kind.SEND:
            if not peer._receives:
                most = self.path.persistence.receiver_retries
                return bool(self._reads) if most == 7 else self._tried(posted, most, Status.RNR_RETRY_EXC_ERR)
            self._send(posted, peer)
        else:
            self._one_sided(posted, peer)
        self._tries = 0
        return self._more()

    def _more(self) -> bool:
        return not self.failed and bool(self._issue or self._reads)

    def _may_issue(self) -> bool:
        assert self.path is not None
        if not self._issue or self._broken:
            return False
        posted = self._issue[0]
        begun = bool(self._reads) and self._reads[-1] is posted
        return posted.work.kind is not Kind.READ or begun or len(self._reads) < self.path.reads_out

    def _tried(self, posted: _Posted, retries: int, status: Status) -> bool:
        self._tries += 1
        if self._tries > (retries + 1) * TRY_TURNS:
            self._end(posted, status)
        return self._more()

    def _peer(self) -> "SoftQueuePair | None":
        """The other end; None: it does not answer."""
        fabric = self.context.fabric
        assert self.remote is not None
        peer = fabric.queue_pairs.get(self.remote.number)
        if peer is None or peer.failed or peer.remote is None or peer.remote.number != self.number:
            return None
        if {self.context.name, peer.context.name} & fabric.down:
            return None
        return peer if fabric.addresses[peer.context.name] == self.remote.gid else None

    def _send(self, posted: _Posted, peer: "SoftQueuePair") -> None:
        work = posted.work
        if not self._local(posted, Access.NOTHING):
            return
        slot = peer._receives.popleft()
        fits = min(work.length, slot.length)
        if not peer.context.allows(peer.context.by_lkey, slot.lkey, slot.address, fits, Access.LOCAL_WRITE):
            peer._complete(slot.id, Status.LOC_PROT_ERR, None)
        else:
            self._move(slot.address, posted, 0, fits)
            if work.length <= slot.length:
                self.context.fabric.moved_bytes[Kind.SEND] += work.length
                peer._complete(slot.id, Status.SUCCESS, None, Kind.RECEIVE, work.length, solicited=work.solicited)
                self._issue.popleft()
                self._end(posted, Status.SUCCESS)
                return
            # What a software device says; others have LOC_LEN_ERR here, and REM_INV_REQ_ERR at the sender.
            peer._complete(slot.id, Status.LOC_QP_OP_ERR, None)
        peer._fail_by_other()
        self._end(posted, Status.REM_OP_ERR)

    def _one_sided(self, posted: _Posted, peer: "SoftQueuePair") -> None:
        work = posted.work
        reading = work.kind is Kind.READ
        if not self._local(posted, Access.LOCAL_WRITE if reading else Access.NOTHING):
            return
        needed = Access.REMOTE_READ if reading else Access.REMOTE_WRITE
        if peer.path is not None and needed not in peer.path.other_may:
            self._end(posted, Status.REM_INV_REQ_ERR)
            peer._fail_by_other()
            return
        if not peer.context.allows(peer.context.by_rkey, work.rkey, work.remote_address, work.length, needed):
            self._end(posted, Status.REM_ACCESS_ERR)
            peer._fail_by_other()
            return
        offset = posted.moved_bytes
        length = self.context.fabric.piece(work.length - offset)
        posted.moved_bytes += length
        self.context.fabric.moved_bytes[work.kind] += length
        whole = posted.moved_bytes == work.length
        if reading:
            if not offset:
                self._reads.append(posted)
            posted.snapshots.append(ctypes.string_at(work.remote_address + offset, length))
            if whole:
                self._issue.popleft()
            return
        self._move(work.remote_address + offset, posted, offset, length)
        if whole:
            self._issue.popleft()
            self._end(posted, Status.SUCCESS)

    def _land(self, posted: _Posted) -> None:
        if not self._local(posted, Access.LOCAL_WRITE):
            return
        piece = posted.snapshots.popleft()
        ctypes.memmove(posted.work.address + posted.landed_bytes, piece, len(piece))
        posted.landed_bytes += len(piece)
        if posted.landed_bytes == posted.work.length:
            self._reads.remove(posted)
            self._end(posted, Status.SUCCESS)

    def _local(self, posted: _Posted, access: Access) -> bool:
        work = posted.work
        if posted.data is None and not self.context.allows(
            self.context.by_lkey, work.lkey, work.address, work.length, access
        ):
            self._end(posted, Status.LOC_PROT_ERR)
            return False
        return True

    def _move(self, target: int, posted: _Posted, offset: int, length: int) -> None:
        if posted.data is None:
            ctypes.memmove(target, posted.work.address + offset, length)
        else:
            ctypes.memmove(target, posted.data[offset : offset + length], length)

    def _end(self, posted: _Posted, status: Status) -> None:
        """Completions come in order: one that has ended waits for those before it."""
        posted.ended = status
        self._broken = self._broken or status is not Status.SUCCESS
        while self._open_works and (ended := self._open_works[0].ended) is not None:
            first = self._open_works.popleft()
            if ended is not Status.SUCCESS:
                self._complete(first.work.id, ended, first.sequence)
                self.failed = True
                self.context.tell(AsyncEvent.QUEUE_PAIR_FAILED)
                self._flush()
                return
            if first.work.signalled:
                self._complete(first.work.id, Status.SUCCESS, first.sequence, first.work.kind)

    def _fail_by_other(self) -> None:
        if not self.failed:
            self.context.tell(AsyncEvent.QUEUE_PAIR_FAILED)
        self.fail()

    def _flush(self) -> None:
        self._issue.clear()
        self._reads.clear()
        self.context.fabric.sleep(self)
        while self._open_works:
            posted = self._open_works.popleft()
            self._complete(posted.work.id, Status.WR_FLUSH_ERR, posted.sequence)
        while self._receives:
            self._complete(self._receives.popleft().id, Status.WR_FLUSH_ERR, None)

    def _complete(
        self,
        id: int,
        status: Status,
        sequence: int | None,
        kind: Kind | None = None,
        length: int = 0,
        *,
        solicited: bool = False,
    ) -> None:
        ok = status is Status.SUCCESS
        completion = Completion(id, ok, status, kind, length, self.number)
        # Of a failure a software device tells by the receives that are flushed alone.
        solicited = solicited or (not ok and sequence is None)
        self.context.fabric.deliver(self.completions, Entry(completion, self, sequence, solicited=solicited))

    def _usable(self) -> None:
        if self.closed:
            raise VerbsError("the queue pair is closed", errno.EBADF)
