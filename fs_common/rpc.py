"""Remote calls: the calling side of a connection, and what a service offers to the other side.

Wire format: `frames.py`. Transports: `transports/`. The serving side of a connection: `serving.py`.

Invariants of a call:

* Once `call` has returned or raised, for whatever reason, the caller's memory is neither read nor written any more.
* Every call ends: with its answer, by its timeout, or with the connection.
* A call that fails without its request having left is refused with an error that is safe to retry.
* A call whose request began to leave fails as "not applied" only when its server has said so in an answer to this very
  call. A connection that breaks, a frame that is bad and an answer that cannot be read leave it open.

Concurrency: docs/concurrency/rpc.md.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import msgspec

from fs_common import frames
from fs_common.checks import check
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.frames import FrameError
from fs_common.landing import filled
from fs_common.latency import Latency
from fs_common.limits import BODY_BYTES_MAX, BYTES_IN_FLIGHT_MAX, CALLS_IN_FLIGHT_MAX, PAYLOAD_BYTES_MAX
from fs_common.link import Link, Receiver
from fs_common.methods import (
    AT_VERSION,
    FOLLOW,
    GET_ROUTING,
    HELLO,
    LOCK,
    LOCK_QUESTIONS,
    PING,
    SLOW_OPERATIONS,
    STATS,
    Method,
)
from fs_common.records.session import ErrorBody, Hello, Ping, Stats, Welcome
from fs_common.records.slow import SlowOperationsReply
from fs_common.security.identity import CLIENT, Identity, require_admin
from fs_common.slow_operations import SlowOperations
from fs_common.telemetry import Counters, LimitedLog
from fs_common.tracing import current
from fs_common.wire import FileRange as FileRange
from fs_common.wire import Frame, Outgoing
from fs_common.wire import Part as Part

SWEEP_INTERVAL_S = 0.05
"""How late a timeout may be noticed: one timer for a connection instead of one for each call."""

encode = msgspec.msgpack.Encoder().encode
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError, OverflowError)
"""What decoding raises for bytes that are no such record. To msgspec a string that is not UTF-8, and lists within lists
beyond the interpreter's depth (a field that this release does not know may be anything), are no `DecodeError`."""
_decoders: dict[type[msgspec.Struct], Callable[[Any], Any]] = {}


def decoder(record: type[msgspec.Struct]) -> Callable[[Any], Any]:
    """The one decoding function of a record type. It raises what `MALFORMED` lists."""
    decode = _decoders.get(record)
    if decode is None:
        decode = _decoders[record] = msgspec.msgpack.Decoder(record).decode
    return decode


def byte_view(memory: Any) -> memoryview:
    """`memory` as a view of single bytes."""
    view = memory if type(memory) is memoryview else memoryview(memory)
    return view if view.itemsize == 1 and view.ndim == 1 else view.cast("B")


def byte_views(memories: Sequence[Any]) -> list[memoryview]:
    """Each as a view of single bytes; no bytecode runs for those that are."""
    if set(map(type, memories)) == {memoryview} and set(map(_shape, memories)) == {(1, 1)}:
        return list(memories)
    return list(map(byte_view, memories))


_shape = attrgetter("itemsize", "ndim")


def payload_parts(send: Sequence[Part]) -> tuple[list[Part], int]:
    """What `send` amounts to: its parts as byte views, without empty ones, and their bytes."""
    parts: list[Part] = []
    total = 0
    for part in send:
        if type(part) is FileRange:
            length = part.length
        elif type(part) is bytes:
            length = len(part)
        else:
            part = byte_view(part)
            length = len(part)
        if length:
            parts.append(part)
            total += length
    return parts, total


# --- serving side ---------------------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """What a handler answers."""

    body: msgspec.Struct
    """Of the method's response type."""
    send: Sequence[Part] = ()
    """Payload; stable until `release` is called."""
    release: Callable[[], None] | None = None
    """Called once the payload is sent or dropped."""


class Allocation(NamedTuple):
    """Memory for a request's payload that has to be given back. `allocate` may return it instead of plain views."""

    views: Sequence[memoryview]
    release: Callable[[], None]
    """Called when the call is over: its reply is sent or dropped, or its payload never came."""


class Admission(NamedTuple):
    """Who a caller is, and what it may call."""

    identity: Identity | None = None
    """None: this cluster asks nobody who he is."""
    methods: frozenset[int] | None = None
    """Numbers of the methods it may call. None: all."""
    given_pass: bytes = b""
    """For its welcome."""


ANYBODY = Admission()


class Movable(Receiver, Protocol):
    """A serving connection that can go on over another link."""

    @property
    def link(self) -> Link: ...

    def move(self, link: Link) -> None:
        """Use `link` from now on: it has taken the place of the one before."""


class Prepared(Protocol):
    """A transport beside the one that a connection began with."""

    def close(self) -> None:
        """The session is over. Idempotent."""


class ServerSession:
    """One caller, from its hello to the end of its connection."""

    __slots__ = ("_end", "address", "closed", "connection", "hello", "identity", "methods", "permits", "transport")

    def __init__(
        self,
        hello: Hello,
        address: str,
        admission: Admission = ANYBODY,
        end: Callable[[EmberError], None] | None = None,
        connection: "Movable | None" = None,
    ) -> None:
        self.hello = hello
        self.address = address
        self.identity = admission.identity
        """Who the caller is. What it may do is asked of this, never of its requests. None: security is off."""
        self.methods = admission.methods
        self.permits: dict[int, int] | None = None
        """Rights to files that the caller has shown, by inode (`security.permits`). None: none yet."""
        self.closed = False
        """The connection is gone; a reply will reach nobody."""
        self.connection = connection
        """None: it is over, or can go on in no other way."""
        self.transport: Prepared | None = None
        """What the connection may move to, or has moved to."""
        self._end = end

    def over(self) -> None:
        """Called by the connection at its end: nothing keeps it any more."""
        self.closed = True
        self._end = None
        self.connection = None
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.close()

    def end(self, reason: EmberError) -> None:
        """End the connection now: nothing that the caller has sent is answered any more, nothing it sends is looked at.
        It hears the reason if it can."""
        if self._end is not None:
            self._end(reason)


class Call:
    """One request being answered."""

    __slots__ = ("deadline", "payload", "request", "session", "times", "trace")

    def __init__(
        self,
        request: Any,
        payload: Sequence[memoryview],
        session: ServerSession,
        deadline: float,
        trace: int = 0,
    ) -> None:
        self.request = request
        """Of the method's request type."""
        self.payload = payload
        """The views `allocate` gave, filled. They belong to the call until its reply is sent."""
        self.session = session
        self.deadline = deadline
        """On the clock of `loop.time()`; infinity where the caller set none. An async handler is cancelled then."""
        self.trace = trace
        """The client's operation that it is made for (`tracing.py`); 0: none."""
        self.times: Callable[[], dict[str, int]] | None = None
        """Gives where the time has gone, in ns by name; asked for only if it was long. A handler may set it."""


SLOW_OPERATION_MS = 1000
"""Default of the threshold."""
WAITING = frozenset((GET_ROUTING, FOLLOW, LOCK, LOCK_QUESTIONS, AT_VERSION))
"""Methods that are answered when others have done something."""

Handler = Callable[[Call], Reply | Awaitable[Reply]]
Allocate = Callable[[Any, int], Sequence[memoryview] | Allocation]


class Registration:
    """A method this process answers, and how often it did."""

    __slots__ = (
        "allocate",
        "calls",
        "decode",
        "errors",
        "handler",
        "latency",
        "method",
        "received_bytes",
        "sent_bytes",
        "waits",
    )

    def __init__(self, method: Method, handler: Handler, allocate: Allocate | None) -> None:
        self.method = method
        self.decode = decoder(method.request)
        self.handler = handler
        self.allocate = allocate
        self.calls = 0
        self.errors = 0
        """Of those, answered with an error frame."""
        self.latency = Latency()
        """From a request that is here, with its payload, to its answer."""
        self.received_bytes = 0
        """Of payload."""
        self.sent_bytes = 0
        self.waits = method in WAITING
        """For something that others do: that it takes long means nothing."""


class Yielding(Protocol):
    """A connection whose request waits for its payload in memory that others need."""

    def yield_memory(self) -> None:
        """Refuse the request, and let its payload go nowhere."""


class Service:
    """What this process answers, and who it says it is."""

    def __init__(self, role: str, cluster: str, node: int) -> None:
        self.role = role
        self.cluster = cluster
        """Empty: any caller is welcome."""
        self.node = node
        self.counters = Counters()
        self.transports: tuple[str, ...] = ()
        """Data transports it can use beyond the one that callers come by."""
        self.authenticate: Callable[[Hello], Admission] | None = None
        """Called with each hello, first of all; raises `EmberError` to turn the caller away. None: anybody may call
        anything."""
        self.sessions: set[ServerSession] = set()
        """Callers that are connected."""
        self.admit: Callable[[Hello], None] | None = None
        """Called with each hello; raises `EmberError` to turn the caller away."""
        self.session_finished: Callable[[ServerSession], None] | None = None
        """Called when a caller will send nothing more: it closed its side, or is dead. Its last replies still go."""
        self.session_ended: Callable[[ServerSession], None] | None = None
        """Called when a caller's connection is gone."""
        self.calls_in_flight_max = CALLS_IN_FLIGHT_MAX
        self.bytes_in_flight_max = BYTES_IN_FLIGHT_MAX
        """For each connection: reading stops at these bounds and goes on below them."""
        self.strangers_log = LimitedLog(logging.getLogger("fs_common.serving"))
        """About callers that do not speak the protocol."""
        self.defects_log = LimitedLog(logging.getLogger("fs_common.serving"))
        """About requests that found a defect of this process, which a caller may do again and again."""
        self.slow: dict[Yielding, int] = {}
        """Callers whose payload comes so slowly that others come first, and the bytes of memory that wait for it."""
        self.error_frames: dict[tuple[int, Code], int] = {}
        """How many were sent, by method (0: about the connection) and code."""
        self.slow_operations = SlowOperations(SLOW_OPERATION_MS)
        self.registrations: dict[int, Registration] = {}
        self._stats_sources: list[Callable[[], dict[str, int]]] = [self.counters.snapshot]
        self.register(PING, lambda call: Reply(Ping(call.request.text)))
        self.register(STATS, lambda call: Reply(Stats(self.stats())))
        self.register(SLOW_OPERATIONS, self._tell_slow)

    def register(self, method: Method, handler: Handler, *, allocate: Allocate | None = None) -> None:
        """Answer `method` with `handler(call) -> Reply`, sync or async, or with a future of the reply.

        A future is cancelled where an async handler would be. An async handler's first step runs directly in the
        reader, outside a task: no `asyncio.timeout`, `current_task` or
        `TaskGroup` before its first suspension. A handler must not block.

        `allocate(request, payload_length)` gives writable byte views of together `payload_length` bytes, before the
        payload is received; without it the method refuses payload. When it raises BUSY, requests whose payload comes
        too slowly are refused in favour of this one, and it is asked again.
        """
        check(method.number not in self.registrations, "a method has one handler", method.name)
        check(method is not HELLO, "hello is answered by the connection")
        self.registrations[method.number] = Registration(method, handler, allocate)

    def make_room(self) -> bool:
        """Take the memory back that waits for the slowest payloads, of the largest one. False: nobody is slow."""
        slow = self.slow
        if not slow:
            return False
        largest = max(slow, key=slow.__getitem__)
        largest.yield_memory()
        slow.pop(largest, None)
        return True

    def add_stats(self, source: Callable[[], dict[str, int]]) -> None:
        """What `source()` gives is part of the answer to STATS."""
        self._stats_sources.append(source)

    def _tell_slow(self, call: Call) -> Reply:
        """They name paths and clients, so they are for those who may look at everything."""
        identity = call.session.identity
        if identity is not None and identity.role == CLIENT:
            require_admin(identity, "to see slow operations")
        return Reply(SlowOperationsReply(self.slow_operations.snapshot()))

    def stats(self) -> dict[str, int]:
        merged: dict[str, int] = {}
        for registration in self.registrations.values():
            name = registration.method.name
            merged[f"rpc_{name}_calls"] = registration.calls
            merged[f"rpc_{name}_errors"] = registration.errors
            merged[f"rpc_{name}_ns"] = registration.latency.total_ns
        merged["slow_operations"] = sum(self.slow_operations.counts.values())
        for source in self._stats_sources:
            merged.update(source())
        return merged


# --- calling side ---------------------------------------------------------------------------------------------------


class _Pending:
    """A call whose request is queued or sent and whose answer has not come."""

    __slots__ = ("deadline", "future", "into", "method", "outgoing", "response")

    def __init__(
        self, future: asyncio.Future[Any], method: Method, into: Sequence[memoryview], deadline: float
    ) -> None:
        self.future = future
        self.method = method
        self.into = into
        self.deadline = deadline
        self.outgoing: Outgoing | None = None
        """Set while the link uses the caller's memory, or has lent it to the other side."""
        self.response: Any = None
        """Decoded, while its payload is landing."""


class _Waiting(NamedTuple):
    """A call that waits for its turn."""

    future: asyncio.Future[None]
    size: int
    deadline: float


class Ticket:
    """With it one call can be ended before its answer has come, by somebody else than its caller."""

    __slots__ = ("abandoned", "waits_for")

    def __init__(self) -> None:
        self.abandoned: EmberError | None = None
        """What it was ended with."""
        self.waits_for: asyncio.Future[Any] | None = None
        """What the call waits for just now."""

    def abandon(self, error: EmberError) -> None:
        """Let the call raise `error`, unless it is over. When it has raised, its caller's memory is free."""
        self.abandoned = error
        waits_for = self.waits_for
        if waits_for is not None and not waits_for.done():
            waits_for.set_exception(error)

    def wait_for(self, future: asyncio.Future[Any]) -> None:
        """The call is about to wait for this. Raises what it was abandoned with in the meantime."""
        if self.abandoned is not None:
            raise self.abandoned
        self.waits_for = future


class Peer:
    """The calling side of one connection. Made by a transport's `connect`; used from its loop alone."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self.welcome = Welcome(0, "", "", 0)
        """Who answered."""
        self.closed = False
        """No call can succeed any more."""
        self.closing = False
        """The other side said goodbye: calls in flight go on, new ones are refused."""
        self.calls_in_flight_max = CALLS_IN_FLIGHT_MAX
        self.bytes_in_flight_max = BYTES_IN_FLIGHT_MAX
        self._link = link
        self._loop = loop
        self._pending: dict[int, _Pending] = {}
        self._landing: int = 0
        """Request whose response's payload is arriving; 0: none, or nobody wants it."""
        self._last_request = 0
        self._waiting: deque[_Waiting] = deque()
        """In order of arrival; not empty only while there is no room for the first."""
        self._calls = 0
        self._bytes = 0
        """Payload bytes of calls in flight, both directions; with `_calls`, what the bounds are about."""
        self._sweep: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else "open"
        return f"<Peer {self._link.name} {state}, {len(self._pending)} calls in flight>"

    async def call(
        self,
        method: Method,
        request: msgspec.Struct,
        *,
        send: Sequence[Part] = (),
        into: Sequence[memoryview] = (),
        timeout: float,
        ticket: Ticket | None = None,
        trace: int = 0,
    ) -> Any:
        """Send `request` and return the response, an instance of `method.response`.

        `send` is the request's payload. The response's payload lands in `into`, in order and densely; where the
        response has `lengths` and the payload is shorter than `into`, item i's bytes go to `into[i][:lengths[i]]`.
        The memory of both belongs to the call until it returns or raises, cancellation included, and is not touched
        after that. `timeout` is in seconds, noticed up to `SWEEP_INTERVAL_S` late. By `ticket` it may be abandoned.
        `trace`: the operation that it is made for; 0: the one that is worked on here.

        Raises `EmberError`: what the server raised; PEER_GONE (the connection broke, or was ended for a bad frame,
        after the request began to leave); INTERNAL (the response is malformed); UNREACHABLE or CLOSING (it has not
        left); TIMED_OUT; TOO_LARGE (it is not sent).
        """
        if self.closed or self.closing:
            raise self._refusal()
        if send:
            send, payload_length = payload_parts(send)
        else:
            payload_length = 0
        size = payload_length
        if into:
            into = [byte_view(into[0])] if len(into) == 1 else byte_views(into)
            size += min(sum(map(len, into)), PAYLOAD_BYTES_MAX)
        body = encode(request)
        if payload_length > PAYLOAD_BYTES_MAX or len(body) > BODY_BYTES_MAX:
            raise EmberError(
                Code.TOO_LARGE,
                f"{method.name} with a body of {len(body)} and a payload of {payload_length} bytes is over the bound"
                f" of {BODY_BYTES_MAX} and {PAYLOAD_BYTES_MAX}; split it",
            )
        now = self._loop.time()
        deadline = now + timeout
        if self._waiting or not self._has_room(size):
            await self._turn(size, deadline, ticket)
            now = self._loop.time()
        else:
            self._calls += 1
            self._bytes += size
        number = self._next_request()
        pending = _Pending(self._loop.create_future(), method, into, deadline)
        try:
            if self.closed or self.closing:
                raise self._refusal()
            if ticket is not None:
                ticket.wait_for(pending.future)
            deadline_ms = min(max(int((deadline - now) * 1000), 1), frames.DEADLINE_MS_MAX)
            trace = (trace or current()) if self.welcome.traces else 0
            frame = (
                frames.pack(frames.REQUEST, method.number, number, len(body), payload_length, deadline_ms, trace) + body
            )
            # Alone on the connection there is nobody to share a system call with; waiting would only cost time.
            urgent = not self._pending
            self._pending[number] = pending
            if self._sweep is None:
                self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._on_sweep)
            if payload_length:
                pending.outgoing = self._link.send_with_payload(
                    frame, send, payload_length, None, into=into, urgent=urgent
                )
            else:
                pending.outgoing = self._link.send(frame, into=into, urgent=urgent)
            return await pending.future
        finally:
            self._detach(number, pending)
            self._calls -= 1
            self._bytes -= size
            if self._waiting:
                self._admit()
            if self.closing and not self._pending and not self.closed:
                self._link.close()

    @property
    def link(self) -> Link:
        """The one it uses now."""
        return self._link

    def move(self, link: Link) -> None:
        """Use `link` from now on: it has taken the place of the one before, whose end it will tell."""
        self._link = link

    @property
    def descriptor(self) -> int | None:
        """File descriptor of the connection, for a forked child to close."""
        return self._link.descriptor

    @property
    def certificate_ends_s(self) -> float | None:
        """When the server's certificate ends, in seconds since 1970; None: the connection is not over TLS."""
        return self._link.certificate_ends_s

    def received(self) -> int:
        """How many bytes have come so far, those included that lie in the kernel."""
        self._link.probe()
        return self._link.received_bytes

    def retire(self) -> None:
        """No new calls: another connection takes them. This one ends with its last answer."""
        if not self.closed and not self.closing:
            self.closing = True
            self._refuse_waiting()
            if not self._pending:
                self._link.close()

    async def close(self) -> None:
        """End the connection. Calls in flight fail with PEER_GONE."""
        self._link.abort(EmberError(Code.PEER_GONE, f"connection {self._link.name} was closed by its owner"))
        await self._link.wait_closed()

    async def greet(self, hello: Hello, timeout: float) -> None:
        """The first exchange. Raises `EmberError`: VERSION_MISMATCH, WRONG_CLUSTER, ..."""
        self.welcome = await self.call(HELLO, hello, timeout=timeout)

    # Turns

    def _has_room(self, size: int) -> bool:
        return self._calls < self.calls_in_flight_max and (
            not self._bytes or self._bytes + size <= self.bytes_in_flight_max
        )

    async def _turn(self, size: int, deadline: float, ticket: Ticket | None) -> None:
        """Wait until there is room for one more call of `size` payload bytes, and take it."""
        waiting = _Waiting(self._loop.create_future(), size, deadline)
        if ticket is not None:
            ticket.wait_for(waiting.future)
        self._waiting.append(waiting)
        try:
            await waiting.future
        except asyncio.CancelledError:
            future = waiting.future
            if not future.cancelled() and future.exception() is None:
                # The turn came in the same step as the cancellation.
                self._calls -= 1
                self._bytes -= size
            self._admit()
            raise

    def _admit(self) -> None:
        """Give turns, in order, while there is room."""
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            if not first.future.done():
                if not self._has_room(first.size):
                    return
                self._calls += 1
                self._bytes += first.size
                first.future.set_result(None)
            waiting.popleft()

    # Receiver

    def frame_begun(self, frame: Frame) -> Sequence[memoryview] | None:
        kind = frame.kind
        if kind == frames.RESPONSE:
            number = frame.request
            pending = self._pending.get(number)
            if pending is None or pending.future.done():
                return None
            try:
                response = decoder(pending.method.response)(frame.body)
            except MALFORMED as error:
                # Not BAD_BODY, which says that a request was refused: this one was worked on.
                message = f"{self._link.name} answered {pending.method.name} with a malformed record: {error}"
                self._fail(number, Code.INTERNAL, message)
                return None
            if not frame.payload_length:
                del self._pending[number]
                pending.future.set_result(response)
                return None
            views = _destination(pending.into, response, frame.payload_length)
            if views is None:
                message = (
                    f"{self._link.name} answered {pending.method.name} with {frame.payload_length} bytes of payload"
                    f" that do not fit the {sum(map(len, pending.into))} bytes given for it"
                )
                self._fail(number, Code.INTERNAL, message)
                return None
            pending.response = response
            self._landing = number
            return views
        if kind == frames.ERROR:
            self._on_error(frame)
        elif kind == frames.GOODBYE:
            self.closing = True
            self._refuse_waiting()
            if not self._pending:
                self._link.close()
        else:
            raise FrameError("kind", "a request came from the side that answers requests")
        return None

    def payload_done(self) -> None:
        number = self._landing
        if number:
            self._landing = 0
            pending = self._pending.pop(number)
            if not pending.future.done():
                pending.future.set_result(pending.response)

    def frame_bad(self, error: FrameError) -> None:
        self._link.abort(EmberError(Code.BAD_FRAME, f"{self._link.name}: {error}"))

    def peer_finished(self) -> None:
        self._link.abort(EmberError(Code.PEER_GONE, f"connection {self._link.name} was closed by the other side"))

    def drained(self) -> None:
        pass

    def link_lost(self, error: EmberError) -> None:
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._landing = 0
        # What is wrong with a connection says nothing about the requests that went over it: each may have been worked
        # on. Only a hello has no effect, and whoever greets wants to know why it is turned away.
        code = error.code if error.retry is Retry.MAYBE_APPLIED else Code.PEER_GONE
        for number, pending in list(self._pending.items()):
            self._fail(number, error.code if pending.method is HELLO else code, error.message)
        self._refuse_waiting()

    def _on_error(self, frame: Frame) -> None:
        try:
            body: ErrorBody = decoder(ErrorBody)(frame.body)
        except MALFORMED as error:
            raise FrameError("body", f"of an error frame is malformed: {error}") from None
        if frame.request:
            self._fail(frame.request, code_of(body.code), body.message)
        else:
            # About the connection, not about one call: nothing else will come.
            self._link.abort(EmberError(code_of(body.code), body.message))

    # Ends of calls

    def _fail(self, number: int, code: Code, message: str) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(EmberError(code, message))

    def _detach(self, number: int, pending: _Pending) -> None:
        """The caller takes its memory back: nothing arrives in it and nothing is sent from it after this."""
        if self._pending.pop(number, None) is not None and self._landing == number:
            self._landing = 0
            self._link.discard_payload()
        if pending.outgoing is not None and not pending.outgoing.done:
            self._link.withdraw(pending.outgoing)

    def _refuse_waiting(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(self._refusal())

    def _refusal(self) -> EmberError:
        if self.closed:
            return EmberError(Code.UNREACHABLE, f"connection {self._link.name} is closed; connect again")
        return EmberError(Code.CLOSING, f"{self._link.name} is shutting down; retry on another server")

    def _on_sweep(self) -> None:
        self._sweep = None
        now = self._loop.time()
        if any(pending.deadline <= now for pending in self._pending.values()):
            # Timers run before sockets are looked at: in a process that was stopped or busy for long, the answers may
            # be here already.
            self._link.probe()
        for pending in self._pending.values():
            if pending.deadline <= now and not pending.future.done():
                message = f"{self._link.name} did not answer {pending.method.name} in time"
                pending.future.set_exception(EmberError(Code.TIMED_OUT, message))
        for waiting in self._waiting:
            if waiting.deadline <= now and not waiting.future.done():
                message = f"{self._link.name} had no room for another call in time"
                waiting.future.set_exception(EmberError(Code.BUSY, message))
        if (self._pending or self._waiting) and not self.closed:
            self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._on_sweep)

    def _next_request(self) -> int:
        number = self._last_request
        while True:
            number = number + 1 if number < frames.REQUEST_ID_MAX else 1
            if number not in self._pending:
                self._last_request = number
                return number


def _destination(into: Sequence[memoryview], response: Any, length: int) -> Sequence[memoryview] | None:
    """The views a payload of `length` bytes fills, or None if it does not fit them."""
    sizes = list(map(len, into))
    if length == sum(sizes):
        return into
    taken = filled(sizes, getattr(response, "lengths", None), length)
    return None if taken is None else [view[:size] for size, view in zip(taken, into, strict=True) if size]
