"""Naming a process so that another one which got its pid later is never taken for it.

A pid alone is recycled. A pid with the start time the kernel gives it, within one boot, is not.
"""

import contextlib
import os
import select
import signal
from pathlib import Path

import msgspec


class ProcessIdentity(msgspec.Struct, frozen=True):
    pid: int
    start_ticks: int
    """Clock ticks from boot to the start of the process (`/proc/PID/stat`, field 22)."""
    boot: str
    """The kernel's id of this boot: ticks start anew with each."""


def identify(pid: int) -> ProcessIdentity:
    """The identity of a process that exists now, be it a zombie. Raises `ProcessLookupError` when there is none."""
    return _look_up(pid)[0]


def _look_up(pid: int) -> tuple[ProcessIdentity, bool]:
    """(identity, whether it still runs: a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    # The second field is the command's name in parentheses, and may itself hold spaces and parentheses.
    after_name = fields[fields.rindex(")") + 2 :].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ProcessIdentity(pid, int(after_name[19]), boot), after_name[0] not in "ZX"


def open_process(identity: ProcessIdentity) -> int | None:
    """A pidfd of exactly this process, or None when it is gone. The caller closes it.

    The identity is compared after the descriptor is open: from then on the descriptor means that process whatever
    happens to its pid.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    try:
        if _look_up(identity.pid) == (identity, True):
            return descriptor
    except ProcessLookupError:
        pass
    os.close(descriptor)
    return None


def is_running(identity: ProcessIdentity) -> bool:
    descriptor = open_process(identity)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def end(identity: ProcessIdentity, grace_s: float) -> bool | None:
    """SIGTERM, then SIGKILL if it still runs after `grace_s`. Returns once it is gone.

    None: it was not running. True: it ended by itself. False: it had to be killed.
    """
    descriptor = open_process(identity)
    if descriptor is None:
        return None
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if wait_for_end(descriptor, grace_s):
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        wait_for_end(descriptor, None)
        return False
    finally:
        os.close(descriptor)


def wait_for_end(descriptor: int, timeout_s: float | None) -> bool:
    """Whether the process behind the pidfd ended within `timeout_s` (None: however long it takes)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
