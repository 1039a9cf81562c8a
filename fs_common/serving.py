"""The serving side of one connection: from its first frame to its last reply.

Invariants:

* Nothing but a hello is looked at before the hello was accepted.
* Nothing is asked of a handler that its caller may not call.
* Every request is answered once, by a response or an error frame, unless the connection is gone.
* Reading stops while requests in work, their payload or unsent replies are over their bounds.
* Memory from `allocate` and `Reply.release` is given back exactly once, on every path.
* No frame holds memory for ever by not arriving: see `look`.

Concurrency: docs/concurrency/rpc.md.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter_ns as clock_ns
from typing import Any, cast

from fs_common import eager, frames
from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.frames import FrameError
from fs_common.limits import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX
from fs_common.link import Link
from fs_common.methods import HELLO, OF_TRANSPORT
from fs_common.records.session import PROTOCOL_VERSION, ErrorBody, Hello, Welcome
from fs_common.rpc import (
    ANYBODY,
    MALFORMED,
    SWEEP_INTERVAL_S,
    Admission,
    Allocate,
    Allocation,
    Call,
    Registration,
    Reply,
    ServerSession,
    Service,
    decoder,
    encode,
    payload_parts,
)
from fs_common.slow_operations import about
from fs_common.tls.names import STORAGE, describe
from fs_common.tracing import enter
from fs_common.wire import Frame

logger = logging.getLogger(__name__)

HELLO_BYTES_MAX = 4096
"""What a stranger may make us hold."""
HELLO_TIMEOUT_S = 10.0
SLOW_BYTES_PER_S = 1024 * 1024
"""A payload that lands more slowly than this gives its memory up when another request needs it."""
STILL_BYTES = 16 * 1024
"""A frame of which less than this has come between two looks stands still."""
STILL_LOOKS_MAX = 10
"""Looks in a row, a second apart, at which a frame may stand still. Its sender is stopped, or cut off: a kernel that
does not get its bytes through gives up after the same time (`transports.tcp.UNACKNOWLEDGED_MS`)."""
GOODBYE_PATIENCE_S = 1.0
"""How long a caller without calls in work gets to end its side after our goodbye."""


class _Active:
    """A request from its frame to the end of its handler."""

    __slots__ = ("began_ns", "call", "error", "expired", "number", "payload_bytes", "registration", "release", "task")

    def __init__(self, number: int, registration: Registration, call: Call) -> None:
        self.number = number
        self.registration = registration
        self.call = call
        self.payload_bytes = 0
        self.release: Callable[[], None] | None = None
        """Gives the payload's memory back; None once it is called or handed on."""
        self.task: asyncio.Future[Reply] | None = None
        """What the reply comes from, once the handler has suspended: its task, or the future it returned."""
        self.expired = False
        """The deadline passed and the task was cancelled for it."""
        self.began_ns = 0
        """When the handler was started; 0: it was not."""
        self.error: Code | None = None
        """What it was answered with, other than a reply."""


class ServingConnection:
    """Receiver of one accepted link."""

    def __init__(
        self,
        service: Service,
        link: Link,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[["ServingConnection"], None],
    ) -> None:
        self._service = service
        self._link = link
        self._loop = loop
        self._ended = ended
        """Called once, when the link is gone and no handler runs any more."""
        self._session: ServerSession | None = None
        """None: no hello was accepted yet."""
        self._landing: _Active | None = None
        """The request whose payload is arriving."""
        self._active: set[_Active] = set()
        """Requests in work, `_landing` included."""
        self._active_bytes = 0
        self._paused = False
        self._closing = False
        """Goodbye is said: new requests are refused."""
        self._last = False
        """Nothing more will be read: when the last reply is queued the link is closed."""
        self._lost = False
        self._looked: _Active | None = None
        """The request whose payload was landing at the last look."""
        self._looked_s = 0.0
        self._looked_bytes = 0
        """What had come by then."""
        self._still = 0
        """Looks in a row at which a frame stood still."""
        self._sweep: asyncio.TimerHandle | None = None
        """Set while handlers have suspended."""
        self._patience: asyncio.TimerHandle | None = loop.call_later(HELLO_TIMEOUT_S, self._on_silence)
        """Until the hello came; again after goodbye, once nothing is in work."""
        link.set_bounds(HELLO_BYTES_MAX, 0)

    def begin_close(self) -> None:
        """Say goodbye: take no new requests, finish those in work, then end the link."""
        if self._lost or self._closing:
            return
        self._closing = True
        if self._session is None:
            self._last = True
        else:
            self._link.send(frames.pack(frames.GOODBYE, 0, 0, 0))
        self._settle()

    def abort(self, reason: EmberError | None = None) -> None:
        """End the link now and cancel what is in work."""
        self._link.abort(reason or EmberError(Code.CLOSING, "the server is shutting down"))
        for active in list(self._active):
            if active.task is not None:
                active.task.cancel()

    @property
    def link(self) -> Link:
        """The one it uses now."""
        return self._link

    def move(self, link: Link) -> None:
        """Use `link` from now on: it has taken the place of the one before, whose end it will tell."""
        self._link = link
        self._looked_bytes = link.received_bytes
        if self._paused:
            link.pause_reading()

    def in_work(self) -> tuple[int, int, int]:
        """Requests in work, their payload, answers that are not sent yet, in bytes."""
        return len(self._active), self._active_bytes, self._link.unsent_bytes

    # Looks

    def look(self, now: float) -> None:
        """Called by the server about once a second: ends what does not arrive.

        A request whose deadline passes while its payload lands is refused; one that lands slowly may be, as soon as
        another needs the memory; a connection within a frame that stands still for long is ended. A process that was
        stopped itself finds its connections as they were: looks are counted, not seconds.
        """
        link = self._link
        came, self._looked_bytes = link.received_bytes - self._looked_bytes, link.received_bytes
        elapsed_s, self._looked_s = now - self._looked_s, now
        landing, before = self._landing, self._looked
        self._looked = landing
        if self._paused or self._lost or not link.within_frame:
            self._still = 0
            return
        if landing is not None:
            if landing.call.deadline <= now:
                self._drop_payload(Code.TIMED_OUT, "the request's deadline passed before its payload had come")
            elif landing is before:
                if came < SLOW_BYTES_PER_S * elapsed_s:
                    self._service.slow[self] = landing.payload_bytes
                else:
                    self._service.slow.pop(self, None)
        self._still = self._still + 1 if came < STILL_BYTES else 0
        if self._still >= STILL_LOOKS_MAX:
            link.abort(EmberError(Code.TIMED_OUT, f"{link.name} has stopped sending within a frame"))

    def yield_memory(self) -> None:
        self._drop_payload(Code.BUSY, "its payload came too slowly while others needed the memory; try again")

    def _drop_payload(self, code: Code, message: str) -> None:
        """The request whose payload is landing is refused. The rest of it is read and goes nowhere."""
        active = self._landed()
        if active is not None:
            release, active.release = active.release, None
            self._link.discard_payload(release)
            active.registration.calls += 1
            self._fail(active, code, message)

    def _landed(self) -> _Active | None:
        """The request whose payload was landing: it does not any more."""
        active, self._landing = self._landing, None
        slow = self._service.slow
        if slow:
            slow.pop(self, None)
        return active

    # Receiver

    def frame_begun(self, frame: Frame) -> Sequence[memoryview] | None:
        session = self._session
        if session is None:
            self._on_hello(frame)
            return None
        number = frame.request
        if frame.kind != frames.REQUEST:
            if frame.kind == frames.GOODBYE:
                return None
            raise FrameError("kind", f"{frame.kind} came from the side that sends requests")
        registration = self._service.registrations.get(frame.method)
        if self._closing:
            self._send_error(number, frame.method, Code.CLOSING, "the server is shutting down; retry on another")
            return None
        if registration is None:
            message = f"a {self._service.role} server has no method {frame.method}"
            self._send_error(number, frame.method, Code.UNKNOWN_METHOD, message)
            return None
        methods = session.methods
        if methods is not None and frame.method not in methods and frame.method not in OF_TRANSPORT:
            message = f"{session.identity} may not call {registration.method.name} of a {self._service.role} server"
            self._send_error(number, frame.method, Code.ACCESS_DENIED, message)
            return None
        try:
            request = registration.decode(frame.body)
        except MALFORMED as error:
            message = f"request of {registration.method.name} is malformed: {error}"
            self._send_error(number, frame.method, Code.BAD_BODY, message)
            return None
        deadline = self._loop.time() + frame.deadline_ms / 1000 if frame.deadline_ms else math.inf
        active = _Active(number, registration, Call(request, (), session, deadline, frame.trace))
        if not frame.payload_length:
            self._active.add(active)
            self._run(active)
            return None
        views = self._allocate(active, frame.payload_length)
        if views is None:
            return None
        self._active.add(active)
        active.payload_bytes = frame.payload_length
        registration.received_bytes += frame.payload_length
        self._active_bytes += frame.payload_length
        active.call.payload = views
        self._landing = active
        return views

    def payload_done(self) -> None:
        active = self._landed()
        if active is not None:
            self._run(active)

    def frame_bad(self, error: FrameError) -> None:
        self._service.strangers_log.line(logging.WARNING, "%s: %s; closing", self._link.name, error)
        self._send_error(0, 0, Code.VERSION_MISMATCH if error.field == "version" else Code.BAD_FRAME, str(error))
        self._last = True
        self._settle()

    def peer_finished(self) -> None:
        self._last = True
        if self._session is not None and self._service.session_finished is not None:
            self._service.session_finished(self._session)
        self._settle()

    def drained(self) -> None:
        self._balance()

    def link_lost(self, error: EmberError) -> None:
        self._lost = True
        if self._session is not None:
            self._session.over()
            self._service.sessions.discard(self._session)
        active = self._landed()
        if active is not None:
            self._finish(active)
        if self._session is not None and self._service.session_ended is not None:
            self._service.session_ended(self._session)
        self._settle()

    # Hello

    def _on_hello(self, frame: Frame) -> None:
        if frame.kind != frames.REQUEST or frame.method != HELLO.number or frame.payload_length:
            raise FrameError("method", "the first frame is not a hello")
        try:
            hello: Hello = decoder(Hello)(frame.body)
            admission = self._check_hello(hello)
        except MALFORMED as error:
            self._turn_away(frame.request, Code.BAD_BODY, f"hello is malformed: {error}")
            return
        except EmberError as error:
            self._turn_away(frame.request, error.code, error.message)
            return
        self._stop_patience()
        self._link.set_bounds(BODY_BYTES_MAX, PAYLOAD_BYTES_MAX)
        service = self._service
        self._session = ServerSession(hello, self._link.name, admission, self._end_session, self)
        service.sessions.add(self._session)
        transport = next((name for name in hello.transports if name in service.transports), "tcp")
        welcome = Welcome(
            PROTOCOL_VERSION, service.role, service.cluster, service.node, transport, admission.given_pass, traces=True
        )
        self._send_body(frames.RESPONSE, HELLO.number, frame.request, encode(welcome))

    def _check_hello(self, hello: Hello) -> Admission:
        service = self._service
        if PROTOCOL_VERSION not in hello.versions:
            raise EmberError(
                Code.VERSION_MISMATCH,
                f"the {service.role} server speaks protocol {PROTOCOL_VERSION}, the caller {hello.versions};"
                " upgrade the older side",
            )
        if hello.cluster and service.cluster and hello.cluster != service.cluster:
            raise EmberError(
                Code.WRONG_CLUSTER,
                f"this server belongs to cluster {service.cluster!r}, the caller wants {hello.cluster!r}",
            )
        self._check_certificate(hello)
        admission = ANYBODY if service.authenticate is None else service.authenticate(hello)
        if service.admit is not None:
            service.admit(hello)
        return admission

    def _check_certificate(self, hello: Hello) -> None:
        """Over TLS, whoever says that it is a daemon has its certificate. Users have tokens."""
        proven = self._link.proven
        if proven is None or hello.role == "client":
            return
        node = int.from_bytes(hello.client, "big") if hello.role == STORAGE else 0
        if not proven.stands_for(hello.role, node):
            raise EmberError(
                Code.UNAUTHENTICATED,
                f"the caller says that it is {describe(hello.role, node)}, its certificate is of {proven}: give it the "
                "tls_dir that was made for it (emberfs certs issue)",
            )

    def _end_session(self, reason: EmberError) -> None:
        """Whoever calls is told why, and cut off."""
        if not self._lost:
            body = encode(ErrorBody(reason.code.value.number, reason.message))
            self._link.send(frames.pack(frames.ERROR, 0, 0, len(body)) + body, urgent=True)
        self.abort(reason)

    def _turn_away(self, number: int, code: Code, message: str) -> None:
        self._service.strangers_log.line(logging.WARNING, "%s turned away: %s", self._link.name, message)
        self._send_error(number, HELLO.number, code, message)
        self._last = True
        self._settle()

    def _on_silence(self) -> None:
        self._patience = None
        self._link.abort(EmberError(Code.TIMED_OUT, "no hello came"))

    # Requests

    def _allocate(self, active: _Active, length: int) -> Sequence[memoryview] | None:
        """Memory for the payload; None: the request is refused, and that has been said."""
        registration = active.registration
        method = registration.method
        if registration.allocate is None:
            self._send_error(active.number, method.number, Code.BAD_BODY, f"{method.name} takes no payload")
            return None
        try:
            try:
                allocated = registration.allocate(active.call.request, length)
            except EmberError as error:
                allocated = self._allocate_again(registration.allocate, active.call.request, length, error)
            if type(allocated) is Allocation:
                active.release = allocated.release
                views = allocated.views
            else:
                views = cast("Sequence[memoryview]", allocated)
            check(sum(map(len, views)) == length, "allocated memory is as long as the payload", method.name, length)
        except EmberError as error:
            self._send_error(active.number, method.number, error.code, error.message)
        except Exception as error:
            self._service.defects_log.line(
                logging.ERROR, "allocating for %s of %s failed", method.name, self._link.name, error=error
            )
            self._send_error(active.number, method.number, Code.INTERNAL, f"{method.name} failed; see the server's log")
        else:
            return views
        _release(active)
        return None

    def _allocate_again(
        self, allocate: Allocate, request: Any, length: int, error: EmberError
    ) -> Sequence[memoryview] | Allocation:
        """After `allocate` has failed. Raises what it does in the end."""
        while error.code is Code.BUSY and self._service.make_room():
            try:
                return allocate(request, length)
            except EmberError as again:
                error = again
        raise error

    def _run(self, active: _Active) -> None:
        """Run the handler, to its end if it does not suspend."""
        active.registration.calls += 1
        active.began_ns = clock_ns()
        if active.call.deadline <= self._loop.time():
            self._fail(active, Code.TIMED_OUT, "the request arrived after its deadline")
            return
        enter(active.call.trace)
        try:
            result = active.registration.handler(active.call)
            if type(result) is not Reply:
                if not isinstance(result, asyncio.Future):
                    result = eager.start(cast(Any, result), self._loop)
                if isinstance(result, asyncio.Future):
                    result.add_done_callback(partial(self._on_task_done, active))
        except BaseException as error:
            self._fail_with(active, error)
            return
        finally:
            enter(0)
        if isinstance(result, asyncio.Future):
            active.task = result
            if self._sweep is None:
                self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._on_sweep)
            self._balance()
            return
        self._reply(active, result)

    def _on_task_done(self, active: _Active, task: asyncio.Future[Reply]) -> None:
        active.task = None
        if task.cancelled():
            if active.expired:
                self._fail(active, Code.TIMED_OUT, "the request's deadline passed while it was worked on")
            else:
                self._fail(active, Code.CANCELLED, "the request was cancelled by the server")
            return
        error = task.exception()
        if error is not None:
            self._fail_with(active, error)
        else:
            self._reply(active, task.result())

    def _reply(self, active: _Active, reply: Any) -> None:
        method = active.registration.method
        if type(reply) is not Reply:
            logger.error("handler of %s returned %r, not a Reply", method.name, reply)
            self._fail(active, Code.INTERNAL, f"{method.name} failed; see the server's log")
            return
        body = encode(reply.body)
        release = reply.release
        if not reply.send:
            if release is not None:
                release()
            if len(body) > BODY_BYTES_MAX:
                self._fail(active, Code.INTERNAL, f"the answer's record of {len(body)} bytes is over the bound")
                return
            if not self._lost:
                frame = frames.pack(frames.RESPONSE, method.number, active.number, len(body)) + body
                self._link.send(frame)
            self._finish(active)
            return
        parts, length = payload_parts(reply.send)
        if self._lost or length > PAYLOAD_BYTES_MAX or len(body) > BODY_BYTES_MAX:
            if release is not None:
                release()
            # Not TOO_LARGE, which says that a request was refused: this one was worked on.
            self._fail(active, Code.INTERNAL, f"an answer of {len(body)} and {length} bytes is over the bound")
            return
        active.registration.sent_bytes += length
        frame = frames.pack(frames.RESPONSE, method.number, active.number, len(body), length) + body
        allocated, active.release = active.release, None
        if allocated is not None:
            release = partial(_release_both, release, allocated)
        self._link.send_with_payload(frame, parts, length, release, lengths=getattr(reply.body, "lengths", None))
        self._finish(active)

    def _fail_with(self, active: _Active, error: BaseException) -> None:
        name = active.registration.method.name
        if isinstance(error, EmberError):
            self._fail(active, error.code, error.message)
        elif isinstance(error, asyncio.CancelledError):
            self._fail(active, Code.CANCELLED, f"{name} was cancelled by the server")
        else:
            self._service.defects_log.line(logging.ERROR, "%s of %s failed", name, self._link.name, error=error)
            self._fail(active, Code.INTERNAL, f"{name} failed: {type(error).__name__}; see the server's log")
            if not isinstance(error, Exception):
                raise error

    def _fail(self, active: _Active, code: Code, message: str) -> None:
        active.registration.errors += 1
        active.error = code
        self._send_error(active.number, active.registration.method.number, code, message)
        self._finish(active)

    def _finish(self, active: _Active) -> None:
        """The request is over."""
        if active.began_ns:
            elapsed_ns = clock_ns() - active.began_ns
            registration = active.registration
            latency = registration.latency
            latency.buckets[elapsed_ns.bit_length()] += 1
            latency.total_ns += elapsed_ns
            if elapsed_ns > self._service.slow_operations.threshold_ns and not registration.waits:
                self._note_slow(active, elapsed_ns)
        self._active.discard(active)
        self._active_bytes -= active.payload_bytes
        active.payload_bytes = 0
        _release(active)
        if self._paused or self._link.unsent_bytes > self._service.bytes_in_flight_max:
            self._balance()
        if self._closing or self._last or self._lost:
            self._settle()

    def _note_slow(self, active: _Active, elapsed_ns: int) -> None:
        call = active.call
        hello = call.session.hello
        self._service.slow_operations.note(
            active.registration.method.name,
            elapsed_ns,
            trace=call.trace,
            about=about(call.request),
            times_ns=call.times() if call.times is not None else None,
            peer=f"{hello.role} {call.session.address}",
            error=active.error.name if active.error is not None else "",
        )

    def _on_sweep(self) -> None:
        """Cancel what nobody waits for any more."""
        self._sweep = None
        now = self._loop.time()
        working = False
        for active in self._active:
            if active.task is not None:
                working = True
                if active.call.deadline <= now and not active.expired:
                    active.expired = True
                    active.task.cancel()
        if working:
            self._sweep = self._loop.call_later(SWEEP_INTERVAL_S, self._on_sweep)

    # The link

    def _send_error(self, number: int, method: int, code: Code, message: str) -> None:
        sent = self._service.error_frames
        sent[method, code] = sent.get((method, code), 0) + 1
        self._send_body(frames.ERROR, method, number, encode(ErrorBody(code.value.number, message)))

    def _send_body(self, kind: int, method: int, number: int, body: bytes) -> None:
        if not self._lost:
            self._link.send(frames.pack(kind, method, number, len(body)) + body)

    def _balance(self) -> None:
        """Read only while there is room for more work."""
        service = self._service
        bytes_max = service.bytes_in_flight_max
        # A payload that is landing is let in to its end: pausing within it could wait for itself. Reading goes on only
        # when half of the unsent is gone, so that it does not start and stop with every reply.
        full = self._landing is None and (
            len(self._active) >= service.calls_in_flight_max
            or self._active_bytes >= bytes_max
            or self._link.unsent_bytes > (bytes_max // 2 if self._paused else bytes_max)
        )
        if full != self._paused and not self._lost:
            self._paused = full
            if full:
                self._link.pause_reading()
            else:
                self._link.resume_reading()

    def _settle(self) -> None:
        """Take the next step towards the end, once one is due."""
        if self._active:
            return
        if self._lost:
            self._stop_patience()
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            ended, self._ended = self._ended, _nothing
            ended(self)
        elif self._last:
            self._stop_patience()
            self._link.close()
        elif self._closing and self._patience is None:
            # A request may be on its way that was sent before our goodbye was read: it is refused, not lost.
            self._patience = self._loop.call_later(GOODBYE_PATIENCE_S, self._link.close)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _nothing(connection: ServingConnection) -> None:
    pass


def _release(active: _Active) -> None:
    release, active.release = active.release, None
    if release is not None:
        release()


def _release_both(first: Callable[[], None] | None, second: Callable[[], None]) -> None:
    if first is not None:
        first()
    second()
