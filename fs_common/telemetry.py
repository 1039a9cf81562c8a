"""Counters and logging. Importing this configures nothing.

Modules log through `logging.getLogger(__name__)`; a process calls `configure_logging` once.
"""

import logging
import sys
from typing import Any


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


def configure_logging(process_name: str, json: bool = False, level: str = "INFO") -> None:
    """Send all records of this process to stderr: one JSON object a line, or one readable line.

    Replaces the handlers of the root logger. Raises `ValueError` for an unknown level.
    """
    import structlog

    def add_process(logger: Any, name: str, event: Any) -> Any:
        event["process"] = process_name
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
        rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers[:] = [handler]
