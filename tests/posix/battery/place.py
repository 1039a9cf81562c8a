"""Where a trial works, and how it runs programs: with a deadline, their output kept."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

INSTALL_TIMEOUT_S = 600.0
_KILL_TIMEOUT_S = 10.0
_KEPT_CHARACTERS = 60_000


class Failed(Exception):
    """The trial's verdict: what was expected, what happened instead."""


class Skipped(Exception):
    """The trial cannot be made here. Says why."""


class Place:
    """A directory on the file system under test, one elsewhere, and how long to go on."""

    def __init__(self, path: Path, elsewhere: Path, seconds: int) -> None:
        self.path = path
        """New and empty."""
        self.elsewhere = elsewhere
        """On another file system, or another directory at least: for originals and for logs."""
        self.seconds = seconds
        """For trials that could go on for ever."""

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        timeout_s: float = 300.0,
        ok: tuple[int, ...] = (0,),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Raises Failed for another exit code than those in `ok`, and for a program that does not end in time.

        A program that hangs in the file system may not even end when it is killed; it is left behind then.
        """
        words = list(map(str, command))
        with tempfile.TemporaryFile(mode="w+", dir=self.elsewhere, errors="replace") as output:
            process = subprocess.Popen(
                words,
                cwd=cwd or self.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", **(environment or {})},
                start_new_session=True,
            )
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_KILL_TIMEOUT_S)
                raise Failed(f"{words[0]} did not end within {timeout_s:.0f} s\n{_tail(output)}") from None
            text = _tail(output)
            if code not in ok:
                raise Failed(f"{' '.join(words)[:300]}: exit code {code}\n{text}")
            return subprocess.CompletedProcess(words, code, text)


def _tail(output) -> str:  # type: ignore[no-untyped-def]
    output.seek(0)
    text: str = output.read()
    return text[-_KEPT_CHARACTERS:]


def need(program: str, package: str) -> None:
    """Install the Debian package that has the program, unless it is there. Raises Skipped."""
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Skipped(f"{program} is not here; it is in Debian's package {package}")
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=INSTALL_TIMEOUT_S)
    if result.returncode != 0 or not shutil.which(program):
        raise Skipped(f"{package} cannot be installed: {result.stderr.strip()[-200:]}")
