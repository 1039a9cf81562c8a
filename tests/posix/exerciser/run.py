"""Runs of the exerciser: choose, play, write down, report; play again; thin out."""

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.posix.exerciser.operations import Chooser, Operation
from tests.posix.exerciser.player import NOT_WITH_LOCKS, Mismatch, Player, missing_features

SIZE_MAX = 3 << 20
"""Of a file: some chunks of the usual size, and small enough to be compared as a whole often."""
_SHOWN = 25
FINISH = "at the end"


class Settings(NamedTuple):
    places: tuple[Path, ...]
    """Directories; several are the same one through several mounts."""
    size_max: int = SIZE_MAX
    locks: bool = False
    without: tuple[str, ...] = ()
    """Operations to leave out."""


class Failure(Exception):
    """Something that should work did not. Says what, and after which operations."""

    def __init__(self, cause: Exception, index: int, last: Sequence[Operation], replay: Path | None) -> None:
        self.cause = cause
        lines = [f"operation {index}: {type(cause).__name__}: {cause}", f"the last {len(last)} operations:"]
        lines += [f"    {operation}" for operation in last]
        if replay is not None:
            lines.append(f"play them all again: python -m tests.posix.exerciser DIR --replay {replay}")
        super().__init__("\n".join(lines))


@contextlib.contextmanager
def directories(settings: Settings) -> Iterator[tuple[Path, ...]]:
    """A new directory in the first place, as all places have it."""
    with tempfile.TemporaryDirectory(prefix="exerciser-", dir=settings.places[0]) as path:
        yield tuple(place / Path(path).name for place in settings.places)


def exercise(
    settings: Settings,
    seed: int,
    count: int,
    *,
    replay: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Play `count` operations that follow from the seed; they are in `replay` afterwards, whatever happens.

    Raises Failure.
    """
    without = [*settings.without, *missing_features(settings.places[0]), *(NOT_WITH_LOCKS if settings.locks else ())]
    chooser = Chooser(seed, settings.size_max, without=without, mounts=len(settings.places))
    with contextlib.ExitStack() as stack:
        written = None if replay is None else stack.enter_context(replay.open("w", buffering=1 << 16))

        def chosen() -> Iterator[Operation]:
            for _ in range(count):
                operation = chooser.next()
                if written is not None:
                    written.write(operation.to_line() + "\n")
                yield operation

        stack.callback(lambda: written.flush() if written is not None else None)
        play(settings, chosen(), replay=replay, progress=progress)


def play(
    settings: Settings,
    operations: Iterable[Operation],
    *,
    replay: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Play these on new files. Raises Failure."""
    last: deque[Operation] = deque(maxlen=_SHOWN)
    index = 0
    with directories(settings) as places:
        try:
            with Player(places, settings.size_max, locks=settings.locks) as player:
                for index, operation in enumerate(operations, 1):
                    last.append(operation)
                    player.play(operation)
                    if progress is not None:
                        progress(index)
                last.append(Operation(FINISH, 0))
                player.finish()
        except (Mismatch, OSError) as error:
            raise Failure(error, index, list(last), replay) from error


def thin_out(settings: Settings, operations: list[Operation], *, report: Callable[[str], None]) -> list[Operation]:
    """The fewest operations that still fail, found by leaving out ever smaller pieces."""

    def fails(candidate: list[Operation]) -> int:
        """How many of them it took; 0: all went well."""
        try:
            play(settings, candidate)
        except Failure as failure:
            report(f"{len(candidate)} operations: {failure.cause!s:.150}")
            return len(candidate)
        return 0

    if not fails(operations):
        return []
    piece = len(operations) // 2
    while piece:
        start = 0
        while start < len(operations):
            candidate = operations[:start] + operations[start + piece :]
            if candidate and fails(candidate):
                operations = candidate
            else:
                start += piece
        piece //= 2
    return operations


def load(path: Path) -> list[Operation]:
    with path.open() as lines:
        return [Operation.from_line(line) for line in lines if line.strip()]


def save(path: Path, operations: Iterable[Operation]) -> None:
    path.write_text("".join(operation.to_line() + "\n" for operation in operations))
