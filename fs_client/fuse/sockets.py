"""The local sockets of a mount: by which another daemon takes its place, and by which it tells of its end.

Both sides of a connection trust root and their own user alone. The sockets are in a folder that nobody else may write
to; it is looked at every time, and held while it is used, whatever becomes of its name. Each side looks who is at the
other end. One mountpoint and role, one socket: its name is a hash of the path.
"""

import contextlib
import enum
import errno
import hashlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

_PEER_CREDENTIALS = struct.Struct("3i")


class Role(enum.Enum):
    TAKEOVER = "sock"
    END = "end"


def folder() -> Path:
    if os.geteuid() == 0:
        return Path("/run/emberfs")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/emberfs-{os.geteuid()}")


def listen(mountpoint: str, role: Role) -> socket.socket:
    """The socket of a mount, in the place of one that somebody left there. `mountpoint`: as the kernel has it. Raises
    OSError."""
    place = folder()
    if _is_below(place, mountpoint):
        raise OSError(errno.EDEADLK, f"{place} is in the mount itself, whose daemon would wait for itself")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _held(place) as within:
        path = f"{within}/{_name(mountpoint, role)}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(1)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    return listener


def leave(mountpoint: str, role: Role) -> None:
    """Nobody listens any more."""
    if _is_below(folder(), mountpoint):
        return
    with contextlib.suppress(OSError), _held(folder()) as within:
        os.unlink(f"{within}/{_name(mountpoint, role)}")


def connect(mountpoint: str, role: Role) -> socket.socket:
    """To the daemon of a mount. Raises OSError: FileNotFoundError and ConnectionRefusedError if there is none,
    PermissionError if it could be somebody else's."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _held(folder()) as within:
            connection.connect(f"{within}/{_name(mountpoint, role)}")
        if not is_ours(connection):
            raise PermissionError(errno.EPERM, f"who listens for the mount at {mountpoint} is another user")
    except BaseException:
        connection.close()
        raise
    return connection


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end is root or the user that we are."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(data)
    return uid in (0, os.geteuid())


def _is_below(place: Path, mountpoint: str) -> bool:
    return f"{place}/".startswith(f"{mountpoint.rstrip('/')}/")


def _name(mountpoint: str, role: Role) -> str:
    return f"mount-{hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24]}.{role.value}"


@contextlib.contextmanager
def _held(place: Path) -> Iterator[str]:
    """A path of the folder that stays the one that was checked. Raises OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise PermissionError(
                errno.EPERM,
                f"{place} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):o}: others could pass"
                " for a daemon there; remove it, or set XDG_RUNTIME_DIR",
            )
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
