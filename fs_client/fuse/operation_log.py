"""What a mount says of single requests of the kernel: each at debug level, those that took long, and why a program was
told EIO or ETIMEDOUT, which say nothing of the cause.

What a request was about is taken from its bytes only when a line is written. Otherwise a request costs one comparison
(`tell_ns`).

Called by: `channel`, when a request is answered.
"""

import errno
import logging
from collections.abc import Callable
from typing import Any, Final

from fs_client.fuse import requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Request
from fs_client.fuse.requests import ProtocolError
from fs_common.slow_operations import SlowOperations
from fs_common.telemetry import LimitedLog
from fs_common.tracing import shown

logger = logging.getLogger(__name__)

_PARSERS: Final[dict[int, Callable[[Any], Any]]] = {
    Opcode.LOOKUP: requests.parse_lookup,
    Opcode.SYMLINK: requests.parse_symlink,
    Opcode.MKNOD: requests.parse_mknod,
    Opcode.MKDIR: requests.parse_mkdir,
    Opcode.UNLINK: requests.parse_unlink,
    Opcode.RMDIR: requests.parse_rmdir,
    Opcode.RENAME: requests.parse_rename,
    Opcode.RENAME2: requests.parse_rename2,
    Opcode.LINK: requests.parse_link,
    Opcode.CREATE: requests.parse_create,
    Opcode.READ: requests.parse_read,
    Opcode.READDIR: requests.parse_read,
    Opcode.READDIRPLUS: requests.parse_read,
    Opcode.WRITE: requests.parse_write,
    Opcode.GETXATTR: requests.parse_getxattr,
    Opcode.REMOVEXATTR: requests.parse_removexattr,
    Opcode.FALLOCATE: requests.parse_fallocate,
    Opcode.LSEEK: requests.parse_lseek,
}
_SHOWN: Final = ("name", "old", "newdir", "new", "offset", "length", "size")
"""Fields of requests that say what it is about, in the order of a line."""
_OPEN_ENDED: Final = frozenset({Opcode.SETLKW, Opcode.POLL, Opcode.INIT, Opcode.DESTROY})
"""Wait for others: that they take long means nothing."""


class OperationLog:
    """Of one mount."""

    def __init__(self, slow: SlowOperations) -> None:
        self.slow = slow
        self.debug = False
        self.tell_ns = 0
        """A request that took longer is told of (`tell`)."""
        self.look()
        self._failures = LimitedLog(logger)

    def look(self) -> None:
        """The log's level or the threshold may have changed."""
        self.debug = logger.isEnabledFor(logging.DEBUG)
        self.tell_ns = -1 if self.debug else self.slow.threshold_ns

    def failed(self, request: Request, error: OSError) -> None:
        """A request is about to be answered with the error."""
        if error.errno in (errno.EIO, errno.ETIMEDOUT, None):
            said = (request.name.lower(), about(request), request.pid, error)
            self._failures.line(logging.WARNING, "%s of %s for pid %d failed: %s", *said)

    def tell(self, request: Request, elapsed_ns: int, code: int) -> None:
        """`code`: the errno that it was answered with; 0: none."""
        error = errno.errorcode.get(code, str(code)) if code else ""
        what = about(request)
        if elapsed_ns > self.slow.threshold_ns and request.opcode not in _OPEN_ENDED and not request.open_ended:
            self.slow.note(
                request.name.lower(),
                elapsed_ns,
                trace=request.trace,
                about=what,
                peer=f"pid {request.pid}, uid {request.uid}",
                error=error,
            )
        if self.debug:
            fields = {"trace": shown(request.trace), "about": what, "pid": request.pid, "uid": request.uid}
            fields |= {"took_ms": round(elapsed_ns / 1e6, 3)} | ({"error": error} if error else {})
            logger.debug("%s", request.name.lower(), extra=fields)


def about(request: Request) -> str:
    """Inode, names and places that a request is about."""
    words = [f"inode {request.node}"]
    parse = _PARSERS.get(request.opcode)
    if parse is not None:
        try:
            asked = parse(request.body)
        except ProtocolError:
            return f"{words[0]}, malformed"
        if isinstance(asked, bytes):
            words.append(f"name {_text(asked)}")
        for field in _SHOWN:
            value = getattr(asked, field, None)
            if value is not None and not callable(value):
                words.append(f"{field} {_text(value) if isinstance(value, bytes) else value}")
    return ", ".join(words)


def _text(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))
