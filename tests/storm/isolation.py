"""What only root can do to processes: networks that break between two of them, and power that fails.

`enter` starts this program anew in namespaces of its own (network, mounts, processes): whatever it makes there, and
every process it starts, is gone when it ends, however it ends. There this process is the router between its members,
each of which has a network namespace of its own. What goes from one member to another is dropped by a rule, silently,
one way or both ways: a broken cable, not a refused connection.

A `PowerDisk` is a file system of its own. Its power is cut by the very call that file systems are tested with: the
kernel forgets what it had in memory of it, its journal included, and it is mounted again from what is on the device.
The boot id that a daemon reads is a file, mounted over the kernel's.
"""

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNET = 0x40000000
NETWORK = "198.18.0"
"""Of the range for testing devices (RFC 2544)."""
ROUTER = f"{NETWORK}.1"
_INSIDE = "EMBERFS_STORM_INSIDE"
_EXT4_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32)"""
_NO_LOG_FLUSH = 2
DISK_BYTES = 1 << 30
"""Of a sparse file."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Why this machine, or this user, cannot do it."""


def enter(arguments: Sequence[str], module: str = "tests.storm") -> None:
    """Go on in namespaces of our own: does not return where that begins, where `module` is run anew; returns inside.
    Raises `Unavailable`."""
    if os.environ.get(_INSIDE):
        # With IP forwarding, and nothing of the outside.
        _run("mount", "--make-rshared", "/")
        _run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "addr", "add", f"{ROUTER}/32", "dev", "lo")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        return
    why = _why_not()
    if why is not None:
        raise Unavailable(why)
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.environ[_INSIDE] = "1"
    sys.stdout.flush()
    os.execvp(command[0], [*command, sys.executable, "-m", module, *arguments])


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "only root can make namespaces"
    for tool in ("unshare", "ip", "mkfs.ext4", "mount"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    probe = "ip link add probe0 type veth peer name probe1 && ip rule add from 192.0.2.1 to 192.0.2.2 blackhole"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", probe],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return None if done.returncode == 0 else f"namespaces cannot be used: {done.stderr.strip()}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class Network:
    """Members by name, each with an address and a namespace; what is cut between them."""

    def __init__(self) -> None:
        self._namespaces: dict[str, int] = {}
        """Descriptors, which keep them alive."""
        self.addresses: dict[str, str] = {}
        self.dropped: dict[tuple[str, str], int] = {}
        """(from, to) -> how many faults want it."""

    def add(self, name: str) -> None:
        address = f"{NETWORK}.{len(self.addresses) + 10}"
        link = f"v-{name}"[:15]
        made: list[int] = []
        failures: list[BaseException] = []

        def make() -> None:
            # A thread of its own has the namespace to itself, and so have the commands that it runs.
            try:
                if _libc.unshare(CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "unshare")
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
                _run("ip", "link", "set", "lo", "up")
                _run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", link, "netns", str(os.getpid()))
                _run("ip", "addr", "add", f"{address}/32", "dev", "eth0")
                _run("ip", "link", "set", "eth0", "up")
                _run("ip", "route", "add", f"{ROUTER}/32", "dev", "eth0")
                _run("ip", "route", "add", "default", "via", ROUTER)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        _run("ip", "link", "set", link, "up")
        _run("ip", "route", "add", f"{address}/32", "dev", link)
        self._namespaces[name] = made[0]
        self.addresses[name] = address

    def descriptor(self, name: str) -> int:
        return self._namespaces[name]

    def cut(self, source: str, target: str) -> None:
        """From now on nothing gets from one to the other; what comes the other way does."""
        key = (source, target)
        self.dropped[key] = self.dropped.get(key, 0) + 1
        if self.dropped[key] == 1:
            self._rule("add", key)

    def mend(self, source: str, target: str) -> None:
        key = (source, target)
        self.dropped[key] -= 1
        if not self.dropped[key]:
            del self.dropped[key]
            self._rule("del", key)

    def isolate(self, name: str) -> None:
        """Nothing gets to a member any more, and nothing from it to another one."""
        self._isolated("add", name)

    def join(self, name: str) -> None:
        self._isolated("del", name)

    def _isolated(self, verb: str, name: str) -> None:
        address = self.addresses[name]
        _run("ip", "rule", verb, "to", address, "blackhole")
        for other, target in self.addresses.items():
            if other != name:
                _run("ip", "rule", verb, "from", address, "to", target, "blackhole")

    def _rule(self, verb: str, key: tuple[str, str]) -> None:
        source, target = (self.addresses[name] for name in key)
        _run("ip", "rule", verb, "from", source, "to", target, "blackhole")


class PowerDisk:
    """A directory on a file system of its own, whose power can be cut; and the boot id that goes with it."""

    def __init__(self, path: Path, image: Path, boot: Path) -> None:
        self.path = path
        self._image = image
        self._boot = boot
        path.mkdir()
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", str(image))
        self._mount()
        self._start()

    @property
    def boot(self) -> Path:
        """What is to be mounted over the kernel's boot id."""
        return self._boot

    def cut(self) -> None:
        """What was not synced is lost. Nobody has it open any more."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_SHUTDOWN, _NO_LOG_FLUSH.to_bytes(4, sys.byteorder))
        finally:
            os.close(directory)
        _run("umount", str(self.path))
        self._mount()
        self._start()

    def close(self) -> None:
        _run("umount", str(self.path))

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def _start(self) -> None:
        self._boot.write_text(f"{uuid.uuid4()}\n")
