"""An index whose pages are damaged may kill the process that reads it, as LMDB maps its file and checks little.

So while a target is being opened, its directory has a file `opening`. One that is found there was left by a process
that died meanwhile: then another process reads the index first, and if that dies, the target is not opened, and the
other targets of the daemon are. Costs nothing else but the making and removal of a file.

`python -m fs_storage.engine.index_guard DIRECTORY` is that other process: status 0, or 3 with a line on stderr.
"""

import subprocess
import sys
from pathlib import Path

from fs_storage.engine.disk import Disk
from fs_storage.engine.index_format import IndexDamaged

OPENING = "opening"
TRY_S = 600.0
_MAP_BYTES = 1 << 40
_STATUS_DAMAGED = 3


def begin(disk: Disk, directory: Path, index: Path) -> None:
    """Raises `IndexDamaged`, `OSError`."""
    if disk.exists(directory / OPENING):
        _try_elsewhere(index)
    else:
        disk.close(disk.open(directory / OPENING, create=True))


def end(disk: Disk, directory: Path) -> None:
    """It is open, or refused in order."""
    if disk.exists(directory / OPENING):
        disk.remove(directory / OPENING)


def _try_elsewhere(index: Path) -> None:
    command = [sys.executable, "-m", "fs_storage.engine.index_guard", str(index)]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=TRY_S, check=False)
    except subprocess.TimeoutExpired:
        return
    if tried.returncode < 0:
        raise IndexDamaged(f"reading the index kills a process (signal {-tried.returncode})")
    if tried.returncode == _STATUS_DAMAGED:
        raise IndexDamaged(tried.stderr.strip())


def main(directory: str) -> int:
    """Read all of it, as opening does."""
    from fs_storage.engine.index import LmdbIndex

    try:
        index = LmdbIndex(Path(directory), _MAP_BYTES)
        for _ in index.scan(b"", b"\xff" * 12):
            pass
        for _ in index.answers(b""):
            pass
        index.close()
    except IndexDamaged as error:
        print(error, file=sys.stderr)
        return _STATUS_DAMAGED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
