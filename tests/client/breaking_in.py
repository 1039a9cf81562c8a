"""Exceptions at a chosen place in a module, where a signal handler may raise them.

CPython looks for signals when a function begins, when a loop goes back, and after calls.
"""

import dis
import inspect
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


class Interrupted(Exception):
    pass


_LOOKS = frozenset(dis.opmap[name] for name in ("RESUME", "JUMP_BACKWARD", "CALL", "CALL_FUNCTION_EX"))


class BreakingIn:
    """`with` it, code of these modules in this thread raises `Interrupted` when it comes to such a place for the n-th
    time, once. What runs on the loop is left alone: no signal handler breaks in there. So is what finalizers do."""

    def __init__(self, place: int, *modules: ModuleType) -> None:
        self.left = place
        self.happened = False
        self._last: dict[FrameType, int] = {}
        """The last instruction of each frame."""
        self._files = {module.__file__ for module in modules}
        self._old: Any = None

    def __enter__(self) -> "BreakingIn":
        self._old = sys.gettrace()
        if not self.happened:
            sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._old)
        self._last.clear()

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self._files or code.co_flags & inspect.CO_COROUTINE or code.co_name == "__del__":
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.happened:
            last = self._last.get(frame)
            self._last[frame] = code.co_code[frame.f_lasti]
            if last in _LOOKS:
                if not self.left:
                    self.happened = True
                    sys.settrace(None)
                    raise Interrupted
                self.left -= 1
        return self._trace


def interrupted(call: Callable[[], object], place: int, *modules: ModuleType) -> bool:
    """Whether `call` came to so many places."""
    breaking_in = BreakingIn(place, *modules)
    try:
        with breaking_in:
            call()
    except Interrupted:
        pass
    return breaking_in.happened
