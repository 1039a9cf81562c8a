"""A mount of the measured cluster for the time of a measurement, made and ended by the commands that people use."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.context import Context

_TIMEOUT_S = 60.0


class Mount:
    """A place in the scratch directory where the cluster is mounted, again and again: a new mount has cold caches."""

    def __init__(self, context: Context, name: str, options: str = "") -> None:
        self.path = context.directory / name
        self._cluster = context.cluster
        self._options = options
        self._log = context.directory / f"{name}.log"
        self._mounted = False

    def mount(self) -> None:
        self.path.mkdir(exist_ok=True)
        options = ("-o", self._options) if self._options else ()
        _emberfs("mount", self._cluster, str(self.path), *options, "--log", str(self._log))
        self._mounted = True

    def unmount(self) -> None:
        if self._mounted:
            self._mounted = False
            _emberfs("umount", str(self.path))

    def daemon(self) -> int:
        """Its pid."""
        return int(json.loads((self.path / ".emberfs" / "stats").read_text())["pid"])

    def again(self) -> None:
        """Forget everything that the kernel and the daemon know."""
        self.unmount()
        self.mount()


@contextlib.contextmanager
def mounted(context: Context, name: str, options: str = "") -> Iterator[Mount]:
    mount = Mount(context, name, options)
    mount.mount()
    try:
        yield mount
    finally:
        mount.unmount()


def drop_local_caches() -> bool:
    """Let the kernel forget names and contents of local disks. False: we may not (only root may)."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def _emberfs(*arguments: str) -> None:
    command = [sys.executable, "-m", "fs_client.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"emberfs {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
