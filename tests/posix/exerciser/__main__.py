"""Command line of the exerciser.

python -m tests.posix.exerciser DIR --operations 1000000 --seed 1
python -m tests.posix.exerciser DIR --dir2 DIR2 --operations 100000        two mounts of the same file system
python -m tests.posix.exerciser DIR --tree --processes 4 --operations 50000
python -m tests.posix.exerciser DIR --replay FILE [--thin-out]
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.posix.exerciser import run
from tests.posix.exerciser.operations import WEIGHTS
from tests.posix.exerciser.player import Mismatch
from tests.posix.exerciser.tree import TreeExerciser

_PROGRESS_S = 0.5
_BAR = 40


class Progress:
    """One line that moves on a terminal; in a file, a line now and then."""

    def __init__(self, total: int, label: str) -> None:
        self._total = max(total, 1)
        self._label = label
        self._started = self._told = time.monotonic()
        self._every = _PROGRESS_S if sys.stderr.isatty() else 10.0

    def __call__(self, done: int) -> None:
        if done & 0xFF:
            return
        now = time.monotonic()
        if now - self._told < self._every:
            return
        self._told = now
        filled = _BAR * done // self._total
        rate = done / (now - self._started)
        text = f"{self._label} [{'#' * filled}{'.' * (_BAR - filled)}] {done:,} of {self._total:,}, {rate:,.0f}/s"
        print(
            f"\r{text}" if sys.stderr.isatty() else text,
            end="" if sys.stderr.isatty() else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.posix.exerciser", description=__doc__.splitlines()[0])
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="any directory; everything is made in a new one inside"
    )
    parser.add_argument("--dir2", type=Path, help="the same directory through another mount: work alternates")
    parser.add_argument("--operations", type=int, default=10_000, help="for each process (default 10,000)")
    parser.add_argument("--seed", type=int, help="the same seed does the same again (default: a new one)")
    parser.add_argument("--size", type=int, default=run.SIZE_MAX, help="largest length of a file in bytes")
    parser.add_argument("--processes", type=int, default=1, help="that many at once, each on files of its own")
    parser.add_argument(
        "--locks", action="store_true", help="with --dir2: files stay open on both, locks say whose turn it is"
    )
    parser.add_argument("--tree", action="store_true", help="names instead of contents")
    parser.add_argument("--without", help="operations to leave out, with commas between: to get past a known fault")
    parser.add_argument("--replay", type=Path, help="play the operations of this file")
    parser.add_argument("--thin-out", action="store_true", help="with --replay: find the fewest operations that fail")
    options = parser.parse_args()
    places = (options.directory,) if options.dir2 is None else (options.directory, options.dir2)
    without = tuple(options.without.split(",")) if options.without else ()
    if unknown := set(without) - set(WEIGHTS):
        parser.error(f"no such operations: {', '.join(sorted(unknown))}; there are {', '.join(WEIGHTS)}")
    settings = run.Settings(places, options.size, options.locks, without)
    if options.replay is not None:
        return _play_again(settings, options.replay, options.thin_out)
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    started = time.monotonic()
    one: Callable[[int], bool] = (
        (lambda number: _tree(places, seed + number, number, options.operations))
        if options.tree
        else (lambda number: _file(settings, seed + number, options.operations))
    )
    ok = one(0) if options.processes == 1 else _together(one, options.processes)
    if ok:
        seconds = time.monotonic() - started
        total = options.operations * options.processes
        print(f"{total:,} operations in {seconds:.1f} s, {total / seconds:,.0f}/s: all as expected")
    return 0 if ok else 1


def _file(settings: run.Settings, seed: int, count: int) -> bool:
    replay = Path(tempfile.gettempdir(), f"exerciser-{seed}.replay")
    progress = Progress(count, f"seed {seed}")
    try:
        run.exercise(settings, seed, count, replay=replay, progress=progress)
    except run.Failure as failure:
        print(f"\nseed {seed}: {failure}", flush=True)
        return False
    progress.end()
    replay.unlink()
    return True


def _tree(places: tuple[Path, ...], seed: int, number: int, count: int) -> bool:
    with run.directories(run.Settings(places)) as inside:
        turned = inside[number % len(inside) :] + inside[: number % len(inside)]
        exerciser = TreeExerciser(turned, f"tree-{number}", seed)
        progress = Progress(count, f"seed {seed}")
        try:
            exerciser.run(count, progress)
        except (Mismatch, OSError) as error:
            print(f"\nseed {seed}: {error}\nthe last calls:", *exerciser.log, sep="\n    ", flush=True)
            return False
        progress.end()
    return True


def _together(one: Callable[[int], bool], count: int) -> bool:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=lambda number=number: sys.exit(not one(number))) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return all(process.exitcode == 0 for process in processes)


def _play_again(settings: run.Settings, path: Path, thin_out: bool) -> int:
    operations = run.load(path)
    if thin_out:
        operations = run.thin_out(settings, operations, report=lambda text: print(text, flush=True))
        thin = path.with_suffix(".thin")
        run.save(thin, operations)
        print(f"{len(operations)} operations, written to {thin}:", *operations, sep="\n    ")
        return 1 if operations else 0
    try:
        run.play(settings, operations, progress=Progress(len(operations), str(path)))
    except run.Failure as failure:
        print(failure)
        return 1
    print(f"{len(operations)} operations: all as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
