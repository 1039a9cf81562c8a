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
* No signal handler that may raise runs in a thread that runs the loop, or inside `_mutex`: where the program has such,
  its main thread hands all calls to the helper, as mail (`interrupts`).
* Finalizers only `submit`: they may run anywhere, inside this module and on the loop included.

Fork: a child starts without a loop and makes its own. What it inherits is kept, untouched, so that nothing of it is
ever finalised; its sockets are closed in the child, by putting /dev/null in their place, so that the parent's
connections end when the parent says so. No lock of the parent is used in the child.

Concurrency: docs/concurrency/client.md.
"""

import asyncio
import atexit
import enum
import io
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar, assert_never

from fs_client.interrupts import Deferred, Handlers, InterruptGuard, leave_guard_behind, look
from fs_client.settle import ended
from fs_common.tracing import new_operation

P = ParamSpec("P")
T = TypeVar("T")
Begin = Callable[[], Coroutine[Any, Any, T]]

logger = logging.getLogger(__name__)

RETIRE_S = 1.0
"""A helper that is given new work while it should retire does that first; a fork waits no longer for it."""


class ShutDown(RuntimeError):
    """The interpreter ends, and all connections are closed."""


class NoThread(RuntimeError):
    """There is nobody to run the loop."""


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
        self.inherited = False
        """It is the parent's: this is a child."""
        self._helper: _Helper | None = None
        self._mail: deque[_Call] = deque()
        """Calls that are not enlisted yet. Put by the main thread without `_mutex`, taken under it."""
        self._submitted: set[asyncio.Task[None]] = set()
        """Used on the loop only."""
        self.close_at_exit: dict[int, weakref.ref[io.IOBase]] = {}
        """Files open for writing, by number: at exit they are closed like Python's own, so that what is in buffers is
        stored. They are taken out as they are closed, not by callbacks of the references, into which signal handlers
        could raise."""

    def run(self, begin: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `begin(*args, **kwargs)`. Called by any thread but the one that is running this loop now.

        A coroutine is not taken: where a signal handler raises just when there is one, nobody would await it.
        """
        if asyncio._get_running_loop() is self.loop:
            raise RuntimeError("a blocking EmberFS call was made on EmberFS's own event loop")
        call: Begin[T] = partial(begin, *args, **kwargs) if args or kwargs else begin
        if threading.get_ident() != threading.main_thread().ident:
            return self._run(call, None)
        match look():
            case Handlers.NONE:
                return self._run(call, None)
            case Handlers.INTERRUPT:
                guard = InterruptGuard()
                try:
                    return self._run(call, guard)
                finally:
                    guard.end()
            case Handlers.PROGRAM:
                if self._helper is not None or self._make_helper():
                    return self._send(call)
                with Deferred():
                    return self._run(call, None)
            case unknown:
                assert_never(unknown)

    def _run(self, begin: "Begin[T]", guard: InterruptGuard | None) -> T:
        """In a thread that no signal handler breaks into."""
        with self._mutex:
            if self._stopping:
                raise _shut_down()
            leads = not self._driven and asyncio._get_running_loop() is None
            if leads:
                self._driven = True
            elif not self._enlist():
                self._work -= 1
                raise _no_thread()
        return self._lead(begin, guard) if leads else self._follow(begin, guard)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run in the background. Called on the loop, which is run until the coroutine has ended."""
        with self._mutex:
            self._work += 1
        task = self.loop.create_task(coroutine)
        task.add_done_callback(self._work_done)
        return task

    def submit(self, begin: Callable[P, Coroutine[Any, Any, None]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run `begin(*args, **kwargs)` in the background, begun in the order of submission. From anywhere; its errors
        are its own affair."""
        call = _Call(partial(begin, *args, **kwargs), waits=False)
        if (
            threading.get_ident() == threading.main_thread().ident
            and look() is Handlers.PROGRAM
            and not self._stopping
            and (self._helper is not None or self._make_helper())
        ):
            self._post(call)
            return
        with self._mutex:
            if self._stopping:
                return
            self._enlist()
        self.loop.call_soon_threadsafe(self._start, call)

    # Running the loop in the calling thread

    def _lead(self, begin: "Begin[T]", guard: InterruptGuard | None) -> T:
        try:
            task = self.loop.create_task(begin(), context=new_operation())
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

    def _follow(self, begin: "Begin[T]", guard: InterruptGuard | None) -> T:
        call = _Call(begin)
        if guard is not None:
            guard.cancel = lambda: self.loop.call_soon_threadsafe(call.cancel)
        self.loop.call_soon_threadsafe(self._start, call)
        call.wait()
        result: T = call.result()
        return result

    def _enlist(self) -> bool:
        """One more coroutine will be given to the loop. Under `_mutex`. False: it stays there until somebody leads."""
        self._work += 1
        if not self._driven:
            self._driven = self._call_helper()
        return self._driven

    def _start(self, call: "_Call") -> None:
        task = call.task = self.loop.create_task(call.whole(), context=new_operation())
        if call.cancelled:
            task.cancel()
        if call.waits:
            task.add_done_callback(call.wake)
        else:
            self._submitted.add(task)
            task.add_done_callback(self._submitted.discard)
            task.add_done_callback(_forget_error)
        task.add_done_callback(self._work_done)

    def _work_done(self, _: "asyncio.Task[Any]") -> None:
        with self._mutex:
            self._work -= 1
            if not self._work and self._helping and not self._stop_asked:
                self._stop_asked = True
                self.loop.stop()

    # Mail: calls of a thread that signal handlers break into

    def _send(self, begin: "Begin[T]") -> T:
        """Let the helper thread do it. A handler that raises ends the call, which is waited for; then that is raised.

        Between any two instructions here a handler may raise. So each step may be left undone, and is repeated:
        `_post` makes no difference the second time. The second loop is for a handler that raises when the first one's
        exception has been taken, which is outside of the `try` around the wait.
        """
        if self._stopping:
            raise _shut_down()
        call = _Call(begin)
        interrupt: BaseException | None = None
        try:
            while True:
                try:
                    self._await(call, interrupt is not None)
                    break
                except NoThread:
                    raise
                except BaseException as error:
                    interrupt = error
        except NoThread:
            raise
        except BaseException as error:
            interrupt = error
            while True:
                try:
                    self._await(call, True)
                    break
                except NoThread:
                    raise
                except BaseException as another:
                    interrupt = another
        if interrupt is not None:
            call.forget()
            raise interrupt
        result: T = call.result()
        return result

    def _await(self, call: "_Call", cancel: bool) -> None:
        if cancel:
            call.cancelled = True
            self.loop.call_soon_threadsafe(call.cancel)
        if not call.begun:
            self._post(call)
        call.wait()

    def _post(self, call: "_Call") -> None:
        """Give a call to whoever runs the loop, or has the helper run it. May break off anywhere, and be repeated."""
        self._mail.append(call)
        while True:
            helper = self._helper
            if helper is None:
                # It was retired before a fork by another thread.
                if not self._make_helper():
                    with self._mutex:
                        if not call.begun:
                            call.begun = True
                            raise _no_thread()
                continue
            helper.bell.put(_Bell.MAIL)
            if self._helper is helper:
                break
        # The helper hears its bell only when it is done with running the loop; others, running it, have none.
        self.loop.call_soon_threadsafe(self._take_mail)

    def _opened_mail(self) -> list["_Call"]:
        """Under `_mutex`: all calls that were posted, enlisted now, each once."""
        opened = []
        while self._mail:
            call = self._mail.popleft()
            if not call.begun:
                call.begun = True
                self._work += 1
                opened.append(call)
        return opened

    def _take_mail(self) -> None:
        """On the loop."""
        with self._mutex:
            for call in self._opened_mail():
                self.loop.call_soon(self._start, call)

    def _help_with_mail(self) -> None:
        """On the helper."""
        with self._mutex:
            opened = self._opened_mail()
            for call in opened:
                self.loop.call_soon_threadsafe(self._start, call)
            if not opened or self._driven:
                return
            self._driven = self._helping = True
        self._help()

    # The helper thread

    def _make_helper(self) -> bool:
        """False: there is none, as no thread can be started; an interpreter that ends refuses (from Python 3.12 on)."""
        if threading.get_ident() != threading.main_thread().ident:
            return self._started_helper()
        with Deferred():
            return self._started_helper()

    def _started_helper(self) -> bool:
        with self._mutex:
            if self._helper is None:
                try:
                    self._helper = _Helper(self._help, self._help_with_mail)
                except RuntimeError:
                    return False
            return True

    def _call_helper(self) -> bool:
        """Under `_mutex`. False: there is none."""
        if not self._started_helper():
            return False
        assert self._helper is not None
        self._helping = True
        self._helper.bell.put(_Bell.LOOP)
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

    @property
    def usable(self) -> bool:
        """It is this process's own, and the end is not here. Asked by finalizers: names of modules may be gone."""
        return not self.inherited and not self._stopping

    def stop(self) -> None:
        """At exit: close files, finish what was submitted, close connections, end the helper, close the loop.

        A signal handler that raises ends the step it breaks into; the first such is raised in the end.
        """
        interrupt: BaseException | None = None
        for reference in list(self.close_at_exit.values()):
            file = reference()
            try:
                if file is not None:
                    file.close()
            except Exception as error:
                logger.error("closing %r at exit: %s", getattr(file, "name", file), error)
            except BaseException as error:
                interrupt = interrupt or error
        for _ in range(2):
            try:
                self.run(self._close_all)
                break
            except BaseException as error:
                # What is closed stays closed; the rest gets a second try.
                interrupt = interrupt or error
        with self._mutex:
            self._stopping = True
        self.retire_helper()
        if not self.loop.is_running():
            self.loop.close()
        if interrupt is not None:
            raise interrupt

    async def _close_all(self) -> None:
        await ended(list(self._submitted))
        for connected in list(self.open):
            await connected.close()
        self.open.clear()

    def abandon(self) -> None:
        """In a forked child: close the inherited connections without touching anything of the parent's."""
        self.inherited = True
        empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for connected in self.open:
                for descriptor in connected.descriptors():
                    os.dup2(empty, descriptor, inheritable=False)
        finally:
            os.close(empty)


class _Bell(enum.Enum):
    """What the helper is woken for."""

    LOOP = "run the loop, which has been given to it"
    MAIL = "look for mail"
    RETIRE = "end"


class _Helper:
    """A thread that runs the loop when it is woken."""

    def __init__(self, help_: Callable[[], None], help_with_mail: Callable[[], None]) -> None:
        self.bell: SimpleQueue[_Bell] = SimpleQueue()
        """Rung from anywhere: a put into it is one step for signal handlers and finalizers, and never blocks."""
        self._help = help_
        self._help_with_mail = help_with_mail
        self._thread = threading.Thread(target=self._run, name="emberfs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            match self.bell.get():
                case _Bell.LOOP:
                    self._help()
                case _Bell.MAIL:
                    self._help_with_mail()
                case _Bell.RETIRE:
                    return
                case unknown:
                    assert_never(unknown)

    def retire(self) -> None:
        """End the thread as soon as it has nothing to help with, which should be now."""
        self.bell.put(_Bell.RETIRE)
        self._thread.join(RETIRE_S)


class _Call:
    """Work that is given to whoever runs the loop, and perhaps a thread that sleeps until it has ended."""

    __slots__ = ("_begin", "_bell", "_ended", "_error", "_result", "begun", "cancelled", "task", "waits")

    def __init__(self, begin: "Begin[Any]", *, waits: bool = True) -> None:
        self._begin = begin
        self.waits = waits
        self._ended = False
        self._bell = threading.Lock()
        """Released when it has ended."""
        self._bell.acquire()
        self.begun = False
        """It was taken out of the mail. Set under the driver's mutex."""
        self.cancelled = False
        self.task: asyncio.Task[Any] | None = None
        """While it goes on. Used on the loop only: where a task dies code of asyncio runs, into which a signal handler
        of the caller's thread could raise."""
        self._result: Any = None
        self._error: BaseException | None = None

    async def whole(self) -> Any:
        """What is begun wrongly fails like what fails later."""
        return await self._begin()

    def wake(self, task: "asyncio.Task[Any]") -> None:
        # Nothing is raised here: a traceback would tie the task to this call until the collector comes, anywhere.
        if task.cancelled():
            self._error = asyncio.CancelledError()
        else:
            self._error = task.exception()
            if self._error is None:
                self._result = task.result()
        self.task = None
        self._ended = True
        self._bell.release()

    def wait(self) -> None:
        """Until it has ended. May be repeated: a signal handler may raise when the lock has just been acquired."""
        if not self._ended:
            self._bell.acquire()

    def cancel(self) -> None:
        """On the loop."""
        if self.task is not None:
            self.task.cancel()

    def forget(self) -> None:
        """Its outcome interests nobody; an error refers to this."""
        self._error = None

    def result(self) -> Any:
        """After it has ended."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        return self._result


def _shut_down() -> ShutDown:
    return ShutDown("EmberFS has been shut down with the interpreter")


def _no_thread() -> NoThread:
    return NoThread(
        "EmberFS needs a thread for calls from another event loop, and none can be started: the interpreter ends, or a"
        " limit of this machine is reached"
    )


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
_making = threading.RLock()
"""Held while the driver of this process is made. Reentrant for signal handlers."""
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
                made = Driver()
                found = _current = _current or made
    return found


def _before_fork() -> None:
    # Python warns when a process with several threads forks; a sleeping helper is no reason for that.
    if _current is not None:
        _current.retire_helper()


def _after_fork_in_child() -> None:
    global _current, _making
    _making = threading.RLock()
    leave_guard_behind()
    inherited, _current = _current, None
    if inherited is not None:
        _inherited.append(inherited)
        inherited.abandon()


def _at_exit() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
