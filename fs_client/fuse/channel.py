"""The kernel's requests on the event loop: /dev/fuse is read, requests are handed over, answers are written.

Invariants:

* Every request that has an answer gets exactly one: the handler's, or the channel's own at an interrupt, a deadline, a
  defect or the end.
* Only requests that wait for something are remembered; what is answered at once leaves nothing behind.
* Memory for data of WRITEs is bounded. While all of it is in use nothing is read, for at most one deadline; after
  that WRITEs are refused and everything else goes on.
* The loop never waits inside a write to the device: answers do not block, notifications may and have their own thread.

Used from the thread of the event loop. Concurrency: docs/concurrency/fuse.md.
"""

import asyncio
import contextlib
import enum
import errno
import logging
import mmap
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import CoroutineType
from typing import Any

from fs_client.fuse import abi, answers, requests
from fs_client.fuse.abi import IN_HEADER, OPCODE_MAX, OUT_HEADER, ROOT_NODE, UNANSWERED, WRITE_HEAD_SIZE, Opcode
from fs_client.fuse.counters import ChannelCounters, is_failure
from fs_client.fuse.in_work import InWork
from fs_client.fuse.kernel_request import CHANGING, Handler, Later, Request, Result
from fs_client.fuse.negotiation import Negotiated, Wanted, negotiate
from fs_client.fuse.notifier import Notifiers
from fs_client.fuse.operation_log import OperationLog
from fs_client.fuse.payloads import Payload, PayloadMemory
from fs_client.fuse.requests import ProtocolError
from fs_common import eager, tracing
from fs_common.limits import MIB
from fs_common.slow_operations import SlowOperations

logger = logging.getLogger(__name__)

REQUESTS_PER_TURN = 64
"""Others on the loop wait that long: less than a millisecond of requests that are answered at once."""
PAYLOAD_BYTES_MAX = 128 * MIB
TIMEOUT_S = 30.0
IOVEC_MAX = 1024
ERRNO_END = 512
"""From here on numbers are the kernel's own."""
_GONE = frozenset({errno.ENODEV, errno.ENOTCONN, errno.ECONNABORTED, errno.EPERM})
"""The whole connection: the next read tells why."""

_WITH_DATA = frozenset({int(Opcode.WRITE), int(Opcode.NOTIFY_REPLY)})
_HEADER_SIZE = IN_HEADER.size
_ANSWER_SIZE = OUT_HEADER.size


class End(enum.Enum):
    """Why there will be no more requests."""

    UNMOUNTED = "unmounted"
    """Also by force, while programs waited for it."""
    ABORTED = "aborted"
    """Through /sys/fs/fuse/connections, or because the kernel gave up."""
    BROKEN = "broken"
    """The device gave an error that it should not give; the log has it."""


class Channel:
    """One mounted file system's connection to the kernel. Owns the descriptor until `close` or `detach`."""

    def __init__(
        self,
        descriptor: int,
        handlers: Mapping[int, Handler],
        *,
        wanted: Wanted | None = None,
        negotiated: Negotiated | None = None,
        timeout_s: float = TIMEOUT_S,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
        max_pages_limit: int = 256,
        on_end: Callable[[End], None] | None = None,
        progress: Callable[[], float] = lambda: 0.0,
        log: OperationLog | None = None,
        root: int = ROOT_NODE,
    ) -> None:
        """`descriptor`: /dev/fuse, mounted or about to be. `negotiated`: INIT is over, by a process before this one.

        `timeout_s`: how long a request may wait without progress before its caller gets ETIMEDOUT; `progress`: when
        there was some last, on the loop's clock (`in_work`). A handler's `OSError` is answered with its errno, any
        other exception is logged and answered with EIO; an operation without handler
        with ENOSYS. `root`: the inode that handlers know the root of the mount by; the kernel's number for it is
        always 1. A handler that returns a coroutine has its first step run at once; what is left of it is a task.
        """
        self._loop = asyncio.get_running_loop()
        self._file = descriptor
        os.set_blocking(descriptor, False)
        self._root = root
        self._wanted = wanted or Wanted()
        self._timeout_s = timeout_s
        self._max_pages_limit = max_pages_limit
        self._on_end = on_end
        self.turn_done: Callable[[], None] | None = None
        """Called after each turn in which requests came: where what was gathered is sent."""
        self.unwanted: Callable[[Request, Result], None] | None = None
        """Told the result of a handler whose request the channel had answered: a file it opened has to be closed."""
        self.memory_wanted: Callable[[], None] | None = None
        """Called when reading pauses until payloads are released: who gathers writes sends them now."""
        self.counters = ChannelCounters()
        self._log = log or OperationLog(SlowOperations(0))
        own: dict[int, Handler] = {Opcode.INIT: self._on_init, Opcode.INTERRUPT: self._on_interrupt}
        # Plain numbers: an enumeration's members hash and compare in Python.
        self._handlers = {
            int(opcode): handler
            for opcode, handler in (dict.fromkeys(UNANSWERED, _ignore) | dict(handlers) | own).items()
        }
        self._head = bytearray(WRITE_HEAD_SIZE)
        """Where a message's first bytes land: a WRITE's data begins right behind it, in memory of its own."""
        write_bytes_max = negotiated.max_write if negotiated is not None else self._wanted.max_write
        room = max(write_bytes_max, abi.READ_BUFFER_MIN)
        self._memory = PayloadMemory(room, payload_bytes_max, self._on_memory)
        self._scratch = memoryview(mmap.mmap(-1, room))
        """Room for everything but WRITEs while there is none for them. Costs nothing before it is used."""
        self._refusing = False
        """There was no room for WRITEs for a whole deadline: they are refused until there is."""
        self._starved: asyncio.TimerHandle | None = None
        """Set while reading pauses for want of room."""
        self._in_work = InWork(self._loop, timeout_s, self._give_up, progress)
        self._tasks: set[asyncio.Task[None]] = set()
        """Also of requests that are answered and still carried through."""
        self._reading = False
        self._paused = False
        self._ended: End | None = None
        self._closed = False
        self._notifiers = Notifiers(descriptor, self._loop, self.counters)
        self.negotiated = negotiated
        """None until the kernel's INIT is answered."""
        self._ready: asyncio.Future[Negotiated] = self._loop.create_future()
        if negotiated is not None:
            self._ready.set_result(negotiated)

    # Life

    def start(self) -> None:
        """Begin to read requests."""
        self._watch()

    async def ready(self) -> Negotiated:
        """INIT is answered. Raises `KernelTooOld`, and `ConnectionError` if the mount ended before."""
        return await asyncio.shield(self._ready)

    @property
    def in_work(self) -> int:
        """Requests that are not answered yet."""
        return len(self._in_work)

    @property
    def ended(self) -> End | None:
        return self._ended

    async def caught_up(self) -> None:
        """Everything that the kernel had to say before, the ends of open files too, was handed to its handler.

        The kernel keeps requests that nobody waits for back while as many as were agreed have no answer: with fewer in
        work and nothing to read there are none.
        """
        if self._ended is None and not self._closed:
            await self._in_work.caught_up(self._look_again)

    def _look_again(self) -> None:
        self._loop.call_soon(lambda: self._on_readable() if self._reading else None)

    def pause(self) -> None:
        """Read no more requests; those in work go on. The kernel keeps the others."""
        self._paused = True
        self._unwatch()

    def resume(self) -> None:
        self._paused = False
        self._watch()

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop reading, let what is in work end for so long, cancel the rest, close the descriptor.

        Requests without an answer by then get EIO. Where the file system is still mounted every later use of it fails
        with ENOTCONN.
        """
        if not self._closed:
            await self._finish(grace_s, answer=True)
            os.close(self._file)

    async def detach(self, grace_s: float = 5.0) -> int:
        """Stop as `close` does, but give the descriptor, open, to the caller.

        Requests that are still in work are left without an answer: who reads the descriptor next can have them sent
        again (`notify_resend`).
        """
        await self._finish(grace_s, answer=False)
        return self._file

    async def _finish(self, grace_s: float, *, answer: bool) -> None:
        # What a notification waits for may be the answer to a request that is not read yet.
        await self._notifiers.close(grace_s)
        self.pause()
        self._closed = True
        self._starve_no_more()
        if answer:
            for request in self._in_work.requests():
                if request.open_ended:
                    self._give_up(request, errno.EIO)
        deadline = self._loop.time() + grace_s
        await self._in_work.bounded_ended(grace_s)
        if tasks := self._carried_through():
            await asyncio.wait(tasks, timeout=max(0.0, deadline - self._loop.time()))
        for request in self._in_work.requests():
            if answer:
                self.fail(request, errno.EIO)
            request.answered = True
        self._in_work.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in left:
                logger.error("%r does not end", task)
        self._not_ready(ConnectionError(errno.ECONNABORTED, "the channel was closed"))

    def _carried_through(self) -> list[asyncio.Task[None]]:
        """Tasks of requests that are answered already."""
        waiting = {request.task for request in self._in_work.requests()}
        return [task for task in self._tasks if task not in waiting]

    def _end(self, reason: End) -> None:
        """There are no more requests, and nobody waits for answers."""
        if self._ended is not None:
            return
        self._ended = reason
        self._unwatch()
        self._notifiers.stop()
        self._starve_no_more()
        for request in self._in_work.requests():
            request.answered = True
            if request.task is not None and (request.open_ended or request.opcode not in CHANGING):
                request.task.cancel()
        self._in_work.clear()
        self._not_ready(ConnectionError(errno.ENOTCONN, f"the mount ended before it began: {reason.value}"))
        if self._on_end is not None:
            self._on_end(reason)

    def _not_ready(self, error: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # whether or not anybody asks for it

    # Reading

    def _watch(self) -> None:
        if not (self._reading or self._paused or self._closed or self._ended or self._starved):
            self._reading = True
            self._loop.add_reader(self._file, self._on_readable)
            if self._in_work.catching_up:
                self._look_again()

    def _unwatch(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._file)

    def _on_readable(self) -> None:
        """One turn.

        Flat, because it runs for every request: at 100,000 a second each has 10 microseconds, of which the kernel takes
        seven. `python -m benchmarks.fuse_requests` measures what is left.
        """
        readv = os.readv
        writev = os.writev
        unpack = IN_HEADER.unpack_from
        pack = OUT_HEADER.pack
        clock = time.perf_counter_ns
        file = self._file
        head = self._head
        root = self._root
        memory = self._memory
        handlers = self._handlers
        operations = self.counters.operations
        tell_ns = self._log.tell_ns
        count = 0
        began = clock()
        try:
            for _ in range(REQUESTS_PER_TURN):
                room = memory.room
                if room is None:
                    room = self._starve()
                    if room is None:
                        break
                try:
                    size = readv(file, (head, room))
                except BlockingIOError:
                    if self._in_work.catching_up and self.negotiated is not None:
                        self._in_work.nothing_to_read(self.negotiated.max_background)
                    break
                except OSError as error:
                    if not self._survives(error):
                        break
                    continue
                if size < _HEADER_SIZE:
                    self._on_broken(size)
                    break
                length, opcode, unique, node, uid, gid, pid, extlen = unpack(head)
                data = None
                if opcode in _WITH_DATA and size >= WRITE_HEAD_SIZE:
                    body = head[_HEADER_SIZE:]
                    if room is self._scratch:
                        self._fail_now(unique, opcode, errno.ETIMEDOUT, began)
                        began = clock()
                        continue
                    data = memory.take(size - WRITE_HEAD_SIZE)
                elif size <= WRITE_HEAD_SIZE:
                    body = head[_HEADER_SIZE:size]
                else:
                    body = head[_HEADER_SIZE:] + room[: size - WRITE_HEAD_SIZE]
                count += 1
                if node == ROOT_NODE:
                    node = root
                handler = handlers.get(opcode)
                if handler is None or length != size:
                    self._refuse(unique, opcode, length, size, data, began)
                    began = clock()
                    continue
                request = Request(unique, opcode, node, uid, gid, pid, body, data, began)
                if extlen:
                    request.split_extensions(extlen * 8)
                try:
                    result: Any = handler(request)
                    kind = type(result)
                    if kind is CoroutineType:
                        self._begin(request, result)
                        began = clock()
                        continue
                except BaseException as error:
                    self._fail_with(request, error)
                    began = clock()
                    continue
                if kind is Later:
                    if not request.answered:
                        self._in_work.add(request)
                    began = clock()
                    continue
                request.answered = True
                if kind is memoryview:
                    try:
                        writev(file, (pack(_ANSWER_SIZE + len(result), 0, unique), result))
                    except OSError as error:
                        self._on_write_failed(error, unique, opcode)
                else:
                    self._write(unique, opcode, result)
                if request.data is not None:
                    request.take_data().release()
                now = clock()
                counters = operations[opcode]
                elapsed = now - began
                counters.count += 1
                bucket = elapsed.bit_length()
                counters.sums_ns[bucket] += elapsed
                counters.buckets[bucket] += 1
                if elapsed > tell_ns:
                    self._log.tell(request, elapsed, 0)
                began = now
        finally:
            self.counters.turns += 1
            if count and self.turn_done is not None:
                self.turn_done()

    def _survives(self, error: OSError) -> bool:
        """Whether the device goes on after this error of a read."""
        code = error.errno
        if code == errno.ENOENT or code == errno.EINTR:
            # The request was taken back while it was handed over.
            return True
        if code == errno.ENODEV:
            self._end(End.UNMOUNTED)
        elif code == errno.ECONNABORTED:
            self._end(End.ABORTED)
        else:
            logger.error("reading /dev/fuse failed: %s", error.strerror)
            self._end(End.BROKEN)
        return False

    def _on_broken(self, size: int) -> None:
        if size:
            logger.error("/dev/fuse gave %d bytes, less than a header", size)
        self._end(End.BROKEN)

    def _refuse(self, unique: int, opcode: int, length: int, size: int, data: Payload | None, began: int) -> None:
        """A message that no handler gets."""
        if data is not None:
            data.release()
        if length != size:
            logger.error("/dev/fuse gave %d bytes of a message of %d", size, length)
            self._fail_now(unique, opcode, errno.EIO, began)
        else:
            self._fail_now(unique, opcode, errno.ENOSYS, began)

    # Memory

    def _starve(self) -> memoryview | None:
        """There is no room for a WRITE: what to read into, or None to read nothing."""
        if self._refusing:
            return self._scratch
        if self._starved is None:
            self.counters.starved += 1
            self._unwatch()
            self._starved = self._loop.call_later(self._timeout_s, self._on_starved)
            if self.memory_wanted is not None:
                self.memory_wanted()
        return None

    def _on_starved(self) -> None:
        left_s = self._in_work.progress() + self._timeout_s - self._loop.time()
        if left_s > 0:
            self._starved = self._loop.call_later(left_s, self._on_starved)
            return
        logger.error("no written data was taken for %.0f s: writes are refused, nothing else is", self._timeout_s)
        self._starved = None
        self._refusing = True
        self._watch()

    def _on_memory(self) -> None:
        self._refusing = False
        self._starve_no_more()
        self._watch()

    def _starve_no_more(self) -> None:
        if self._starved is not None:
            self._starved.cancel()
            self._starved = None

    # Requests that take a while

    def _begin(self, request: Request, coroutine: Coroutine[Any, Any, Result]) -> None:
        tracing.enter(request.trace)
        task = eager.start(self._run(request, coroutine), self._loop)
        tracing.enter(0)
        if task is not None:
            request.task = task
            self._tasks.add(task)
            if not request.answered:
                self._in_work.add(request)

    async def _run(self, request: Request, coroutine: Coroutine[Any, Any, Result]) -> None:
        try:
            result = await coroutine
        except OSError as error:
            self._log.failed(request, error)
            self.fail(request, error.errno or errno.EIO)
        except asyncio.CancelledError:
            # Whoever cancels a task has answered before. EINTR would make programs try again for ever.
            self.fail(request, errno.EIO)
            raise
        except Exception:
            self._log_defect(request)
            self.fail(request, errno.EIO)
        else:
            self.answer(request, result)
        finally:
            if request.task is not None:
                self._tasks.discard(request.task)
            if request.data is not None:
                request.take_data().release()

    def _give_up(self, request: Request, code: int) -> None:
        """Answer in the handler's place."""
        self.counters.gave_up += 1
        task = request.task
        self.fail(request, code)
        if task is not None and (request.open_ended or request.opcode not in CHANGING):
            task.cancel()

    def _on_interrupt(self, request: Request) -> None:
        if self._in_work.interrupt(requests.parse_interrupt(request.body)):
            self.counters.interrupts += 1

    def _on_init(self, request: Request) -> bytes:
        try:
            answer, agreed = negotiate(
                requests.parse_init(request.body),
                self._wanted,
                page_size=mmap.PAGESIZE,
                max_pages_limit=self._max_pages_limit,
            )
        except ProtocolError as error:
            self._not_ready(error)
            raise OSError(errno.EPROTO, str(error)) from error
        if agreed is not None:
            self.negotiated = agreed
            if not self._ready.done():
                self._ready.set_result(agreed)
        return answer

    # Answers

    def answer(self, request: Request, result: Result) -> None:
        """The request is done. Once for each request whose handler gave `LATER`; the channel does it for the others."""
        if request.answered:
            if self.unwanted is not None:
                self.unwanted(request, result)
            return
        request.answered = True
        self._in_work.remove(request)
        self._write(request.unique, request.opcode, result)
        elapsed = self._count(request.opcode, request.began_ns, failed=False)
        if elapsed > self._log.tell_ns:
            self._log.tell(request, elapsed, 0)
        if request.task is None and request.data is not None:
            request.take_data().release()

    def fail(self, request: Request, code: int) -> None:
        """The request ends with this errno, unless it has an answer already."""
        if request.answered:
            return
        request.answered = True
        self._in_work.remove(request)
        elapsed = self._fail_now(request.unique, request.opcode, code, request.began_ns)
        if elapsed > self._log.tell_ns:
            self._log.tell(request, elapsed, code)
        if request.task is None and request.data is not None:
            request.take_data().release()

    def _fail_with(self, request: Request, error: BaseException) -> None:
        """A handler raised before it waited for anything."""
        if isinstance(error, OSError):
            self._log.failed(request, error)
            self.fail(request, error.errno or errno.EIO)
            return
        if isinstance(error, asyncio.CancelledError):
            self.fail(request, errno.EIO)
            return
        self._log_defect(request)
        self.fail(request, errno.EIO)
        if not isinstance(error, Exception):
            raise error

    def _log_defect(self, request: Request) -> None:
        logger.exception("%s of node %d failed by a defect", request.name, request.node)

    def _fail_now(self, unique: int, opcode: int, code: int, began: int) -> int:
        """Returns how long it took, in ns."""
        if opcode not in UNANSWERED:
            if not 0 < code < ERRNO_END:
                code = errno.EIO
            try:
                os.write(self._file, OUT_HEADER.pack(_ANSWER_SIZE, -code, unique))
            except OSError as error:
                self._on_write_failed(error, unique, opcode)
        return self._count(opcode, began, failed=is_failure(opcode, code)) if opcode <= OPCODE_MAX else 0

    def _write(self, unique: int, opcode: int, result: Result) -> None:
        try:
            if isinstance(result, bytes):
                os.write(self._file, OUT_HEADER.pack(_ANSWER_SIZE + len(result), 0, unique) + result)
            elif result is None:
                if opcode not in UNANSWERED:
                    os.write(self._file, OUT_HEADER.pack(_ANSWER_SIZE, 0, unique))
            elif isinstance(result, memoryview):
                os.writev(self._file, (OUT_HEADER.pack(_ANSWER_SIZE + len(result), 0, unique), result))
            else:
                parts: list[bytes | memoryview] = [OUT_HEADER.pack(_ANSWER_SIZE + sum(map(len, result)), 0, unique)]
                parts += result
                if len(parts) > IOVEC_MAX:
                    parts = [b"".join(parts)]
                os.writev(self._file, parts)
        except OSError as error:
            self._on_write_failed(error, unique, opcode)

    def _on_write_failed(self, error: OSError, unique: int, opcode: int) -> None:
        """The kernel did not take an answer."""
        if error.errno == errno.ENOENT:
            self.counters.aborted += 1
        elif error.errno not in _GONE:
            logger.error("the kernel refused the answer to %s: %s", _name(opcode), error.strerror)
            # The caller is still there, unless the kernel has ended the request itself: it gets at least an end.
            with contextlib.suppress(OSError):
                os.write(self._file, OUT_HEADER.pack(_ANSWER_SIZE, -errno.EIO, unique))

    def _count(self, opcode: int, began: int, *, failed: bool) -> int:
        counters = self.counters.operations[opcode]
        elapsed = time.perf_counter_ns() - began
        counters.count += 1
        counters.errors += failed
        bucket = elapsed.bit_length()
        counters.sums_ns[bucket] += elapsed
        counters.buckets[bucket] += 1
        return elapsed

    # Notifications

    def _node(self, inode: int) -> int:
        """The kernel's number for it."""
        return ROOT_NODE if inode == self._root else inode

    def notify_inval_inode(self, node: int, offset: int = 0, length: int = 0) -> bool:
        """Cached attributes of `node` are wrong, and its pages from `offset` on (`length` 0: to the end).

        This and the others return at once, and the kernel knows a little later (`notified`). False: too many wait.
        """
        return self._notifiers.waiting.send([answers.notify_inval_inode(self._node(node), offset, length)])

    def notify_inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        """What `name` is in `parent` has to be looked up again. `expire_only`: what is known is kept, where it can."""
        expire_only = expire_only and self.negotiated is not None and self.negotiated.has(abi.INIT_HAS_EXPIRE_ONLY)
        message = answers.notify_inval_entry(self._node(parent), name, expire_only=expire_only)
        return self._notifiers.waiting.send([message])

    async def notify_name(self, parent: int, name: bytes) -> None:
        """The same; the kernel knows on return. Only an answer whose caller has not locked `parent` may wait for it."""
        await self._notifiers.waiting.sent([answers.notify_inval_entry(self._node(parent), name)])

    def notify_delete(self, parent: int, child: int, name: bytes) -> bool:
        """`name` is no more."""
        return self._notifiers.waiting.send([answers.notify_delete(self._node(parent), child, name)])

    def notify_store(self, node: int, offset: int, data: bytes | memoryview) -> bool:
        """Put `data` into the kernel's pages of `node`; its memory is stable until `notified` returns."""
        return self._notifiers.waiting.send(answers.notify_store(node, offset, data))

    @property
    def prunes(self) -> bool:
        """The kernel knows `notify_prune`."""
        return self.negotiated is not None and self.negotiated.minor >= abi.PRUNE_MINOR

    def notify_prune(self, nodes: Sequence[int]) -> bool:
        """Forget these, as far as nobody uses them. What is forgotten comes as FORGET, of the rest nothing."""
        return self._notifiers.waiting.send([answers.notify_prune(nodes)])

    def told(self) -> bool:
        """As `notified`, now."""
        return self._notifiers.waiting.idle

    def notify_resend(self) -> bool:
        """Have all requests sent again that a reader before this one took and did not answer."""
        return self._notifiers.waiting.send([answers.notify_resend()])

    async def notify_attributes(self, node: int) -> None:
        """Cached attributes of `node` are wrong; the kernel knows on return. An answer may wait for it."""
        await self._notifiers.attributes.sent([answers.notify_inval_inode(self._node(node), -1, 0)])

    def invalidate_attributes(self, node: int) -> bool:
        """The same, a little later."""
        return self._notifiers.attributes.send([answers.notify_inval_inode(self._node(node), -1, 0)])

    async def notified(self) -> None:
        """The kernel has taken every notification sent so far, of more than attributes."""
        await self._notifiers.waiting.flushed()


def _ignore(request: Request) -> None:
    """An operation without answer that nobody handles."""


def _name(opcode: int) -> str:
    return Opcode(opcode).name if opcode in Opcode._value2member_map_ else f"operation {opcode}"
