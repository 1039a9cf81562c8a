"""The end of a mount: as long as it takes to store what programs wrote, while there is progress; and who waits for it.

`emberfs umount` connects to a socket of the daemon before it unmounts (the kernel itself waits for nobody), and is sent
lines until the daemon ends: how much is still to be stored, and at the end, if so, what was lost. Only the mount's own
user and root may connect.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fs_client.fuse import mountpoint as mountpoints
from fs_client.fuse import sockets
from fs_client.fuse.losses import report
from fs_client.fuse.sockets import Role
from fs_common.errors import Code, EmberError

if TYPE_CHECKING:
    from fs_client.fuse.files import File
    from fs_client.fuse.mount import Mount

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often progress is looked at, and told."""
LOST = "lost: "
"""How the line begins that says that not everything was stored."""


class Audience:
    """Who waits for the end of a mount. Belongs to its daemon."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []

    def listen(self) -> None:
        """Raises OSError."""
        self._listener = sockets.listen(self._mountpoint, Role.END)
        self._loop.add_reader(self._listener.fileno(), self._on_connection)

    def _on_connection(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if sockets.is_ours(connection):
                connection.setblocking(False)
                self._connections.append(connection)
            else:
                connection.close()

    def tell(self, line: str) -> None:
        """Who does not read has no concern of ours."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(line.encode(errors="replace") + b"\n")

    def close(self, *, unlink: bool = True) -> None:
        """`unlink`: the place is not another daemon's by now."""
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            if unlink:
                sockets.leave(self._mountpoint, Role.END)
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def connect(mountpoint: str) -> socket.socket | None:
    """To the daemon of a mount, before it is unmounted. None: it cannot be reached, and nobody tells of its end."""
    try:
        return sockets.connect(mountpoints.resolved(mountpoint), Role.END)
    except OSError:
        return None


def lines(connection: socket.socket) -> Iterator[str]:
    """What the daemon tells, until it has ended."""
    with connection, connection.makefile("rb") as stream, contextlib.suppress(ConnectionError):
        for line in stream:
            yield line.decode(errors="replace").rstrip("\n")


async def while_progress(mount: "Mount", work: "asyncio.Task[Any]", stall_s: float, audience: Audience | None) -> bool:
    """Wait for `work` while something is being stored. False: for `stall_s` nothing was, and it is cancelled."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        done, _ = await asyncio.wait([work], timeout=LOOK_S)
        if done:
            return True
        left = {file: file.back.bytes_held for file in _files(mount) if file.back.bytes_held}
        if left and audience is not None:
            audience.tell(f"{sum(left.values())} bytes of {len(left)} files are still to be stored")
        if loop.time() - max(mount.progress_at, began) >= stall_s:
            work.cancel()
            # Some of it lets go of nothing before its own deadline; it ends with the process.
            await asyncio.wait([work], timeout=LOOK_S)
            return False


def give_up(mount: "Mount", stall_s: float) -> None:
    """What is not stored by now is lost: a line for each file."""
    for file in _files(mount):
        held = file.back.bytes_held
        if held:
            file.back.drop()
            file.lost_bytes += held
            file.error = EmberError(Code.TIMED_OUT, f"nothing could be stored for {stall_s:.0f} s")
        report(mount, file)


def tell_losses(mount: "Mount", before: int, audience: Audience) -> None:
    """Tell who waits if more is lost than the `before` bytes that were when the end began."""
    lost = mount.lost_bytes - before
    if lost:
        audience.tell(
            f"{LOST}{lost} bytes that programs had written could not be stored; the mount's log names the files"
        )


def _files(mount: "Mount") -> "set[File]":
    return {handle.file for handle in mount.handles.files.values()} | mount.writing
