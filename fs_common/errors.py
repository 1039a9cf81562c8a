"""The error table: every error that crosses a process boundary, and what its receiver does about it.

An error is in the table only if somebody reacts to it by its name. Numbers are stable for ever.

`retry` says what a client may do with the same request:

* `SAFE`: it was not applied; send it again, elsewhere if there is an elsewhere.
* `AFTER_REFRESH`: it was not applied; fetch routing (or a new pass) first, then send it again.
* `MAYBE_APPLIED`: nobody knows; send it again only under the same request id or update id.
* `FINAL`: the answer is the answer; report it.

`EmberError` is an `OSError`: its `errno` is what POSIX callers see, `code` is what EmberFS callers match on.
"""

import enum
import errno
import os
from dataclasses import dataclass
from typing import Any


class Retry(enum.Enum):
    SAFE = "safe"
    AFTER_REFRESH = "after refresh"
    MAYBE_APPLIED = "maybe applied"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table."""

    name: str
    number: int
    errno: int
    retry: Retry
    advice: str


class Code(enum.Enum):
    """The table. `Code.X.value` is the row."""

    # fmt: off
    # Transport and RPC: 1..99
    PEER_GONE = ErrorKind("PEER_GONE", 1, errno.ECONNRESET, Retry.MAYBE_APPLIED, "retry on another peer under the same id")
    UNREACHABLE = ErrorKind("UNREACHABLE", 2, errno.ECONNREFUSED, Retry.SAFE, "check the address and that the server runs")
    TIMED_OUT = ErrorKind("TIMED_OUT", 3, errno.ETIMEDOUT, Retry.MAYBE_APPLIED, "retry under the same id, or raise the timeout")
    BAD_FRAME = ErrorKind("BAD_FRAME", 4, errno.EPROTO, Retry.FINAL, "the peer does not speak this protocol; close")
    BAD_BODY = ErrorKind("BAD_BODY", 5, errno.EPROTO, Retry.FINAL, "the request's record is malformed; fix the caller")
    TOO_LARGE = ErrorKind("TOO_LARGE", 6, errno.EMSGSIZE, Retry.FINAL, "split the request")
    UNKNOWN_METHOD = ErrorKind("UNKNOWN_METHOD", 7, errno.ENOSYS, Retry.FINAL, "the peer is older, or of another role")
    VERSION_MISMATCH = ErrorKind("VERSION_MISMATCH", 8, errno.EPROTONOSUPPORT, Retry.FINAL, "upgrade the older side")
    WRONG_CLUSTER = ErrorKind("WRONG_CLUSTER", 9, errno.EXDEV, Retry.FINAL, "the address belongs to another cluster")
    BUSY = ErrorKind("BUSY", 10, errno.EAGAIN, Retry.SAFE, "back off and retry")
    CLOSING = ErrorKind("CLOSING", 11, errno.ESHUTDOWN, Retry.SAFE, "the server shuts down; retry on another")
    INTERNAL = ErrorKind("INTERNAL", 12, errno.EIO, Retry.MAYBE_APPLIED, "a bug of the server; its log has the traceback")
    CANCELLED = ErrorKind("CANCELLED", 13, errno.ECANCELED, Retry.MAYBE_APPLIED, "the caller gave up")
    UNAUTHENTICATED = ErrorKind("UNAUTHENTICATED", 14, errno.EACCES, Retry.FINAL, "give a valid token; an administrator issues one (`emberfs users token`)")
    PASS_REFUSED = ErrorKind("PASS_REFUSED", 15, errno.EACCES, Retry.AFTER_REFRESH, "get a new pass from the metadata service")
    PERMIT_NEEDED = ErrorKind("PERMIT_NEEDED", 16, errno.EACCES, Retry.AFTER_REFRESH, "show a permit of the metadata service for this file, and send it again")

    # Namespace: 100..199
    NOT_FOUND = ErrorKind("NOT_FOUND", 100, errno.ENOENT, Retry.FINAL, "the name or inode does not exist")
    EXISTS = ErrorKind("EXISTS", 101, errno.EEXIST, Retry.FINAL, "the name is taken")
    NOT_DIRECTORY = ErrorKind("NOT_DIRECTORY", 102, errno.ENOTDIR, Retry.FINAL, "a component is not a directory")
    IS_DIRECTORY = ErrorKind("IS_DIRECTORY", 103, errno.EISDIR, Retry.FINAL, "the name is a directory")
    NOT_EMPTY = ErrorKind("NOT_EMPTY", 104, errno.ENOTEMPTY, Retry.FINAL, "the directory has entries")
    NAME_TOO_LONG = ErrorKind("NAME_TOO_LONG", 105, errno.ENAMETOOLONG, Retry.FINAL, "255 bytes a name, 4096 a path")
    INVALID = ErrorKind("INVALID", 106, errno.EINVAL, Retry.FINAL, "an argument is wrong; the message names it")
    LOOP = ErrorKind("LOOP", 107, errno.ELOOP, Retry.FINAL, "too many symbolic links")
    TOO_MANY_LINKS = ErrorKind("TOO_MANY_LINKS", 108, errno.EMLINK, Retry.FINAL, "65535 links a file")
    NOT_PERMITTED = ErrorKind("NOT_PERMITTED", 109, errno.EPERM, Retry.FINAL, "the operation is never allowed on this object")
    ACCESS_DENIED = ErrorKind("ACCESS_DENIED", 110, errno.EACCES, Retry.FINAL, "the caller lacks a permission")
    STALE = ErrorKind("STALE", 111, errno.ESTALE, Retry.FINAL, "the inode is gone; look the path up again")
    BAD_SESSION = ErrorKind("BAD_SESSION", 112, errno.EBADF, Retry.FINAL, "the write session ended; open again")
    FILE_TOO_LARGE = ErrorKind("FILE_TOO_LARGE", 113, errno.EFBIG, Retry.FINAL, "beyond the largest file")
    CROSS_DEVICE = ErrorKind("CROSS_DEVICE", 114, errno.EXDEV, Retry.FINAL, "source and destination are on two clusters")
    ROOT_DIRECTORY = ErrorKind("ROOT_DIRECTORY", 115, errno.EBUSY, Retry.FINAL, "the root directory cannot be removed, renamed or replaced")
    NO_XATTR = ErrorKind("NO_XATTR", 116, errno.ENODATA, Retry.FINAL, "the file has no extended attribute of that name")
    XATTR_TOO_LARGE = ErrorKind("XATTR_TOO_LARGE", 117, errno.E2BIG, Retry.FINAL, "64 KiB a value, and all names of a file")
    NOT_SUPPORTED = ErrorKind("NOT_SUPPORTED", 118, errno.EOPNOTSUPP, Retry.FINAL, "the file system has no such thing")
    WOULD_BLOCK = ErrorKind("WOULD_BLOCK", 119, errno.EAGAIN, Retry.FINAL, "another owner holds a lock; wait for it or give up")
    DEADLOCK = ErrorKind("DEADLOCK", 120, errno.EDEADLK, Retry.FINAL, "the owners would wait for each other's locks")
    NO_DEVICE = ErrorKind("NO_DEVICE", 121, errno.ENXIO, Retry.FINAL, "a fifo, socket or device has no contents here; the kernel opens it")
    XATTR_NAME = ErrorKind("XATTR_NAME", 122, errno.ERANGE, Retry.FINAL, "an extended attribute's name has 1 to 255 bytes")
    TOO_MANY_LOCKS = ErrorKind("TOO_MANY_LOCKS", 123, errno.ENOLCK, Retry.FINAL, "8192 locks on one file")
    LOCK_LOST = ErrorKind("LOCK_LOST", 124, errno.EIO, Retry.FINAL, "the client was cut off for too long, another may have had its lock")

    # KV: 200..299
    KV_CONFLICT = ErrorKind("KV_CONFLICT", 200, errno.EAGAIN, Retry.SAFE, "run the transaction again")
    KV_MAYBE_COMMITTED = ErrorKind("KV_MAYBE_COMMITTED", 201, errno.EIO, Retry.MAYBE_APPLIED, "retry under the same request id")
    KV_FULL = ErrorKind("KV_FULL", 202, errno.ENOSPC, Retry.FINAL, "the metadata store's disk or map is full")

    # Storage: 300..399
    CHUNK_NOT_FOUND = ErrorKind("CHUNK_NOT_FOUND", 300, errno.ENOENT, Retry.FINAL, "a hole, inside the file's length; no data, beyond it")
    CHAIN_UNKNOWN = ErrorKind("CHAIN_UNKNOWN", 301, errno.EIO, Retry.AFTER_REFRESH, "the server has no target on that chain")
    CHAIN_VERSION = ErrorKind("CHAIN_VERSION", 302, errno.EIO, Retry.AFTER_REFRESH, "caller's or server's routing is old")
    NOT_HEAD = ErrorKind("NOT_HEAD", 303, errno.EIO, Retry.AFTER_REFRESH, "updates enter at the head of the chain")
    NOT_SERVING = ErrorKind("NOT_SERVING", 304, errno.EIO, Retry.AFTER_REFRESH, "the target's lease is over or it is not up to date")
    CHAIN_BROKEN = ErrorKind("CHAIN_BROKEN", 305, errno.EIO, Retry.MAYBE_APPLIED, "a replica of the chain cannot be reached; retry under the same id")
    CHECKSUM = ErrorKind("CHECKSUM", 306, errno.EIO, Retry.SAFE, "bytes do not match their checksum; read another replica, send again")
    NO_SPACE = ErrorKind("NO_SPACE", 307, errno.ENOSPC, Retry.FINAL, "the target's disk is full")
    DISK_FAILED = ErrorKind("DISK_FAILED", 308, errno.EIO, Retry.SAFE, "the target's disk failed; another replica may answer")
    UPDATE_STALE = ErrorKind("UPDATE_STALE", 309, errno.EIO, Retry.FINAL, "the channel has moved on to a later sequence")
    UPDATE_MISSING = ErrorKind("UPDATE_MISSING", 310, errno.EIO, Retry.SAFE, "a replica misses an earlier version of the chunk")
    REPLICAS_DIFFER = ErrorKind("REPLICAS_DIFFER", 311, errno.EIO, Retry.MAYBE_APPLIED, "two replicas have different versions of a chunk; the daemons' logs name them")
    WRITES_LOST = ErrorKind("WRITES_LOST", 312, errno.EIO, Retry.FINAL, "daemons lost what was written and not synced; write it again")

    NEEDS_WHOLE = ErrorKind("NEEDS_WHOLE", 313, errno.EIO, Retry.SAFE, "the syncing successor lacks what the update changes; send the whole chunk")
    CHAIN_LOST = ErrorKind("CHAIN_LOST", 314, errno.EIO, Retry.AFTER_REFRESH, "no replica of the chain serves; bring one of its last nodes back (`emberfs chains`)")

    # Manager: 400..499
    NODE_UNKNOWN = ErrorKind("NODE_UNKNOWN", 400, errno.ENOENT, Retry.FINAL, "register the node first")
    CLUSTER_NOT_READY = ErrorKind("CLUSTER_NOT_READY", 401, errno.EAGAIN, Retry.SAFE, "wait for the storage daemons to register")
    NODE_TAKEN = ErrorKind("NODE_TAKEN", 402, errno.EBUSY, Retry.SAFE, "another process runs under this node id; stop it, or use another id")
    NOT_MANAGER = ErrorKind("NOT_MANAGER", 403, errno.EAGAIN, Retry.SAFE, "another metadata server is the manager; ask that one")
    # fmt: on


SAID_BY_PATH = frozenset(
    {
        Code.NOT_FOUND,
        Code.EXISTS,
        Code.NOT_DIRECTORY,
        Code.IS_DIRECTORY,
        Code.NOT_EMPTY,
        Code.NAME_TOO_LONG,
        Code.LOOP,
        Code.TOO_MANY_LINKS,
        Code.ACCESS_DENIED,
        Code.NO_XATTR,
    }
)
"""Errors of which the system's words and a path say everything."""
_BY_NUMBER = {code.value.number: code for code in Code}


class EmberError(OSError):
    """An error of the table.

    `str(error)` is one line: what happened, to what, and what to do. `filename` is set by namespace calls.
    """

    code: Code

    def __init__(self, code: Code, message: str = "", filename: Any = None) -> None:
        row = code.value
        text = message or row.advice
        if filename is None:
            super().__init__(row.errno, text)
        else:
            super().__init__(row.errno, text, filename)
        self.code = code
        self.message = text

    def __str__(self) -> str:
        subject = f": {self.filename!r}" if self.filename is not None else ""
        return f"{self.message}{subject} [{self.code.name}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.code, self.message, self.filename))

    @property
    def retry(self) -> Retry:
        return self.code.value.retry


def code_of(number: int) -> Code:
    """The row with this number; `INTERNAL` for a number a newer peer may have sent."""
    return _BY_NUMBER.get(number, Code.INTERNAL)


def to_os_error(error: EmberError, filename: Any = None) -> OSError:
    """The built-in exception POSIX programs expect (`FileNotFoundError`, ...), caused by `error`.

    Its `strerror` begins with the system's words, which people and scripts look for. What `error` says beside them comes
    behind them, unless they and a path are all there is to say: the service's words name inodes, and are in the cause.
    """
    subject = filename if filename is not None else error.filename
    text = os.strerror(error.errno or 0)
    if error.message.startswith(text):
        text = error.message
    elif subject is None or error.code not in SAID_BY_PATH:
        text = f"{text}: {error.message}"
    translated = OSError(error.errno, text) if subject is None else OSError(error.errno, text, subject)
    translated.__cause__ = error
    return translated
