"""What a connection over RDMA has to send: frames in their order, as works for its queue pair.

Frames wait in a queue. `fill` numbers the works that may be posted now: WRITEs of an answer as long as there is room in
the send queue (and slabs, for bytes of files), then the messages with its envelope as long as there are credits and
slots. The owner posts them before its turn ends.

Invariants:

* Order: a frame's envelope is sent behind its WRITEs, and behind the envelopes before it.
* While anything waits for a completion, a signalled work is outstanding that brings it.
* A slot, an answer's memory and a slab are free when a work behind the last one that uses them is complete.

Called by `link.RdmaLink`. Does no I/O, but for reading files into slabs.

Concurrency: docs/concurrency/rdma.md.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, repeat

from fs_common.limits import MIB
from fs_common.transports.rdma.endpoint import SEND_DEPTH, SEND_SLOTS, Endpoint
from fs_common.transports.rdma.memory import LOCAL_READ
from fs_common.transports.rdma.outgoing import Answer, Loan
from fs_common.transports.rdma.plan import Move, Piece, WorkLedger
from fs_common.transports.rdma.slabs import Slab, Waiting
from fs_common.transports.rdma.stream import (
    CONTENT_BYTES_MAX,
    CREDITS_OWED_MAX,
    MESSAGE_HEADER_BYTES,
    RECEIVE_SLOTS,
    MessageReader,
    MessageWriter,
    pack_envelope,
)
from fs_common.transports.rdma.verbs import Kind, Work

SEND = Kind.SEND
WRITE = Kind.WRITE

_work: Callable[[tuple[object, ...]], Work] = partial(tuple.__new__, Work)

SENDS_SIGNALLED = 8
"""Of so many messages one is signalled, so that slots come back."""
FILE_BYTES_MAX = 1 * MIB
"""Bytes of files that one connection reads in one turn of the loop."""


class Sender:
    """Of one link."""

    def __init__(self, endpoint: Endpoint, messages: MessageReader, later: Callable[[], None]) -> None:
        """`later`: have `fill` called in the next turn of the loop."""
        self._slots = endpoint.slots
        self._memory = endpoint.memory
        self._slabs = endpoint.slabs
        self._traffic = endpoint.traffic
        self._inline_bytes = endpoint.queue_pair.inline_bytes
        self._messages = messages
        self._later = later
        self.ledger = WorkLedger(SEND_DEPTH)
        self.works: list[Work] = []
        """Numbered, and not posted yet: the owner does it before the turn ends."""
        self.owed = 0
        """Slots that are empty again, which the other side was not told."""
        self.unsent_bytes = 0
        """Of frames: queued, or with payload that is not written yet."""
        self.blocked = False
        """Something waits: for credits, or for works that are under way,"""
        self.starved = False
        """for credits."""
        self.out = MessageWriter()
        """Gets the credits that come."""
        self.queue: deque[bytes | Loan | Answer] = deque()
        """Envelopes that are not in the stream yet. Who adds one adds to `unsent_bytes` as well."""
        self._ends: list[Answer] = []
        """Answers whose envelopes are in the stream, which does not end in a message yet."""
        self._free = list(range(RECEIVE_SLOTS, RECEIVE_SLOTS + SEND_SLOTS))
        """Slots."""
        self._unsignalled = 0
        """Messages since the last signalled one."""
        self._last_sent = False
        self._waiting: Waiting | None = None
        """For a slab."""
        self._slab: Slab | None = None
        """It has come."""
        self._over = False

    # Frames

    def add(self, frame: bytes) -> None:
        envelope = pack_envelope(frame)
        self.queue.append(envelope)
        self.unsent_bytes += len(envelope)

    def add_answer(self, answer: Answer) -> None:
        self.queue.append(answer)
        self.unsent_bytes += len(answer.envelope) + answer.payload_length

    def remove(self, loan: Loan) -> None:
        """One that is not sent."""
        self.queue.remove(loan)
        self.unsent_bytes -= len(loan.envelope)

    def end(self) -> None:
        """The queue pair is gone: everything is given back."""
        self._over = True
        # First of all: what comes back below is for others.
        if self._waiting is not None:
            self._waiting.cancel()
        self.works.clear()
        self.ledger.end()
        slab, self._slab = self._slab, None
        if slab is not None:
            slab.release()
        queue, self.queue = self.queue, deque()
        for answer in self._ends:
            answer.finish()
        self._ends.clear()
        for entry in queue:
            if type(entry) is Answer:
                entry.finish()
        self.out.drop()
        self.unsent_bytes = 0

    # Works

    def fill(self, all_sent: Callable[[], None] | None) -> bool:
        """Number what may be posted now. `all_sent`: nothing follows what is queued; called when all is delivered.
        Returns whether something waits.

        Raises `EmberError` as `Answer.lay_out` does.
        """
        out, queue, ledger, free = self.out, self.queue, self.ledger, self._free
        left = FILE_BYTES_MAX
        blocked = False
        # There is room for a WRITE and for the message behind it, or nothing is begun.
        full = ledger.full - 1
        while queue or out.pending_bytes:
            if not out.credits or not free or ledger.posted >= full:
                blocked = True
                break
            while queue and out.pending_bytes < CONTENT_BYTES_MAX and ledger.posted < full:
                head = queue[0]
                if type(head) is Answer:
                    if head.single is not None:
                        self._write_single(head, *head.single)
                    else:
                        left = self._write_payload(head, left)
                        if head.parts or head.at < len(head.moves):
                            blocked = True
                            break
                    envelope = head.envelope
                    self._traffic.written_bytes += head.payload_length
                    self._ends.append(head)
                elif type(head) is Loan:
                    envelope = head.envelope
                    head.sent = True
                    self.unsent_bytes -= len(envelope)
                else:
                    assert type(head) is bytes
                    envelope = head
                    self.unsent_bytes -= len(envelope)
                queue.popleft()
                out.pending.append(envelope)
                out.pending_bytes += len(envelope)
            if out.pending_bytes and ledger.posted <= full:
                self._message()
            elif blocked:
                break
        if self.owed >= CREDITS_OWED_MAX and free and ledger.room:
            self._message()
        if all_sent is not None and not (queue or out.pending_bytes or self._last_sent):
            if free and ledger.room:
                self._last_sent = True
                self._message(last=True)
                ledger.when_complete(all_sent)
            else:
                blocked = True
        self.blocked = blocked
        if blocked:
            self.signal_last()
            self.starved = not out.credits
        return blocked

    def number(self, kind: Kind, due: Sequence[Move], at: int) -> int:
        """Number READs or WRITEs from `due[at]` on, as many as there is room for. Returns up to where."""
        ledger = self.ledger
        end = min(len(due), at + ledger.room)
        identity = ledger.posted + 1 << 1
        signalled = ledger.post_many(end - at)
        if end - at == 1:
            self.works.append(Work(kind, identity, *due[at], signalled[0]))
        else:
            columns = zip(*due[at:end], strict=True)
            same = repeat(False)
            # No bytecode runs for each.
            self.works += map(_work, zip(repeat(kind), count(identity, 2), *columns, signalled, same, same))
        return end

    def signal_last(self) -> None:
        """Somebody waits for what was numbered last."""
        if self.works and self.ledger.unsignalled:
            self.works[-1] = self.works[-1]._replace(signalled=True)
            self.ledger.signal_last()

    def _message(self, last: bool = False) -> None:
        """Number the next message. There are a slot and room for it."""
        ledger, slots, out = self.ledger, self._slots, self.out
        index = self._free.pop()
        self._traffic.messages_sent += 1
        owed = self.owed
        size = out.write(slots.views[index], owed, last)
        if owed:
            self._messages.given_back(owed)
            self.owed = 0
        if self._ends and not out.pending_bytes:
            signalled = ledger.post(True)
            ends, self._ends = self._ends, []
            ledger.when_complete(partial(self._on_delivered, index, ends))
        else:
            self._unsignalled += 1
            signalled = ledger.post(last or self._unsignalled >= SENDS_SIGNALLED)
            ledger.when_complete(partial(self._free.append, index))
        if signalled:
            self._unsignalled = 0
        # Who needs nothing but credits asks for all completions.
        solicited = size > MESSAGE_HEADER_BYTES or last
        inline = size <= self._inline_bytes
        address = slots.addresses[index]
        self.works.append(Work(SEND, ledger.posted << 1, address, size, slots.lkey, 0, 0, signalled, inline, solicited))

    def _write_single(self, answer: Answer, view: memoryview | bytes, piece: Piece) -> None:
        """Number the WRITE of an answer. There is room for it."""
        remote_address, length, rkey = piece
        address, lkey, use = self._memory.one(view, LOCAL_READ, False)
        answer.single = None
        answer.uses.append(use)
        ledger = self.ledger
        signalled = ledger.post()
        self.works.append(Work(WRITE, ledger.posted << 1, address, length, lkey, remote_address, rkey, signalled))

    def _write_payload(self, answer: Answer, left: int) -> int:
        """Number WRITEs of an answer: all, or as many as there are room, slabs, and bytes left of what may be read from
        files in this turn. Returns those."""
        while True:
            if answer.at < len(answer.moves):
                answer.at = self.number(Kind.WRITE, answer.moves, answer.at)
                if answer.at < len(answer.moves):
                    return left
            answer.done_with_slab(self.ledger)
            if not answer.parts:
                return left
            if wanted := answer.wants_slab:
                answer.slab, self._slab = self._slab or self._take_slab(wanted), None
                if answer.slab is None:
                    return left
            if left <= 0:
                self._later()
                return left
            left -= answer.lay_out(self._memory)

    def _take_slab(self, length: int) -> Slab | None:
        if self._waiting is not None:
            return None
        slab = self._slabs.take(length)
        if slab is None:
            self._waiting = self._slabs.wait(length, self._on_slab)
        return slab

    def _on_slab(self, slab: Slab) -> None:
        self._waiting = None
        self._slab = slab
        self._later()

    def _on_delivered(self, index: int, answers: list[Answer]) -> None:
        """The other side has them, and the message in this slot."""
        self._free.append(index)
        for answer in answers:
            if not self._over:
                self.unsent_bytes -= len(answer.envelope) + answer.payload_length
            answer.finish()
