"""Progress of something that is counted, on stderr: a bar on a terminal, elsewhere a plain line now and then."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    import rich.progress

LINE_EVERY_S = 5.0


class Progress:
    """`with Progress("copying", 10, "files") as progress:` then `progress.advance()`. `hidden`: it shows nothing."""

    def __init__(self, title: str, total: int, unit: str, *, hidden: bool = False) -> None:
        self._hidden = hidden
        self._title = title
        self._total = total
        self._unit = unit
        self._done = 0
        self._bar: rich.progress.Progress | None = None
        """None: stderr is not a terminal."""
        self._last_line_s = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
        elif not self._hidden and time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            click.echo(f"{self._title}: {self._done} of {self._total} {self._unit}", err=True)

    def __enter__(self) -> Self:
        if not self._hidden and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(self._unit))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
