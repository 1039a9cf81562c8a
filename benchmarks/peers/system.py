"""What is compared: something that has a directory, and can forget what it knows of it."""

from pathlib import Path
from typing import Protocol

from benchmarks.context import Context
from benchmarks.mounted import Mount, drop_local_caches
from benchmarks.peers.processes import Ports, Processes, unmount, wait_until


class System(Protocol):
    name: str
    title: str
    path: Path
    """Where files go, while it is started."""

    def start(self) -> str:
        """Install, start, mount; returns its version. Raises `PeerError`. After an error, `stop` is called too."""

    def cold(self) -> None:
        """A new mount; and the kernel's caches of local disks, where servers keep their files, are empty."""

    def stop(self) -> None:
        """Unmount and end everything that `start` started. May be called after half a start."""


class Local:
    """The disk itself: one copy, no server."""

    name = "local"
    title = "local disk"

    def __init__(self, context: Context, ports: Ports) -> None:
        self.path = context.directory / "local"

    def start(self) -> str:
        self.path.mkdir()
        return ""

    def cold(self) -> None:
        drop_local_caches()

    def stop(self) -> None:
        pass


class EmberFS:
    """The cluster of the context."""

    name = "emberfs"
    title = "EmberFS"

    def __init__(self, context: Context, ports: Ports) -> None:
        self._mount = Mount(context, "emberfs")
        self.path = self._mount.path

    def start(self) -> str:
        self._mount.mount()
        return ""

    def cold(self) -> None:
        self._mount.unmount()
        drop_local_caches()
        self._mount.mount()

    def stop(self) -> None:
        self._mount.unmount()


class Peer:
    """What peers have in common: a directory of their own, processes, and a mount by the process started last."""

    name: str
    title: str

    def __init__(self, context: Context, ports: Ports) -> None:
        self.directory = context.directory / self.name
        self.path = self.directory / "mount"
        self.ports = ports
        self.programs = context.directory
        """For wheels: several peers may need the same."""
        self.processes = Processes(self.directory)

    def start(self) -> str:
        self.path.mkdir(parents=True)
        version = self.start_servers()
        self._mount()
        self.mounted()
        return version

    def start_servers(self) -> str:
        raise NotImplementedError

    def mount_command(self) -> tuple[str, ...]:
        """Mounts at `path`, and stays in the foreground until it is unmounted."""
        raise NotImplementedError

    def mounted(self) -> None:
        """What is left to do once it is mounted for the first time."""

    def _mount(self) -> None:
        self.processes.start_until("mount", self.path.is_mount, *self.mount_command())

    def cold(self) -> None:
        self._unmount()
        drop_local_caches()
        self._mount()

    def _unmount(self) -> None:
        unmount(self.path)
        wait_until(lambda: not self.path.is_mount(), f"{self.path} to be unmounted")
        self.processes.stop_last()

    def stop(self) -> None:
        if self.path.is_mount():
            self._unmount()
        self.processes.stop()
