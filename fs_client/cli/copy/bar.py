"""The progress bar of `cp`, on stderr: bytes, files and speed. `rich` is imported for people only."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from fs_client.cli.remote import printable, shown
from fs_client.cli.text import put

if TYPE_CHECKING:
    from fs_client.cli.copy.engine import Counts

progress_option = click.option(
    "--progress/--no-progress", default=None, help="Show a progress bar.  [default: if stderr is a terminal]"
)


def bar_wanted(progress: bool | None, quiet: bool) -> bool:
    if quiet:
        return False
    return sys.stderr.isatty() if progress is None else progress


class NoBar:
    """For programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def update(self, counts: "Counts") -> None:
        pass

    def print(self, line: str) -> None:
        """A line on stderr."""
        click.echo(line, err=True)

    def tell(self, line: str) -> None:
        """A line on stdout."""
        put(shown(line))


class Bar:
    """The totals grow while the tree is still being walked."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        # Forced: whoever asks for a bar into a pipe gets one. NO_COLOR is rich's own business.
        console = Console(stderr=True, force_terminal=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), SpeedColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._progress.add_task("0 files", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, counts: "Counts") -> None:
        files = f"{counts.files:,} of {counts.found_files:,} files"
        self._progress.update(self._task, description=files, completed=counts.bytes, total=counts.found_bytes)

    def print(self, line: str) -> None:
        """A line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def tell(self, line: str) -> None:
        """A line on stdout; above the bar, if both are on one terminal."""
        if sys.stdout.isatty():
            self.print(printable(line))
        else:
            put(line)
