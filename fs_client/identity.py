"""Who a client is: its client id, its user, its umask, and the ids of its requests."""

import os
import re
import secrets
import struct
import sys

from fs_common.ids import ClientId
from fs_common.records.meta import User

_REQUEST_ID = struct.Struct(">8sQ")


def new_client_id() -> ClientId:
    """16 random bytes, for one client in one process."""
    return ClientId(secrets.token_bytes(16))


def program_name() -> str:
    """What operators see of this process among the clients: the name of its program."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    if name == "__main__.py":  # python -m NAME
        name = os.path.basename(folder)
    return "python" if name in ("", "-", "-c") else name


class RequestIds:
    """Request ids of one client: 8 random bytes and a counter. Never used across a fork: a child has its own client."""

    __slots__ = ("_last", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_bytes(8)
        self._last = 0

    def next(self) -> bytes:
        self._last += 1
        return _REQUEST_ID.pack(self._prefix, self._last)


def process_user() -> User:
    """As whom this process acts."""
    return User(os.geteuid(), os.getegid(), os.getgroups())


def process_umask() -> int:
    """The umask, read without setting it, which another thread would notice. 0o022 where it cannot be read."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            found = re.search(r"^Umask:\s*([0-7]+)", status.read(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1], 8) if found else 0o022
