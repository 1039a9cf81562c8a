"""One daemon as a child process: start it, know when it serves and when it ends, signal exactly it.

Built on a pidfd and a pipe rather than on asyncio's subprocesses, so that no thread, child watcher or signal handler
is involved and a signal can never reach a process that got a recycled pid.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

import fs_common
from fs_client.cli.local.identity import ProcessIdentity, identify
from fs_client.cli.local.ours import append_ours, make_our_directory, open_ours
from fs_common.config import META_VARIABLES, STORAGE_VARIABLES

LOG_BYTES_MAX = 16 << 20
"""A log longer than this is set aside (one older generation is kept) when its daemon starts."""
_REASON_BYTES = 4096
_TETHER = Path(__file__).with_name("tether.py")


class _LogLine(msgspec.Struct):
    """Of a log in JSON."""

    event: str
    logger: str = ""


class Process:
    """A running child. Made by `start`; `ended` is done once the kernel says so and it has been reaped."""

    def __init__(
        self, popen: subprocess.Popen[bytes], descriptor: int, log: Path, log_start: int, *, log_json: bool = False
    ) -> None:
        self.identity: ProcessIdentity = identify(popen.pid)
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str] = loop.create_future()
        """The `ready ...` line. Cancelled when the process ends without it."""
        self.ended: asyncio.Future[int] = loop.create_future()
        """The exit status; negative for the signal that ended it."""
        self._popen = popen
        self._pidfd = descriptor
        """Closed, and set to -1, when the process has been reaped."""
        self._log = log
        self._log_json = log_json
        """The log is JSON: what is no such line does not go there."""
        self._log_start = log_start
        """Length of the log before this run."""
        self._line = b""
        assert popen.stdout is not None
        self._stdout: IO[bytes] = popen.stdout
        os.set_blocking(self._stdout.fileno(), False)
        loop.add_reader(self._stdout.fileno(), self._read_stdout)
        loop.add_reader(descriptor, self._reap)

    def send_signal(self, number: signal.Signals) -> None:
        """Does nothing once the process has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def last_words(self) -> str:
        """The last line this run wrote to its log, for a message about its end."""
        try:
            with open(open_ours(self._log, os.O_RDONLY), "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _REASON_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        word = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            found = msgspec.json.decode(word, type=_LogLine)
        except msgspec.MsgspecError:
            return word
        return f"{found.logger}: {found.event}"

    def _read_stdout(self) -> None:
        """Look for the ready line; it goes to the log, unless that is JSON."""
        try:
            data = os.read(self._stdout.fileno(), 65_536)
        except BlockingIOError:
            return
        if not data:
            self._close_stdout()
            return
        *lines, self._line = (self._line + data).split(b"\n")
        if not self._log_json:
            with open(append_ours(self._log), "ab") as log:
                log.write(data)
        for line in lines:
            if line.startswith(b"ready ") and not self.ready.done():
                self.ready.set_result(line.decode(errors="replace"))

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        status = self._popen.wait()
        if not self._stdout.closed:
            self._read_stdout()
            self._close_stdout()
        self.ready.cancel()
        self.ended.set_result(status)

    def _close_stdout(self) -> None:
        if not self._stdout.closed:
            asyncio.get_running_loop().remove_reader(self._stdout.fileno())
            self._stdout.close()


def start(module: str, arguments: Sequence[str], log: Path, *, log_json: bool = False) -> Process:
    """Run `python -m module arguments` as a child that dies with this process. To be called from the event loop.

    Its own process group keeps a terminal's Ctrl-C away from it: the supervisor decides when and in which order
    daemons stop.
    """
    make_our_directory(log.parent)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.rename(log.with_suffix(".log.1"))
    with open(append_ours(log), "ab") as errors:
        popen = subprocess.Popen(
            [sys.executable, "-IS", str(_TETHER), str(os.getpid()), *python_module(module), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_without_settings(module_environment()),
            process_group=0,
        )
        return Process(popen, os.pidfd_open(popen.pid), log, errors.tell(), log_json=log_json)


def _without_settings(environment: dict[str, str]) -> dict[str, str]:
    """Without variables that set what a daemon's configuration file says: the supervisor decides that."""
    return {
        name: value for name, value in environment.items() if not name.startswith((META_VARIABLES, STORAGE_VARIABLES))
    }


def python_module(module: str) -> list[str]:
    """The command line that runs one of our packages, whatever the working directory holds under the same name."""
    return [sys.executable, "-P", "-m", module]


def module_environment() -> dict[str, str]:
    """Our environment, with a source tree that is not installed made importable for child processes."""
    environment = dict(os.environ)
    root = Path(fs_common.__file__).parent.parent
    if (root / "pyproject.toml").exists():
        present = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *([present] if present else [])])
    return environment
