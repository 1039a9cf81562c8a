"""How much the interpreter does: instructions of this program's code, both sides of a connection together."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Work:
    def __init__(self) -> None:
        self.instructions: Counter[str] = Counter()
        """Run by the interpreter, by file."""
        self.calls = 0

    @property
    def total(self) -> int:
        return sum(self.instructions.values())


@contextmanager
def counted() -> Iterator[Work]:
    """What this thread runs of `fs_*`. What stands in for a device in tests is none of it."""
    work = Work()
    names: dict[str, str | None] = {}

    def name_of(path: str) -> str | None:
        if path not in names:
            name = os.path.relpath(path, ROOT)
            names[path] = name if name.startswith("fs_") else None
        return names[path]

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        name = name_of(frame.f_code.co_filename)
        if name is None:
            return None
        work.calls += 1
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False

        def on_instruction(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "opcode":
                work.instructions[name] += 1
            return on_instruction

        return on_instruction

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield work
    finally:
        sys.settrace(before)
