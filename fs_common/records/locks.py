"""Requests to the metadata service about advisory locks: flock, byte ranges, and the lock around an atomic append."""

import enum

import msgspec

from fs_common.records.bounds import Identifier, Number, Word
from fs_common.records.meta import Attributes


class LockKind(enum.IntEnum):
    """Locks of different kinds do not know of each other."""

    FLOCK = 1
    """flock(2): the whole file, owned by an open file description."""
    RANGE = 2
    """fcntl(2): byte ranges, owned by a process or an open file description; merged and split."""
    APPEND = 3
    """Taken by clients around an atomic append: exclusive, the whole file; the answer tells the file's length."""


class LockType(enum.IntEnum):
    UNLOCK = 0
    SHARED = 1
    EXCLUSIVE = 2


LOCK_END = 2**63 - 1
"""`end` of a lock to the end of the file, however far that is."""


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """Take, change or give up a lock. WOULD_BLOCK: another owner has it, and did so for `wait_ms`."""

    inode: Number
    client: Identifier
    owner: Word
    """64 bits, named by the client: who has the lock on it."""
    kind: int
    """`LockKind`"""
    type: int
    """`LockType`"""
    request: Identifier
    start: Number = 0
    end: Number = LOCK_END
    """The last byte, inclusive."""
    process: Number = 0
    """Process id, for `GetLock` of others."""
    wait_ms: Number = 0
    """How long to wait for it, in the order of arrival; 0: not at all. DEADLOCK: range locks would wait in a circle."""


class LockReply(msgspec.Struct, frozen=True, array_like=True):
    attributes: Attributes | None = None
    """For `APPEND` that was taken."""
    lease_ms: int = 0
    """Of a lock that was taken: it is the holder's for so long, from when it sent the request for the first time,
    whatever becomes of its connections. Later it may be another's if the service has not heard of the holder since. 0:
    not told."""


class GetLock(msgspec.Struct, frozen=True, array_like=True):
    """Which lock stands in the way of this one?"""

    inode: Number
    client: Identifier
    owner: Word
    kind: int
    type: int
    start: Number = 0
    end: Number = LOCK_END


class GetLockReply(msgspec.Struct, frozen=True, array_like=True):
    type: int
    """`LockType`; UNLOCK: nothing stands in the way."""
    start: Number = 0
    end: Number = 0
    process: Number = 0
    """0 for a lock of another client."""


class LockQuestions(msgspec.Struct, frozen=True, array_like=True):
    """From a mount whose programs have locks, which keeps this call at the service: somebody else wants a file's locks.
    It answers by the next one, when it has given up all that programs had given up before the question was there."""

    answered: Number = 0
    """All questions up to this `LockQuestionsReply.number`; 0: none."""


class LockQuestionsReply(msgspec.Struct, frozen=True, array_like=True):
    number: int
    inodes: list[Number]
    """Files whose locks others want. None: nobody wanted any for a while."""


class ReleaseLocks(msgspec.Struct, frozen=True, array_like=True):
    """Give up all locks of an owner on a file, of one kind."""

    inode: Number
    client: Identifier
    owner: Word
    kind: int
    request: Identifier


class ReleaseLocksReply(msgspec.Struct, frozen=True, array_like=True):
    held: bool = True
    """Whether there was anything to give up. False: it had lost them, if it had had any."""
