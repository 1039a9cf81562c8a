"""A link over a queue pair: frames by SEND and RECV, payload by READs and WRITEs that the serving side issues.

It is set up over a `TcpLink` (`setup.py`), which stays, silent: its end is the news of a dead peer. The calling side
lends memory with each request; the serving side fetches the request's payload (READ), and writes that of the answer
(WRITE) before it sends the answer.

Invariants:

* What is lent with a request is lent until its answer is here, or the queue pair is over. `withdraw` of a request that
  has left ends the queue pair before it returns.
* Memory under a READ or WRITE of this side is given back when that is complete, or the queue pair is destroyed.
* Nothing is said about a request while a READ of its payload may be under way: the caller would take its memory back.
* A slot is posted again before the other side is told that it is empty.

Concurrency: docs/concurrency/rdma.md.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from fs_common import frames
from fs_common.errors import Code, EmberError
from fs_common.frames import REQUEST, FrameError
from fs_common.link import Receiver
from fs_common.telemetry import LimitedLog
from fs_common.tls.names import Proven
from fs_common.transports.rdma.beside import TcpWatch
from fs_common.transports.rdma.endpoint import Endpoint
from fs_common.transports.rdma.landing import Landing
from fs_common.transports.rdma.memory import MemoryRefused
from fs_common.transports.rdma.outgoing import Answer, Loan, lend
from fs_common.transports.rdma.plan import CHAIN_MAX, Piece, moves
from fs_common.transports.rdma.sending import Sender
from fs_common.transports.rdma.stream import CREDITS_OWED_MAX, LAST, Envelope, EnvelopeReader, MessageReader
from fs_common.transports.rdma.verbs import Access, Kind, Receive, VerbsError
from fs_common.transports.tcp import TcpLink
from fs_common.wire import Frame, Outgoing, Part

logger = logging.getLogger(__name__)
_defects = LimitedLog(logger)

POLL_MOST = 64
TURN_MESSAGES_MAX = 2
"""Messages that one connection takes in one turn: small frames in them are some milliseconds of work."""
DRAIN_S = 0.01
"""How long a completion of own work may lie when nothing waits for it: memory comes back with the next message, or now.
"""
UNTAKEN_S = 10.0
"""How long the other side may take nothing of what waits for it. Over TCP the kernel gives up after the same time
(`tcp.UNACKNOWLEDGED_MS`); here the device of a process that is stopped goes on acknowledging."""


class RdmaLink:
    """See `link.Link`."""

    transport = "rdma"

    def __init__(self, tcp: TcpLink, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self.name = tcp.name
        self._tcp = tcp
        self._loop = loop
        self._endpoint = endpoint
        self._queue_pair = endpoint.queue_pair
        self._completions = endpoint.completions
        self._slots = endpoint.slots
        self._memory = endpoint.memory
        self._slabs = endpoint.slabs
        self._traffic = endpoint.traffic
        self._receiver: Receiver | None = None
        self._move: Callable[[], None] | None = None
        """Called when the first message comes: the connection is the queue pair's from then on."""
        self._tcp_ended = False

        # What arrives.
        self._messages = MessageReader()
        self._envelopes = EnvelopeReader()
        self._unread: deque[tuple[int, memoryview]] = deque()
        """Slots that have arrived, and their content."""
        self._reading_slot: int | None = None
        """The one whose content is being read;"""
        self._reading_now: Iterator[Envelope] = iter(())
        """what is left of it."""
        self._emptied: list[Receive] = []
        """To be posted again."""
        self._landing: Landing | None = None
        self._intos: dict[int, Sequence[Piece]] = {}
        """Of requests in work: where their answers go."""
        self._reading = True
        self._broken = False
        """What arrives is no frame: nothing more is looked at."""
        self._peer_last = False
        """The other side's last message is here."""
        self._peer_told = False
        """And the receiver knows."""
        self.received_bytes = 0

        # What leaves.
        self._sender = Sender(endpoint, self._messages, self._flush_later)
        self._out = self._sender.out
        self._loans: dict[int, Loan] = {}
        """Requests that are not answered yet, by number."""
        self._finishing = False
        self._untaken: asyncio.TimerHandle | None = None
        """Set while something waits for credits."""

        self._in_turn = False
        self._waits = False
        """It may wait for more than messages with content: for own work, or for credits."""
        self._hears_all = False
        """The next completion of any kind wakes this side up; otherwise the next message with content."""
        self._drain: asyncio.TimerHandle | None = None
        """Set while signalled work is outstanding."""
        self._flush: asyncio.Handle | None = None
        self._take_on: asyncio.Handle | None = None
        self._over = False

    def start(self, receiver: Receiver) -> None:
        """The connection is this link's from now on."""
        self._receiver = receiver
        self._adopt()
        self._listen()

    def stand_by(self, receiver: Receiver, move: Callable[[], None]) -> None:
        """Wait for the first message: `move` is called when it comes. Until then the TCP link has the connection, and
        this one may be over without anybody noticing."""
        self._receiver = receiver
        self._move = move
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._completions.fileno(), self._on_completions)
        self._slabs.takers.add(self._hear_all_soon)
        self._completions.arm(solicited=True)
        # What came before that wakes nobody up.
        self._loop.call_soon(self._poll)

    def _adopt(self) -> None:
        self._tcp.hand_over(TcpWatch(self))
        self._tcp.resume_reading()

    # Link

    @property
    def descriptor(self) -> int | None:
        return self._tcp.descriptor

    @property
    def proven(self) -> Proven | None:
        return None

    @property
    def certificate_ends_s(self) -> float | None:
        return None

    @property
    def unsent_bytes(self) -> int:
        return self._sender.unsent_bytes

    @property
    def within_frame(self) -> bool:
        return self._landing is not None or self._envelopes.within_envelope

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> Outgoing | None:
        if self._over:
            return None
        if into:
            return self._lend(frame, (), into, None, urgent)
        landing = self._landing
        if landing is not None and landing.discarded and frames.kind_and_request(frame)[1] == landing.number:
            landing.held.append(frame)
            return None
        if self._intos:
            self._intos.pop(frames.kind_and_request(frame)[1], None)
        self._sender.add(frame)
        self._send_soon(urgent)
        return None

    def send_with_payload(
        self,
        frame: bytes,
        parts: Sequence[Part],
        payload_length: int,
        release: Callable[[], None] | None,
        *,
        into: Sequence[memoryview] = (),
        lengths: Sequence[int] | None = None,
        urgent: bool = False,
    ) -> Outgoing:
        kind, number = frames.kind_and_request(frame)
        if kind == REQUEST:
            if self._over:
                loan = Loan(number, release)
                loan.finish()
                return loan
            return self._lend(frame, parts, into, release, urgent)
        answer = Answer(frame, parts, payload_length, release, self._intos.pop(number, ()), lengths)
        if self._over:
            answer.finish()
        else:
            self._sender.add_answer(answer)
            if not self._in_turn:
                self._send_soon(urgent)
        return answer

    def _lend(
        self,
        frame: bytes,
        parts: Sequence[Part],
        into: Sequence[memoryview],
        release: Callable[[], None] | None,
        urgent: bool,
    ) -> Loan:
        try:
            loan = lend(self._memory, frame, parts, into, release)
        except MemoryRefused:
            if self._endpoint.leaves():
                # Not now: the call that asks is refused by this, and may be made again, over TCP.
                message = f"connection {self.name} was left for one over TCP: memory could not be registered"
                self._loop.call_soon(self.abort, EmberError(Code.PEER_GONE, message))
            raise
        self._loans[loan.number] = loan
        sender = self._sender
        sender.queue.append(loan)
        sender.unsent_bytes += len(loan.envelope)
        self._send_soon(urgent)
        return loan

    def _send_soon(self, urgent: bool) -> None:
        if urgent:
            self._post_due()
        elif not self._in_turn:
            self._flush_later()

    def _flush_later(self) -> None:
        if self._flush is None and not self._over:
            self._flush = self._loop.call_soon(self._on_flush)

    def set_bounds(self, body_bytes_max: int, payload_bytes_max: int) -> None:
        self._envelopes.body_bytes_max = body_bytes_max
        self._envelopes.payload_bytes_max = payload_bytes_max

    def withdraw(self, outgoing: Outgoing) -> None:
        if outgoing.done or self._over:
            return
        assert isinstance(outgoing, Loan)
        if not outgoing.sent:
            self._sender.remove(outgoing)
            del self._loans[outgoing.number]
            outgoing.finish()
            return
        # The answer may be here: then nothing is lent any more.
        self.probe()
        if not outgoing.done and not self._over:
            message = f"connection {self.name} was ended, so that a call that ended early has its memory back"
            self.abort(EmberError(Code.PEER_GONE, message))

    def discard_payload(self, release: Callable[[], None] | None = None) -> None:
        landing = self._landing
        if landing is not None:
            landing.discarded = True
            landing.release = release
        elif release is not None:
            release()

    def probe(self) -> None:
        if not self._over and not self._in_turn:
            self._poll()

    def pause_reading(self) -> None:
        self._reading = False
        # Until something that leaves has left.
        self._hear_all_soon()

    def resume_reading(self) -> None:
        if not self._reading and not self._over:
            self._reading = True
            self._take_later()

    def close(self) -> None:
        if self._over or self._finishing:
            return
        if self._tcp_ended and not self._peer_last:
            # Nobody is there to send the rest to.
            self._end()
            return
        self._finishing = self._waits = True
        if not self._in_turn:
            self._post_due()

    def abort(self, error: EmberError) -> None:
        if self._over:
            return
        self._over = True
        for handle in (self._flush, self._take_on, self._untaken, self._drain):
            if handle is not None:
                handle.cancel()
        self._loop.remove_reader(self._completions.fileno())
        self._slabs.takers.discard(self._hear_all_soon)
        # First of all: nothing of what follows is touched by a device any more, here or there.
        self._endpoint.close()
        self._give_back()
        moved = self._move is None
        self._move = None
        receiver, self._receiver = self._receiver, None
        if moved:
            self._tcp.abort(error)
            if receiver is not None:
                receiver.link_lost(error)

    def _give_back(self) -> None:
        """All memory that this link holds, after the queue pair's end."""
        self._sender.end()
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.use.release()
            if landing.release is not None:
                landing.release()
        loans, self._loans = self._loans, {}
        for loan in loans.values():
            loan.finish()
        self._intos.clear()
        self._unread.clear()
        self._emptied.clear()
        self._reading_now = iter(())
        self._envelopes.release()

    async def wait_closed(self) -> None:
        await self._tcp.wait_closed()

    # Completions

    def _hear_all_soon(self) -> None:
        """What this side's work holds is wanted: see to what is complete, and to all that completes."""
        self._waits = True
        if not self._hears_all and not self._over:
            self._loop.call_soon(self._hear_all)

    def _hear_all(self) -> None:
        if self._over:
            return
        if not self._hears_all:
            try:
                self._completions.arm()
            except VerbsError as error:
                self._on_failure(str(error))
                return
            self._hears_all = True
        # What came before that wakes nobody up.
        self._poll()

    def _on_drain(self) -> None:
        self._drain = None
        self._poll()
        ledger = self._sender.ledger
        if self._drain is None and ledger.signalled > ledger.complete and not self._over:
            self._drain = self._loop.call_later(DRAIN_S, self._on_drain)

    def _on_completions(self) -> None:
        self._poll(news=True)

    def _poll(self, *, news: bool = False) -> None:
        """Take all that is complete. The completion queue is as long as what is posted, so this ends. `news`: its
        descriptor says that there is something; it says so again from then on."""
        if self._over or self._in_turn:
            return
        self._in_turn = True
        sender = self._sender
        unsent_bytes = sender.unsent_bytes
        failure = ""
        bad: FrameError | None = None
        try:
            if news:
                self._completions.take_events()
                waits = self._waits
                if waits:
                    waits = self._waits = (
                        sender.blocked
                        or self._landing is not None
                        or self._finishing
                        or not self._reading
                        or self._slabs.short
                    )
                self._hears_all = waits
                self._completions.arm(not waits)
            while True:
                completions = self._completions.poll(POLL_MOST)
                for identity, ok, status, _, size, _ in completions:
                    if not ok:
                        # What came before it is still good; nothing comes after it.
                        failure = failure or status.value
                    elif identity & 1:
                        try:
                            self._on_message(identity >> 1, size)
                        except FrameError as error:
                            # What has completed behind it is complete, and comes from nowhere else again.
                            bad = error
                            self._broken = True
                    elif not self._over:
                        sender.ledger.completed(identity >> 1)
                if self._over:
                    return
                if len(completions) < POLL_MOST:
                    break
            if bad is not None:
                self._on_bad(bad)
            elif self._unread or self._reading_slot is not None or self._peer_last or self._tcp_ended:
                self._take()
            if failure or self._tcp_ended:
                self._take_rest()
                if failure and not self._over:
                    self._on_failure(failure)
            if sender.unsent_bytes < unsent_bytes and self._receiver is not None:
                self._receiver.drained()
        except FrameError as error:
            self._on_bad(error)
        except (VerbsError, EmberError) as error:
            self._on_failure(error.message if isinstance(error, EmberError) else str(error))
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
            if sender.queue or self._waits or sender.owed >= CREDITS_OWED_MAX:
                self._post_due()

    def _take_rest(self) -> None:
        """Nothing else will come: what is here is taken in this turn."""
        while self._take_on is not None and not self._over:
            self._take_on.cancel()
            self._take_on = None
            self._take()

    def _on_message(self, index: int, size: int) -> None:
        """A message is in this slot."""
        self._traffic.messages_received += 1
        self.received_bytes += size
        if self._broken or self._over:
            return
        credits, flags, content = self._messages.read(self._slots.views[index][:size])
        if credits:
            self._out.give(credits)
            if self._untaken is not None:
                self._untaken.cancel()
                self._untaken = None
        if flags >= LAST:
            self._peer_last = True
        if content:
            if self._move is not None:
                if self._tcp.within_frame:
                    # What is still to come of it lands in memory that nobody minds any more once this has moved.
                    raise FrameError("transport", "a message came while a frame over TCP was arriving")
                move, self._move = self._move, None
                self._adopt()
                move()
            self._unread.append((index, content))
        else:
            self._emptied.append(self._slots.receives[index])

    def _on_failure(self, what: str) -> None:
        self._endpoint.failed()
        self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} broke: {what}"))

    def _on_bad(self, error: FrameError) -> None:
        self._broken = True
        if self._receiver is None or self._move is not None:
            self._end()
            return
        self._receiver.frame_bad(error)
        if not self._over and self._landing is None:
            self.close()

    def _on_defect(self, error: Exception) -> None:
        _defects.line(logging.ERROR, "connection %s is ended by a defect of this process", self.name, error=error)
        self.abort(EmberError(Code.INTERNAL, f"connection {self.name} was ended by a defect; see the log"))

    # Frames that arrive

    def _take_later(self) -> None:
        if self._take_on is None:
            self._take_on = self._loop.call_soon(self._on_take)

    def _on_take(self) -> None:
        self._take_on = None
        if self._over or self._in_turn:
            return
        self._in_turn = True
        try:
            self._take()
        except FrameError as error:
            self._on_bad(error)
        except EmberError as error:
            self._on_failure(error.message)
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
            self._post_due()

    def _take(self) -> None:
        """Hand over what is complete, as far as it is wanted. Raises `FrameError`."""
        left = TURN_MESSAGES_MAX
        wanted = self._reading and self._landing is None and not self._broken
        while wanted:
            if self._reading_slot is None:
                if not self._unread:
                    break
                if not left:
                    self._take_later()
                    return
                left -= 1
                self._reading_slot, content = self._unread.popleft()
                self._reading_now = self._envelopes.read(content)
            for envelope in self._reading_now:
                if not self._finishing:
                    self._hand_over(*envelope)
                    if self._over:
                        return
                    if self._landing is not None or not self._reading:
                        wanted = False
                        break
            else:
                self._emptied.append(self._slots.receives[self._reading_slot])
                self._reading_slot = None
                self._sender.owed += 1
        if self._peer_last or self._tcp_ended:
            self._tell_end()

    def _tell_end(self) -> None:
        """The other side sends nothing more: once all is taken that it has sent, the receiver is told."""
        if self._unread or self._reading_slot is not None or self._landing is not None or not self._reading:
            return
        if self._peer_told or self._over or self._broken:
            return
        self._peer_told = True
        if self._envelopes.within_envelope:
            self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} ended within a frame"))
        elif not self._finishing and self._receiver is not None:
            self._receiver.peer_finished()

    def _hand_over(self, frame: Frame, sends: Sequence[Piece], intos: Sequence[Piece]) -> None:
        if intos:
            self._intos[frame.request] = intos
        elif frame.kind != REQUEST:
            loan = self._loans.pop(frame.request, None)
            if loan is not None:
                if not loan.sent:
                    raise FrameError("request", f"{frame.request} was answered before it was sent")
                loan.finish()
            self.received_bytes += frame.payload_length
        receiver = self._receiver
        assert receiver is not None
        views = receiver.frame_begun(frame)
        if views is not None and not self._over:
            if sends:
                self._fetch(frame, views, sends)
            else:
                # It was written before this frame was sent.
                receiver.payload_done()

    def _fetch(self, frame: Frame, views: Sequence[memoryview], sends: Sequence[Piece]) -> None:
        """READ a request's payload into what was given for it."""
        lent = self._memory.local(views, Access.LOCAL_WRITE)
        reads = moves(list(zip(lent.addresses, lent.lengths, lent.keys, strict=True)), sends)
        self._landing = landing = Landing(frame.request, frame.payload_length, reads, lent.use)
        self._waits = True
        self._post_reads(landing)

    def _post_reads(self, landing: Landing) -> None:
        end = len(landing.moves)
        if landing.at == end:
            return
        sender = self._sender
        landing.at = sender.number(Kind.READ, landing.moves, landing.at)
        if landing.at == end:
            sender.signal_last()
            sender.ledger.when_complete(self._on_landed)

    def _on_landed(self) -> None:
        """The payload is here, or the queue pair is gone."""
        landing, self._landing = self._landing, None
        if landing is None:
            return
        landing.use.release()
        if landing.release is not None:
            landing.release()
        if self._over:
            return
        self._traffic.read_bytes += landing.length
        self.received_bytes += landing.length
        for frame in landing.held:
            self.send(frame)
        assert self._receiver is not None
        self._receiver.payload_done()
        if self._broken and not self._over:
            self.close()

    # What leaves

    def _on_flush(self) -> None:
        self._flush = None
        self._post_due()

    def _post_due(self) -> None:
        """Give the device what it may have now. Does not raise; may end the link."""
        if self._over or self._in_turn:
            return
        sender = self._sender
        unsent_bytes = sender.unsent_bytes
        self._in_turn = True
        try:
            if self._landing is not None:
                self._post_reads(self._landing)
            if sender.fill(self._on_all_sent if self._finishing else None) or self._waits:
                self._see_to_what_is_waited_for()
            works = sender.works
            if works:
                sender.works = []
                if self._emptied:
                    # Before the other side can hear that they are empty.
                    emptied, self._emptied = self._emptied, []
                    self._queue_pair.receive(emptied)
                if len(works) <= CHAIN_MAX:
                    self._queue_pair.post(works)
                else:
                    for i in range(0, len(works), CHAIN_MAX):
                        self._queue_pair.post(works[i : i + CHAIN_MAX])
                if self._drain is None:
                    self._drain = self._loop.call_later(DRAIN_S, self._on_drain)
        except (VerbsError, EmberError) as error:
            self._on_failure(error.message if isinstance(error, EmberError) else str(error))
        except Exception as error:
            self._on_defect(error)
        finally:
            self._in_turn = False
        if sender.unsent_bytes < unsent_bytes and self._receiver is not None:
            self._receiver.drained()

    def _see_to_what_is_waited_for(self) -> None:
        """Before works are posted that it waits for: their completion wakes this side up. Raises `VerbsError`."""
        sender = self._sender
        self._waits = True
        if not self._hears_all:
            self._completions.arm()
            self._hears_all = True
            if sender.blocked:
                # What came before that wakes nobody up.
                self._loop.call_soon(self._poll)
        if sender.starved and self._untaken is None:
            self._untaken = self._loop.call_later(UNTAKEN_S, self._on_untaken)

    # Ending

    def _on_untaken(self) -> None:
        self._untaken = None
        message = f"connection {self.name}: what was sent is not taken, for {UNTAKEN_S:g} s"
        self.abort(EmberError(Code.PEER_GONE, message))

    def _on_all_sent(self) -> None:
        if not self._over:
            self._tcp.close()

    def _end(self) -> None:
        self.abort(EmberError(Code.PEER_GONE, f"connection {self.name} is closed"))

    def on_tcp_end(self, error: EmberError | None) -> None:
        """The other side has ended the TCP connection (None: in order). What it sent before that is here already."""
        self._tcp_ended = True
        if self._over:
            return
        self._poll()
        if self._over:
            return
        if error is not None or (self._landing is not None and not self._peer_last):
            reason = f"connection {self.name} was closed by the other side"
            self.abort(error or EmberError(Code.PEER_GONE, reason))

    def on_tcp_bad(self, error: FrameError) -> None:
        if not self._over and self._receiver is not None:
            self._receiver.frame_bad(error)
