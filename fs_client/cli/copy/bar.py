"""The progress bar of `cp`, on stderr: bytes, files and speed. `rich` is imported for people only."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from fs_client.cli.remote import printable, shown
from fs_client.cli.text import put, size_words

if TYPE_CHECKING:
    import rich.progress

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
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        # Forced: whoever asks for a bar into a pipe gets one. NO_COLOR is rich's own business.
        console = Console(stderr=True, force_terminal=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[bytes]}"), _speed_column())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._progress.add_task("looking for files", total=None, bytes="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, counts: "Counts") -> None:
        files = f"{counts.files:,} of {counts.found_files:,} files"
        done = f"{size_words(counts.bytes)} of {size_words(counts.found_bytes)}"
        self._progress.update(
            self._task, description=files, completed=counts.bytes, total=counts.found_bytes, bytes=done
        )

    def refresh(self) -> None:
        """Draw it now, as it is."""
        self._progress.refresh()

    def print(self, line: str) -> None:
        """A line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def tell(self, line: str) -> None:
        """A line on stdout; above the bar, if both are on one terminal."""
        if sys.stdout.isatty():
            self.print(printable(line))
        else:
            put(line)


def _speed_column() -> "rich.progress.ProgressColumn":
    """Bytes a second in the units of everything else; empty until there is something to measure."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: "rich.progress.Task") -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{size_words(int(speed))}/s" if speed else "", style="progress.data.speed")

    return Speed()
