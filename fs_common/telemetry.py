"""Counters and logging. Importing this configures nothing.

Modules log through `logging.getLogger(__name__)`; a process calls `configure_logging` once.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from fs_common.tracing import current, shown


class Counters:
    """Named integers of one process, cumulative since its start. Used from one thread; no locks.

    `counters.add("reads")`, `counters.add("bytes_read", n)`; names are lower case with underscores, unit last.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        values = self._values
        values[name] = values.get(name, 0) + amount

    def __getitem__(self, name: str) -> int:
        """0 for a counter that was never added to."""
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """A copy."""
        return dict(self._values)


class LimitedLog:
    """Lines about what strangers send: at most `lines_max` within `period_s`, and then how many were left out.

    Whoever reaches a port can have such a line written as often as he likes, and logs are on a disk.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        lines_max: int = 20,
        period_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._lines_max = lines_max
        self._period_s = period_s
        self._clock = clock
        self._until = float("-inf")
        """End of the period that has begun."""
        self._lines = 0
        """Written in it."""
        self._left_out = 0
        """Since the last line."""

    def line(
        self,
        level: int,
        message: str,
        *arguments: object,
        error: BaseException | None = None,
        fields: dict[str, object] | None = None,
    ) -> None:
        """As `Logger.log`; `error`: with its traceback; `fields`: of the line, beside its message."""
        now = self._clock()
        if now >= self._until:
            self._until = now + self._period_s
            self._lines = 0
        if self._lines >= self._lines_max:
            self._left_out += 1
            return
        self._lines += 1
        if self._left_out:
            self._logger.log(level, "%d lines like the next one were left out", self._left_out)
            self._left_out = 0
        self._logger.log(level, message, *arguments, exc_info=error, extra=fields)


def set_log_level(level: str) -> None:
    """From now on. Raises `ValueError` for an unknown level."""
    logging.getLogger().setLevel(level.upper())


def configure_logging(process_name: str, json: bool = False, level: str = "INFO") -> None:
    """Send all records of this process to stderr: one JSON object a line, or one readable line.

    Replaces the handlers of the root logger. Raises `ValueError` for an unknown level.
    """
    import structlog

    def add_process(logger: Any, name: str, event: Any) -> Any:
        event["process"] = process_name
        trace = current()
        if trace:
            event.setdefault("trace", shown(trace))
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        add_process,
    ]
    if json:
        rendering: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain: richer tracebacks show local variables, and those are what others sent, tokens among it.
        plain = structlog.dev.plain_traceback
        rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    set_log_level(level)
    root.handlers[:] = [handler]
