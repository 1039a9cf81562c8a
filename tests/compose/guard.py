"""Runs a docker engine for as long as its standard input is open: `python -m tests.compose.guard FOLDER`.

Whoever started it holds the other end of the pipe, so the engine ends with him, however he ends; and if this process is
killed, the engine gets SIGTERM from the kernel, which ends its containers, too. Everything of the engine is in FOLDER,
which is removed at the end: images, containers, volumes, its socket. It has no bridge of its own and touches no rule of
the firewall, so it goes beside another engine.

Prints `ready` once the engine answers, or one line that says why it does not.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

START_S = 60.0
STOP_S = 60.0
_POLL_S = 0.1
ADDRESSES = "base=198.18.64.0/18,size=26"
"""Of the containers' networks. Kept for benchmarks of networks (RFC 2544): no host that could be meant has one."""
PR_SET_PDEATHSIG = 1


def socket_of(folder: Path) -> Path:
    return folder / "docker.sock"


def cgroup_of(folder: Path) -> str:
    """Of all containers of the engine."""
    return folder.name


def processes_of(folder: Path) -> dict[int, str]:
    """What names something in `folder` on its command line, or runs in a container of the engine; not ourselves."""
    ours = {os.getpid(), os.getppid()}
    contained = {int(word) for group in cgroups_of(folder) for word in _read(group / "cgroup.procs").split()}
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in ours:
            words = _read(entry / "cmdline").split(b"\0")
            if int(entry.name) in contained or any(os.fsencode(folder) + b"/" in word for word in words):
                found[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def mounts_of(folder: Path) -> list[str]:
    """Innermost first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


def cgroups_of(folder: Path) -> Iterator[Path]:
    """Innermost first, in each hierarchy."""
    for top in [
        *Path("/sys/fs/cgroup").glob(cgroup_of(folder)),
        *Path("/sys/fs/cgroup").glob(f"*/{cgroup_of(folder)}"),
    ]:
        if not top.parent.is_symlink():
            yield from sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True)
            yield top


def _docker(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = dict(os.environ, DOCKER_HOST=f"unix://{socket_of(folder)}", DOCKER_CONFIG=str(folder / "client"))
    return subprocess.run(
        ["docker", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=STOP_S,
    )


def _dies_with_us() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    with open(folder / "dockerd.log", "wb") as log:
        return subprocess.Popen(
            [
                "dockerd",
                *("--host", f"unix://{socket_of(folder)}"),
                *("--data-root", str(folder / "data")),
                *("--exec-root", str(folder / "run")),
                *("--pidfile", str(folder / "dockerd.pid")),
                *("--config-file", str(folder / "none.json")),
                *("--cgroup-parent", f"/{cgroup_of(folder)}"),
                *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
                *("--default-address-pool", ADDRESSES),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_dies_with_us,
        )


def _answers(folder: Path, engine: "subprocess.Popen[bytes]") -> bool:
    deadline = time.monotonic() + START_S
    while engine.poll() is None and time.monotonic() < deadline:
        if socket_of(folder).exists() and _docker(folder, "version").returncode == 0:
            return True
        if _left_alone(_POLL_S):
            return False
    return False


def _left_alone(timeout: float) -> bool:
    """Whether whoever holds the pipe has closed it, or has it closed within `timeout` seconds."""
    readable, _, _ = select.select([0], [], [], timeout)
    return bool(readable) and os.read(0, 1) == b""


def _end(folder: Path, engine: "subprocess.Popen[bytes]") -> None:
    """Containers and networks, then the engine, then whatever it has left."""
    if engine.poll() is None:
        with contextlib.suppress(subprocess.SubprocessError):
            containers = _docker(folder, "ps", "--all", "--quiet").stdout.split()
            if containers:
                _docker(folder, "rm", "--force", "--volumes", *containers)
            _docker(folder, "network", "prune", "--force")
        engine.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        engine.wait(STOP_S)
    if engine.poll() is None:
        engine.kill()
        engine.wait()
    deadline = time.monotonic() + STOP_S
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_S)
    for point in mounts_of(folder):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    for group in cgroups_of(folder):
        with contextlib.suppress(OSError):
            group.rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    folder = Path(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    (folder / "none.json").write_text("{}")
    (folder / "client").mkdir(exist_ok=True)
    engine = _start(folder)
    try:
        if _answers(folder, engine):
            print("ready", flush=True)
            while not _left_alone(3600):
                pass
        else:
            lines = (folder / "dockerd.log").read_text(errors="replace").splitlines()
            print(f"dockerd did not start: {lines[-1] if lines else 'it said nothing'}", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _end(folder, engine)


if __name__ == "__main__":
    main()
