"""One request of the kernel on its way through the file system, and what its handler may answer."""

import asyncio
import enum
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from fs_client.fuse import requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.payloads import Payload
from fs_common.tracing import numbered

CHANGING = frozenset(
    {
        Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME,
        Opcode.RENAME2, Opcode.LINK, Opcode.OPEN, Opcode.OPENDIR, Opcode.CREATE, Opcode.TMPFILE, Opcode.WRITE,
        Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FLUSH, Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.SYNCFS,
        Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.SETLK, Opcode.FALLOCATE, Opcode.COPY_FILE_RANGE,
        Opcode.COPY_FILE_RANGE_64, Opcode.IOCTL, Opcode.DESTROY,
    }
)  # fmt: skip
"""Once begun these are carried through, whether or not the caller still waits. Others are cancelled."""


class Request(msgspec.Struct, eq=False):
    """One request of the kernel. (A `Struct` because it is made a hundred thousand times a second.)"""

    unique: int
    opcode: int
    node: int
    uid: int
    gid: int
    pid: int
    """0 for a process that this pid namespace does not know."""
    body: bytearray
    """What `requests` parses: behind the header, without a WRITE's data and without extensions. Its own memory."""
    data: Payload | None
    """WRITE and NOTIFY_REPLY: the data. Valid until the request is done with; to keep it: `take_data`."""
    began_ns: int
    """On the clock of `time.perf_counter_ns`."""
    extensions: bytes | bytearray = b""
    interrupted: bool = False
    """The caller wants no more than an end."""
    answered: bool = False
    """Also true if the channel answered in the handler's place: then nobody will see the handler's result."""
    open_ended: bool = False
    """A wait for others, as for a lock: without deadline, and ended at once by an interrupt. A handler may set it
    before it suspends; a SETLKW that suspends always is one."""
    withdraw: Callable[[], None] | None = None
    """Set by a handler that ends by itself, and soon, when this is called: at an interrupt."""
    task: "asyncio.Task[None] | None" = None
    deadline: float = 0.0
    """On the loop's clock; set once it waits: when it is looked at whether it may wait on."""
    waits_since: float = 0.0
    """On the loop's clock; set once it waits."""

    def split_extensions(self, size: int) -> None:
        """The last `size` bytes of the body are extensions."""
        if size <= len(self.body):
            self.extensions = self.body[len(self.body) - size :]
            del self.body[len(self.body) - size :]

    @property
    def trace(self) -> int:
        """The id of this operation of a client (`fs_common.tracing`)."""
        return numbered(self.unique)

    @property
    def name(self) -> str:
        """The operation's, for messages."""
        return Opcode(self.opcode).name

    def take_data(self) -> Payload:
        """The data, which the caller now owns and releases when it is done with it, also after the answer."""
        data, self.data = self.data, None
        assert data is not None
        return data

    def groups(self) -> tuple[int, ...]:
        """Supplementary groups that the kernel sent along (it does for those that a new file's group may be)."""
        return requests.parse_groups(self.extensions) if self.extensions else ()


class Later(enum.Enum):
    """A handler's result: somebody will call `Channel.answer` or `Channel.fail` for the request."""

    LATER = 1


LATER = Later.LATER

Result = bytes | memoryview | Sequence[bytes | memoryview] | None
"""The answer's body, in one piece or in several. None is an empty one, and right for operations without answer.
Memory is looked at before the channel returns."""
Handler = Callable[[Request], Result | Later | Coroutine[Any, Any, Result]]
