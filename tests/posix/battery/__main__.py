"""Command line of the battery.

python -m tests.posix.battery DIR                      everything
python -m tests.posix.battery DIR --only fio,git       some of it
python -m tests.posix.battery DIR --seconds 60         load generators go on that long
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.posix.battery import copies, databases, development, load
from tests.posix.battery.place import Failed, Place, Skipped

TRIALS: dict[str, Callable[[Place], None]] = {
    "cp": copies.cp,
    "tar": copies.tar,
    "rsync": copies.rsync,
    "find": copies.find_and_du,
    "git": development.git,
    "make": development.make,
    "venv": development.venv,
    "sqlite": databases.sqlite_together,
    "sqlite-killed": databases.sqlite_killed,
    "fio": load.fio,
    "dbench": load.dbench,
    "stress-ng": load.stress_ng,
}


@contextlib.contextmanager
def place_in(directory: Path, name: str, seconds: int) -> Iterator[Place]:
    """Two new directories, one of them in `directory`; both are removed if the trial went well."""
    path = Path(tempfile.mkdtemp(prefix=f"battery-{name}-", dir=directory))
    elsewhere = Path(tempfile.mkdtemp(prefix=f"battery-{name}-"))
    yield Place(path, elsewhere, seconds)
    shutil.rmtree(elsewhere)
    shutil.rmtree(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.posix.battery", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--only", help=f"some of: {', '.join(TRIALS)}")
    parser.add_argument("--seconds", type=int, default=20, help="of load generators (default 20)")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(TRIALS)
    if unknown := set(chosen) - set(TRIALS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    verdicts = [_verdict(name, options.directory, options.seconds) for name in chosen]
    return 0 if all(verdicts) else 1


def _verdict(name: str, directory: Path, seconds: int) -> bool:
    started = time.monotonic()
    try:
        with place_in(directory, name, seconds) as place:
            TRIALS[name](place)
    except Skipped as reason:
        word, text = "skipped", str(reason)
    except (Failed, OSError) as failure:
        word, text = "FAILED", str(failure)
    else:
        word, text = "ok", ""
    print(f"{name:14} {word:8} {time.monotonic() - started:6.1f} s", flush=True)
    if text:
        print("    " + text.replace("\n", "\n    "), flush=True)
    return word != "FAILED"


if __name__ == "__main__":
    sys.exit(main())
