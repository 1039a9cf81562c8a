"""What of systemctl(1) the commands of docs/OPERATIONS.md use, in a sandbox that has no systemd.

    systemctl enable|start|stop|restart [--now] UNIT...      `--now`: enable and disable act, too
    systemctl is-active UNIT

Units are read where the deployment has them: what runs, when it counts as started, who it is and which files it gets
its environment from is what they say.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path(os.environ["EMBERFS_UNITS"])
RUN = Path("/run/units")
START_S = 60.0
STOP_S = 60.0
JOURNAL = 3000
"""Characters of each unit's log that a failure shows."""


def read(unit: str) -> dict[str, list[str]]:
    name, _, instance = unit.removesuffix(".service").partition("@")
    text = (UNITS / f"{name}{'@' if instance else ''}.service").read_text().replace("%i", instance)
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def pid_of(unit: str) -> int:
    """Of the process that runs; 0: none."""
    try:
        pid = int((RUN / unit).read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state == "Z" else pid


def start(unit: str) -> None:
    if pid_of(unit):
        return
    says = read(unit)
    environment = dict(os.environ)
    for name in says.get("EnvironmentFile", []):
        path = Path(name.removeprefix("-"))
        if path.exists():
            environment |= dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    for name in says.get("StateDirectory", []):
        folder = Path("/var/lib") / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    RUN.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        address = f"/run/notify-{unit}"
        Path(address).unlink(missing_ok=True)
        listening.bind(address)
        listening.settimeout(0.2)
        environment["NOTIFY_SOCKET"] = address
        with open(f"/var/log/{unit}.log", "ab") as log:
            process = subprocess.Popen(
                shlex.split(says["ExecStart"][0]),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (RUN / unit).write_text(str(process.pid))
        deadline = time.monotonic() + START_S
        while True:
            try:
                assert listening.recv(100) == b"READY=1"
                return
            except TimeoutError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{unit} did not start; {ended(process)}\n{journals()}")


def ended(process: "subprocess.Popen[bytes]") -> str:
    return "it runs" if process.returncode is None else f"it ended with {process.returncode}"


def journals() -> str:
    """The end of what each unit has said: why one does not start is often told by another."""
    found = []
    for unit in sorted(RUN.iterdir()):
        state = "runs" if pid_of(unit.name) else "does not run"
        found.append(f"--- {unit.name} {state}\n{Path(f'/var/log/{unit.name}.log').read_text()[-JOURNAL:]}")
    return "\n".join(found)


def stop(unit: str) -> None:
    pid = pid_of(unit)
    if pid:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while pid_of(unit):
        if time.monotonic() > deadline:
            sys.exit(f"{unit} did not stop")
        time.sleep(0.05)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    now = "--now" in sys.argv
    verb, units = words[0], words[1:]
    for unit in units:
        if verb in ("stop", "restart") or (verb == "disable" and now):
            stop(unit)
        if verb in ("start", "restart") or (verb == "enable" and now):
            start(unit)
        if verb == "is-active" and not pid_of(unit):
            sys.exit(3)


main()
