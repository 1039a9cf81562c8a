"""The event loop behind blocking calls: one for each process, run by whoever needs it.

A blocking call that finds the loop idle runs it in its own thread until the call is done: that saves the two wake-ups
of a hand-over (45 to 55 us here; running uvloop costs 20 us in the main thread and 5 us in another). A call that finds
the loop running gives its coroutine to it and sleeps. When the caller that runs the loop is done and others, or work in
the background, are not, a helper thread goes on running it until nothing is left. The helper is made when it is first
needed and retired before a fork; between such times nothing runs.

Invariants:

* At most one thread runs the loop; `_driven` says whether one does. It changes under `_mutex`.
* Whoever stops running the loop while `_work` is not 0 has woken the helper, which then runs it.
* A blocking call returns or raises only when its coroutine has ended, KeyboardInterrupt included.
* Finalizers only `submit`: they may run anywhere, inside this module and on the loop included.

Fork: a child starts without a loop and makes its own. What it inherits is kept, untouched, so that nothing of it is
ever finalised; its sockets are closed in the child, by putting /dev/null in their place, so that the parent's
connections end when the parent says so. No lock of the parent is used in the child.

Concurrency: docs/concurrency/client.md.
"""

import asyncio
import atexit
import io
import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Protocol, TypeVar

from fs_client.settle import ended

T = TypeVar("T")

logger = logging.getLogger(__name__)

RETIRE_S = 1.0
"""A helper that is given new work while it should retire does that first; a fork waits no longer for it."""


class ShutDown(RuntimeError):
    """The interpreter ends, and all connections are closed."""


class Connected(Protocol):
    """Something with connections that belongs to a loop."""

    def descriptors(self) -> list[int]:
        """File descriptors of its sockets."""

    async def close(self) -> None: ...


class Driver:
    """The loop of one process, and who runs it."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self.connecting = asyncio.Lock()
        """Held on the loop while a file system connects in this process."""
        self.open: set[Connected] = set()
        """What is connected on this loop: closed at exit, abandoned in a child."""
        self._mutex = threading.RLock()
        """Guards the fields below; held for a few instructions only. Reentrant for finalizers."""
        self._driven = False
        """A thread runs the loop, or has been told to."""
        self._helping = False
        """That thread is the helper."""
        self._stop_asked = False
        """The helper's run of the loop will end. Asked once: a second request would end somebody's later run."""
        self._work = 0
        """Coroutines of sleeping callers and of the background that have not ended."""
        self._stopping = False
        self._helper: _Helper | None = None
        self._submitted: set[asyncio.Task[None]] = set()
        """Used on the loop only."""
        self.close_at_exit: weakref.WeakSet[io.IOBase] = weakref.WeakSet()
        """Files open for writing: at exit they are closed like Python's own, so that what is in buffers is stored."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Called by any thread but the one that is running this loop now."""
        running = asyncio._get_running_loop()
        if running is self.loop:
            coroutine.close()
            raise RuntimeError("a blocking EmberFS call was made on EmberFS's own event loop")
        guard = _guard_against_interrupts()
        try:
            with self._mutex:
                if self._stopping:
                    coroutine.close()
                    raise ShutDown("EmberFS has been shut down with the interpreter")
                leads = running is None and not self._driven
                if leads:
                    self._driven = True
                elif not self._enlist():
                    self._work -= 1
                    coroutine.close()
                    raise RuntimeError(
                        "EmberFS needs a thread for calls from another event loop, and none can be started: the"
                        " interpreter ends, or a limit of this machine is reached"
                    )
            return self._lead(coroutine, guard) if leads else self._follow(coroutine, guard)
        finally:
            if guard is not None:
                guard.end()

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run in the background. Called on the loop, which is run until the coroutine has ended."""
        with self._mutex:
            self._work += 1
        task = self.loop.create_task(coroutine)
        task.add_done_callback(self._work_done)
        return task

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run in the background, begun in the order of submission. From anywhere; its errors are its own affair."""
        with self._mutex:
            if self._stopping:
                coroutine.close()
                return
            self._enlist()
        self.loop.call_soon_threadsafe(self._start, coroutine, None)

    # Running the loop in the calling thread

    def _lead(self, coroutine: Coroutine[Any, Any, T], guard: "_InterruptGuard | None") -> T:
        try:
            task = self.loop.create_task(coroutine)
            if guard is not None:
                guard.cancel = task.cancel
            try:
                return self.loop.run_until_complete(task)
            finally:
                if not task.done():
                    # Something broke out of the loop: the call has to end before its memory is free.
                    task.cancel()
                    self.loop.run_until_complete(ended([task]))
        finally:
            alone = False
            with self._mutex:
                if not self._work:
                    self._driven = False
                elif not self._call_helper():
                    self._helping = alone = True
            if alone:
                self._help()

    # Giving work to the thread that runs the loop

    def _follow(self, coroutine: Coroutine[Any, Any, T], guard: "_InterruptGuard | None") -> T:
        waiter = _Waiter()

        def cancel() -> None:
            self.loop.call_soon_threadsafe(waiter.cancel)

        if guard is not None:
            guard.cancel = cancel
        self.loop.call_soon_threadsafe(self._start, coroutine, waiter)
        interrupt: BaseException | None = None
        while True:
            try:
                waiter.ended.acquire()
                break
            except BaseException as error:
                # A signal handler raised: the call has to end before its memory is free.
                interrupt = error
                cancel()
        if interrupt is not None:
            raise interrupt
        assert waiter.task is not None
        result: T = waiter.task.result()
        return result

    def _enlist(self) -> bool:
        """One more coroutine will be given to the loop. Under `_mutex`. False: it stays there until somebody leads."""
        self._work += 1
        if not self._driven:
            self._driven = self._call_helper()
        return self._driven

    def _start(self, coroutine: Coroutine[Any, Any, Any], waiter: "_Waiter | None") -> None:
        task = self.loop.create_task(coroutine)
        if waiter is None:
            self._submitted.add(task)
            task.add_done_callback(self._submitted.discard)
            task.add_done_callback(_forget_error)
        else:
            waiter.task = task
            task.add_done_callback(waiter.wake)
        task.add_done_callback(self._work_done)

    def _work_done(self, _: "asyncio.Task[Any]") -> None:
        with self._mutex:
            self._work -= 1
            if not self._work and self._helping and not self._stop_asked:
                self._stop_asked = True
                self.loop.stop()

    # The helper thread

    def _call_helper(self) -> bool:
        """Under `_mutex`. False: there is none, as no thread can be started; an interpreter that ends refuses (from
        Python 3.12 on)."""
        if self._helper is None:
            try:
                self._helper = _Helper(self._help)
            except RuntimeError:
                return False
        self._helping = True
        self._helper.wake.release()
        return True

    def _help(self) -> None:
        """Run the loop until there is no work."""
        while True:
            self._stop_asked = False
            self.loop.run_forever()
            with self._mutex:
                if not self._work:
                    self._helping = False
                    self._driven = False
                    return

    def retire_helper(self) -> None:
        """End the helper thread if it sleeps or is about to; the next work for one makes another."""
        with self._mutex:
            helper = self._helper
            if helper is None or self._work:
                return
            self._helper = None
        helper.retire()

    # Ends

    def stop(self) -> None:
        """At exit: close files, finish what was submitted, close connections, end the helper, close the loop."""
        for file in list(self.close_at_exit):
            try:
                file.close()
            except Exception as error:
                logger.error("closing %r at exit: %s", getattr(file, "name", file), error)
        self.run(self._close_all())
        with self._mutex:
            self._stopping = True
        self.retire_helper()
        if not self.loop.is_running():
            self.loop.close()

    async def _close_all(self) -> None:
        await ended(list(self._submitted))
        for connected in list(self.open):
            await connected.close()
        self.open.clear()

    def abandon(self) -> None:
        """In a forked child: close the inherited connections without touching anything of the parent's."""
        empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for connected in self.open:
                for descriptor in connected.descriptors():
                    os.dup2(empty, descriptor, inheritable=False)
        finally:
            os.close(empty)


class _Helper:
    """A thread that runs the loop when it is woken."""

    def __init__(self, help_: Callable[[], None]) -> None:
        self.wake = threading.Semaphore(0)
        """Released once for each time that the loop has to be run, and to retire."""
        self._help = help_
        self._retired = False
        self._thread = threading.Thread(target=self._run, name="emberfs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.wake.acquire()
            if self._retired:
                return
            self._help()

    def retire(self) -> None:
        """End the thread as soon as it has nothing to help with, which should be now."""
        self._retired = True
        self.wake.release()
        self._thread.join(RETIRE_S)


class _Waiter:
    """A thread that sleeps until its coroutine has ended."""

    __slots__ = ("ended", "task")

    def __init__(self) -> None:
        self.ended = threading.Lock()
        self.ended.acquire()
        self.task: asyncio.Task[Any] | None = None
        """Set on the loop."""

    def wake(self, _: "asyncio.Task[Any]") -> None:
        self.ended.release()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


class _InterruptGuard:
    """In the main thread, during a call: SIGINT cancels the call, instead of breaking into whatever code runs then,
    which may be another thread's call. KeyboardInterrupt is raised once the call has ended."""

    __slots__ = ("_interrupted", "cancel")

    def __init__(self) -> None:
        self._interrupted = False
        self.cancel: Callable[[], object] | None = None
        """Set once there is something to cancel."""
        signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if self.cancel is not None:
            self.cancel()

    def end(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._interrupted:
            raise KeyboardInterrupt


def _guard_against_interrupts() -> _InterruptGuard | None:
    """None in other threads, and where the program handles SIGINT itself."""
    if threading.get_ident() != threading.main_thread().ident:
        return None
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return None
    return _InterruptGuard()


def _forget_error(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


_current: Driver | None = None
_making = threading.Lock()
"""Held while the driver of this process is made."""
_inherited: list[Driver] = []
"""Of the parent: kept so that nothing of it is finalised here."""


def current() -> Driver | None:
    """The driver of this process, if there is one."""
    return _current


def driver() -> Driver:
    """The driver of this process, made on first use."""
    global _current
    found = _current
    if found is None:
        with _making:
            found = _current
            if found is None:
                found = _current = Driver()
    return found


def _before_fork() -> None:
    # Python warns when a process with several threads forks; a sleeping helper is no reason for that.
    if _current is not None:
        _current.retire_helper()


def _after_fork_in_child() -> None:
    global _current, _making
    _making = threading.Lock()
    inherited, _current = _current, None
    if inherited is not None:
        _inherited.append(inherited)
        inherited.abandon()


def _at_exit() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
