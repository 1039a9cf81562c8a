"""Looks at this machine: what mounting needs, limits of processes, RDMA, the clock, packages.

Reads below `root`, so that a test may show it another machine. Looks and changes nothing.
"""

import ctypes
import ctypes.util
import errno
import importlib.util
import os
import platform
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fs_client.cli.checkup import rdma
from fs_client.cli.checkup.finding import Finding, note, ok, problem, warning

FILES_WANTED = 4096
"""Descriptors of a process: connections to hundreds of daemons, each with files open."""
PASSTHROUGH = (6, 9)
"""Kernel with FUSE passthrough."""
_TIME_ERROR = 5
"""What `adjtimex` returns for a clock that nothing keeps right."""
UNLIMITED = resource.RLIM_INFINITY


class Limits(NamedTuple):
    files: tuple[int, int]
    """Soft and hard."""
    locked_bytes: tuple[int, int]


class Machine:
    """This machine, as far as it is asked about. Tests make another one."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def limits(self) -> Limits:
        return Limits(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_MEMLOCK))

    def user(self) -> int:
        return os.geteuid()

    def which(self, program: str) -> str | None:
        return shutil.which(program)

    def has_module(self, name: str) -> bool:
        return importlib.util.find_spec(name) is not None

    def verbs_trouble(self) -> str:
        """Why no binding of verbs can be used; "": one can."""
        from fs_common.transports.rdma import bindings
        from fs_common.transports.rdma.verbs import VerbsError

        try:
            bindings.load()
        except VerbsError as error:
            return str(error)
        return ""

    def kernel(self) -> str:
        return platform.release()

    def python(self) -> tuple[int, int]:
        return sys.version_info[:2]

    def clock_state(self) -> int | None:
        """What `adjtimex` says; None: it cannot be asked."""
        library = ctypes.util.find_library("c")
        if library is None:
            return None
        # Room for any layout of `struct timex`; modes 0: look only.
        room = ctypes.create_string_buffer(512)
        state = ctypes.CDLL(library, use_errno=True).adjtimex(room)
        return None if state < 0 else int(state)

    def open_device(self, path: Path) -> int:
        """0, or the errno of opening it for reading and writing."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return error.errno or errno.EIO
        return 0


def look(machine: Machine) -> Iterator[Finding]:
    """Everything about the machine, in the order of what most people need."""
    for check in (_software, _device, _mount_helper, _files, _clock, rdma.look):
        yield from check(machine)


def _software(machine: Machine) -> Iterator[Finding]:
    major, minor = machine.python()
    if (major, minor) < (3, 11):
        yield problem("python", f"Python {major}.{minor}", "EmberFS needs Python 3.11 or newer")
    else:
        yield ok("python", f"Python {major}.{minor}, Linux {machine.kernel()}")
    missing = [name for name in ("lmdb", "grpc", "fastapi") if not machine.has_module(name)]
    if missing:
        yield note(
            "packages",
            f"no {', '.join(missing)}: this machine can be a client, and runs no daemons and no administration",
            "pip install 'emberfs[server]' where those are wanted",
        )


def _device(machine: Machine) -> Iterator[Finding]:
    device = machine.root / "dev/fuse"
    failed = machine.open_device(device)
    match failed:
        case 0:
            yield ok("fuse device", "/dev/fuse can be opened: this machine can mount")
        case errno.ENOENT:
            yield problem(
                "fuse device",
                "there is no /dev/fuse: nothing can be mounted here",
                "`modprobe fuse`; in a container: --device /dev/fuse --cap-add SYS_ADMIN",
            )
        case errno.EACCES | errno.EPERM:
            yield problem(
                "fuse device",
                f"/dev/fuse may not be opened: {os.strerror(failed)}",
                "give it mode 0666, as udev does; in a container: --device /dev/fuse",
            )
        case _:
            yield problem(
                "fuse device",
                f"/dev/fuse cannot be opened: {os.strerror(failed)}",
                "`modprobe fuse`, and see the kernel's log",
            )


def _mount_helper(machine: Machine) -> Iterator[Finding]:
    helper = machine.which("fusermount3")
    if machine.user() == 0:
        if helper is None:
            yield note(
                "mount helper",
                "no fusermount3: root mounts without it, other users cannot",
                "install the package fuse3",
            )
        return
    if helper is None:
        yield problem(
            "mount helper",
            "no fusermount3: who is not root mounts through it",
            "install the package fuse3, or mount as root",
        )
        return
    found = os.stat(helper)
    if found.st_uid != 0 or not found.st_mode & stat.S_ISUID:
        yield problem(
            "mount helper",
            f"{helper} is not set-uid root, so it may not mount",
            f"chown root {helper} && chmod u+s {helper}, or mount as root",
        )
        return
    yield ok("mount helper", f"{helper} mounts for users")
    try:
        lines = (machine.root / "etc/fuse.conf").read_text().splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in (line.strip() for line in lines):
        yield note(
            "allow_other",
            "mounts by users are for that user alone (-o allow_other is refused)",
            "put user_allow_other into /etc/fuse.conf to let others in",
        )


def _files(machine: Machine) -> Iterator[Finding]:
    soft, hard = machine.limits().files
    if hard != UNLIMITED and hard < FILES_WANTED:
        yield warning(
            "open files",
            f"a process may open {hard} files at most: too few for hundreds of daemons, or for a busy mount",
            f"raise the hard limit to {FILES_WANTED} or more (limits.conf, LimitNOFILE= of a unit, --ulimit nofile=)",
        )
    elif soft != UNLIMITED and soft < FILES_WANTED:
        yield note(
            "open files",
            f"the soft limit is {soft}: daemons and mounts raise it, programs of yours do not by themselves",
        )
    else:
        yield ok("open files", f"a process may open {_number(soft)}")


def _clock(machine: Machine) -> Iterator[Finding]:
    state = machine.clock_state()
    if state is None:
        return
    if state == _TIME_ERROR:
        yield note(
            "clock",
            "nothing keeps this machine's clock right; the times of files come from it",
            "run an NTP client (chrony, systemd-timesyncd)",
        )
    else:
        yield ok("clock", "kept right by NTP")


def _number(limit: int) -> str:
    return "any number of files" if limit == UNLIMITED else f"{limit:,} files"
