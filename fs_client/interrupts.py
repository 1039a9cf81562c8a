"""Signal handlers of the program, which may raise, and code of the main thread that they must not break into.

Python runs a signal handler in the main thread between any two instructions, and what it raises breaks out of whatever
runs there. The event loop must not be left so: half of a frame would be read or sent, or the loop be "running" for
good. So the main thread runs it only while there is no handler that may raise (`look`): Python's own for SIGINT is
replaced for that time (`InterruptGuard`). Handlers can be set in the main thread alone, so none comes in between.

Used by `fs_client.process`, in the main thread only. Concurrency: docs/concurrency/client.md.
"""

import _signal  # type: ignore[import-not-found]  # `signal` without its enumerations, which take 10 us a call
import enum
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

_NUMBERS: Final = tuple(sorted(int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
_get: Final[Callable[[int], Any]] = _signal.getsignal
_set: Final[Callable[[int, Any], Any]] = _signal.signal
_INTERRUPT: Final = int(signal.SIGINT)


class Handlers(enum.Enum):
    """What may break into the main thread."""

    NONE = "nothing"
    INTERRUPT = "Python's own handler of SIGINT"
    PROGRAM = "handlers of the program"


_seen: tuple[Any, ...] = ()
"""The handlers of all signals at the last `look`."""
_answer = Handlers.NONE
"""What they come to. To look at each takes longer than to compare them."""


def look() -> Handlers:
    """Which handlers there are now. In the main thread."""
    global _seen, _answer
    found = tuple(map(_get, _NUMBERS))
    if found != _seen:
        callables = [handler for handler in found if callable(handler)]
        if not callables:
            answer = Handlers.NONE
        elif callables == [signal.default_int_handler] and _get(_INTERRUPT) is signal.default_int_handler:
            answer = Handlers.INTERRUPT
        else:
            answer = Handlers.PROGRAM
        _answer = answer
        _seen = found
    return _answer


class InterruptGuard:
    """During a call, in place of Python's own handler: SIGINT cancels the call, instead of breaking into whatever code
    runs then, which may be another thread's call. KeyboardInterrupt is raised once the call has ended."""

    __slots__ = ("_interrupted", "cancel")

    def __init__(self) -> None:
        self._interrupted = False
        self.cancel: Callable[[], object] | None = None
        """Set once there is something to cancel."""
        _set(_INTERRUPT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if self.cancel is not None:
            self.cancel()

    def end(self) -> None:
        _set(_INTERRUPT, signal.default_int_handler)
        if self._interrupted:
            raise KeyboardInterrupt


def leave_guard_behind() -> None:
    """In a child that was forked by another thread while the main one was in a call: nobody ends that guard here."""
    if isinstance(getattr(_get(_INTERRUPT), "__self__", None), InterruptGuard):
        _set(_INTERRUPT, signal.default_int_handler)


class Deferred:
    """`with Deferred():` what handlers of the program would do waits for the end of the block, and is raised there.

    For short work, and where the main thread has to run the loop though handlers may raise: when there can be no other
    thread.
    """

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Any]] = []
        """Signal and handler, for those that are replaced or about to be."""
        self._arrived: list[int] = []

    def __enter__(self) -> None:
        try:
            for number in _NUMBERS:
                handler = _get(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    _set(number, self._note)
        except BaseException:
            # One that was not replaced yet has raised.
            self._restore()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._restore()
        finally:
            self._deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number not in self._arrived:
            self._arrived.append(number)

    def _deliver(self) -> None:
        """Every one, also if one raises."""
        if self._arrived:
            try:
                signal.raise_signal(self._arrived.pop(0))
            finally:
                self._deliver()

    def _restore(self) -> None:
        """The last is taken off the list when it has its handler again: what raises here, being back, is only late."""
        try:
            while self._handlers:
                number, handler = self._handlers[-1]
                _set(number, handler)
                self._handlers.pop()
        finally:
            if self._handlers:
                self._restore()
