"""The first exchange on a data-plane connection."""

import enum

import msgspec

PROTOCOL_VERSION = 1
MOUNT = "mount "
"""What `Hello.program` of a mount begins with."""
PROGRAM_LENGTH_MAX = 200
"""Of `Hello.program`: the rest of a long path is cut off."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Sent by the side that connected, before anything else."""

    versions: list[int]
    """Protocol versions it speaks."""
    role: str
    """"client", "meta" or "storage"."""
    client: bytes
    """16 bytes: `ClientId` of a client; a node's id padded otherwise. Names the sender in logs and sessions."""
    cluster: str = ""
    """Cluster id it expects; empty: any."""
    token: str = ""
    """Shown to metadata servers alone. "": none."""
    transports: list[str] = []
    """Data transports it can use beyond the one it came by, in order of preference."""
    host: str = ""
    pid: int = 0
    shown_pass: bytes = b""
    """Shown to storage daemons (`fs_common.security.passes`). b"": none."""
    program: str = ""
    """Of a client, for people: the name of its program, or `MOUNT` and where."""

    def __repr__(self) -> str:
        """Without what nobody else may know."""
        return f"<hello of {self.role} {self.client[:4].hex()} at {self.host or '?'}, pid {self.pid}>"


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    version: int
    """The version both will speak."""
    role: str
    cluster: str
    node: int
    """Node id of the server."""
    transport: str = "tcp"
    given_pass: bytes = b""
    """What the caller shows to storage daemons. b"": it needs none."""
    traces: bool = False
    """Requests may have a trace id. A server of an earlier release refuses the frame."""

    def __repr__(self) -> str:
        return f"<welcome of {self.role} node {self.node}, cluster {self.cluster!r}>"


class Right(enum.IntFlag):
    """To the contents of a file. Numbers are sent: stable for ever."""

    NONE = 0
    READ = 1
    WRITE = 2


class GetPermit(msgspec.Struct, frozen=True, array_like=True):
    """Sent to a metadata server: what the caller may do with the contents of these files."""

    inodes: list[int]
    """1 to `security.permits.PERMIT_INODES_MAX`."""


class PermitReply(msgspec.Struct, frozen=True, array_like=True):
    permit: bytes
    """To be shown to storage daemons. b"": nobody asks for one."""
    rights: list[int]
    """To each file, as the permit says: `security.permits.Right`; -1: it is gone."""


class ShowPermit(msgspec.Struct, frozen=True, array_like=True):
    """Sent to a storage daemon: from now on this connection has these rights as well."""

    permit: bytes


class ErrorBody(msgspec.Struct, frozen=True, array_like=True):
    """Body of an error frame."""

    code: int
    """Number of a row of the error table."""
    message: str
    """One line: what happened, to what, what to do."""


class Empty(msgspec.Struct, frozen=True, array_like=True):
    """A request or response without fields."""


class Ping(msgspec.Struct, frozen=True, array_like=True):
    text: bytes = b""


class Stats(msgspec.Struct, frozen=True, array_like=True):
    """Counters of a process: name to value, cumulative since its start."""

    counters: dict[str, int]


class GivenPass(msgspec.Struct, frozen=True, array_like=True):
    """As in `Welcome`: a new one, because a storage daemon has refused the caller's."""

    given_pass: bytes

    def __repr__(self) -> str:
        return f"<a pass of {len(self.given_pass)} bytes>"
