"""Processes of a peer: started in sessions of their own, stopped by their ids.

Every wait has a bound. Nothing is ever looked up by name: a user's own GlusterFS on the machine is not ours to stop.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_START_TIMEOUT_S = 40.0
_STOP_TIMEOUT_S = 5.0
_POLL_S = 0.02
FIRST_PORT = 12600


class PeerError(RuntimeError):
    """A peer could not be installed, started or mounted. The message says what to look at."""


class Processes:
    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Its output goes to `name.log`."""
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=cwd
            )
        self._started.append(process)
        return process

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def start_until(self, name: str, ready: Callable[[], bool], *command: str, cwd: Path | None = None) -> None:
        """Start it and wait until `ready`. Raises `PeerError` if it ends before, or takes too long."""
        process = self.start(name, *command, cwd=cwd)
        wait_until(lambda: self._alive(process, name) and ready(), f"{name} to be ready, see {self.log(name)}")

    def _alive(self, process: subprocess.Popen[bytes], name: str) -> bool:
        if process.poll() is None:
            return True
        tail = self.log(name).read_text(errors="replace")[-2000:]
        raise PeerError(f"{name} ended with status {process.returncode}:\n{tail}")

    def stop_last(self) -> None:
        """End the process that was started last, and what is left in its session."""
        _stop([self._started.pop()])

    def stop(self) -> None:
        """The same for all."""
        _stop(self._started)
        self._started.clear()


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    running = [process for process in processes if process.returncode is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < deadline and not all(_ended(process.pid) for process in running):
        time.sleep(_POLL_S)
    for process in running:
        # Before it is waited for, while its id, and with it that of its group, cannot be anybody else's.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stop_by_file(path: Path) -> None:
    """End the daemon whose id the file holds; one that is gone is fine."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(path.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while not _ended(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(_POLL_S)


def _ended(pid: int) -> bool:
    """Gone, or waiting for its parent to notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat[stat.rindex(")") + 2] in "ZX"


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = _START_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise PeerError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(_POLL_S)


def command(*arguments: str, timeout_s: float = 60.0) -> str:
    """Run it to its end: its output. Raises `PeerError` with what it said."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise PeerError(f"{' '.join(arguments)}: {(done.stderr + done.stdout).strip()}")
    return done.stdout


def unmount(path: Path) -> None:
    """At once if nobody uses it, else as soon as nobody does."""
    if subprocess.run(["umount", str(path)], capture_output=True, timeout=_STOP_TIMEOUT_S).returncode:
        subprocess.run(["umount", "-l", str(path)], capture_output=True, timeout=_STOP_TIMEOUT_S)


class Ports:
    """Free ports in order from `FIRST_PORT`: below those that the kernel gives to connections."""

    def __init__(self) -> None:
        self._next = FIRST_PORT

    def take(self) -> int:
        while True:
            port = self._next
            self._next += 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("0.0.0.0", port))
                except OSError:
                    continue
            return port


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def own_address() -> str:
    """An address of the loopback interface that is not 127.x: some peers refuse those.

    Only a network namespace of our own has one, so that nothing they send leaves it. Raises `PeerError` elsewhere.
    """
    for line in command("ip", "-o", "-4", "address", "show", "dev", "lo").splitlines():
        address = line.split()[3].partition("/")[0]
        if not address.startswith("127."):
            return address
    raise PeerError(
        "this peer refuses 127.x: run in a network namespace of your own, unshare --net sh -c "
        "'ip link set lo up; ip address add 10.77.0.1/32 dev lo; python -m benchmarks.peers'"
    )
