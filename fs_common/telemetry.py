"""Counters and logging. Importing this configures nothing.

Modules log through `logging.getLogger(__name__)`; a process calls `configure_logging` once.
"""

import faulthandler
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

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


_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has: other attributes are fields that were given with it."""


class Lines(logging.Formatter):
    """One line for each record, without any package: JSON with the fields that `configure_logging` gives, or text."""

    def __init__(self, process_name: str, *, json: bool) -> None:
        super().__init__()
        self._process = process_name
        self._json = json

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        trace = current()
        if trace:
            event.setdefault("trace", shown(trace))
        if self._json:
            event |= {
                "event": record.getMessage(),
                "level": record.levelname.lower(),
                "logger": record.name,
                "process": self._process,
                "timestamp": moment.replace("+00:00", "Z"),
            }
            if record.exc_info:
                event["exception"] = self.formatException(record.exc_info)
            return msgspec.json.encode(event, enc_hook=str).decode()
        fields = "".join(f" {name}={value}" for name, value in event.items())
        line = f"{moment[:23]}Z {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_plain_logging(process_name: str, json: bool = False, level: str = "INFO") -> None:
    """As `configure_logging`, in an installation without the servers' packages: of a mount, of a supervisor."""
    handler = (_JsonHandler if json else logging.StreamHandler)(sys.stderr)
    handler.setFormatter(Lines(process_name, json=json))
    set_log_level(level)
    logging.getLogger().handlers[:] = [handler]
    if json:
        log_what_ends_the_process()


def last_word(program: str, message: str) -> None:
    """Why the process ends: on stderr, as a line of people or, where logs are JSON, of the log."""
    if any(isinstance(handler, _JsonHandler) for handler in logging.getLogger().handlers):
        logging.getLogger(program).critical("%s", message)
    else:
        print(f"{program}: {message}", file=sys.stderr, flush=True)


def log_crashes() -> None:
    """A signal that ends the process at once (SIGSEGV, SIGABRT, ...) leaves on stderr where each thread was.

    Daemons call it once, when stderr is what it stays.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()


class _JsonHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """The handler of a process whose log is JSON."""


def log_what_ends_the_process() -> None:
    """An exception that nobody takes is a line of the log like any other."""

    def log(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
            return
        logging.getLogger("fs_common.telemetry").critical("ended by a defect", exc_info=(kind, error, traceback))

    sys.excepthook = log


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
    handler = (_JsonHandler if json else logging.StreamHandler)(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    set_log_level(level)
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    if json:
        log_what_ends_the_process()
