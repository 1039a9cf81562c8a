"""Sessions, and the length of a file that is being written: shared by create, open, fsync and close.

A session is of an open for writing, or a hold: an open for reading that wants the contents to outlive the last name. It
is its client's: when that is dead it is pruned (`fs_meta.prune`). A client that was only cut off has it again with its
next call under it, as long as the file is kept; from a removed file whose last session was pruned nothing can be had.

Length rules. A file carries (length, truncate_version). A writer's hint is (highest end it was
acknowledged, truncate_version it wrote under), sent only when none of its writes failed.

| hint                                             | what happens                                        |
| ------------------------------------------------ | --------------------------------------------------- |
| none (`written_end` < 0) and not `exact`         | length stays                                        |
| `exact`                                          | storage is asked                                    |
| of a later version than the file's               | refused: a bug of the client                        |
| of the file's version                            | length becomes the larger of both, nobody is asked  |
| older, not beyond the length                     | length stays                                        |
| older, beyond the length                         | storage is asked: the cut may have removed the data |

Asking never shortens a file. Length is set by acknowledged writes and by truncates, which cut the chunks first, so it
is never too high; and a file that was grown by truncate ends in a hole, which no chunk tells of. The question is asked
outside of the transaction; its answer counts only if the truncate version is still the same in the transaction, else a
truncate came between and it is asked again.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fs_common.errors import Code, EmberError
from fs_common.ids import InodeId
from fs_common.layout import Layout
from fs_common.limits import CHUNK_INDEX_MAX, FILE_SIZE_MAX
from fs_common.records.meta import Close, Create, FileType, Fsync, Open, OpenReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes, has_sessions, put_inode
from fs_meta.ops.permission import APPEND, EXECUTE, READ, WRITE, check_rights, without_set_id
from fs_meta.ops.resolve import get_inode
from fs_meta.ops.xattrs import drop_capability
from fs_meta.schema import Inode, Session

_Reply = TypeVar("_Reply")
ROUNDS_MAX: Final = 8
"""How often truncates may come between a question and its transaction before the caller is told BUSY."""
REPORT_AGE_NS: Final = 60_000_000_000
"""Writers report sooner than this after they wrote, unless something is wrong."""


def length_max(layout: Layout) -> int:
    """Bytes the largest file of this layout has."""
    return min(FILE_SIZE_MAX, layout.chunk_size * (CHUNK_INDEX_MAX + 1))


def add_session(
    txn: Transaction, inode: int, session: bytes, client: bytes, now_ns: int, write: bool = True, append: bool = False
) -> None:
    """Without `write` it is a hold: it keeps the contents for readers and reports nothing."""
    txn.put(schema.session_key(inode, session), schema.encode(schema.Session(client, now_ns, write, append)))


async def open_existing(txn: Transaction, inode: int, request: Create | Open, session: bytes, now_ns: int) -> OpenReply:
    """Open what is there, for what the request says, with a session unless `session` is empty; a session that is not
    for writing is a hold, for files alone.

    EACCES. EISDIR: a directory for writing. ELOOP: a symbolic link. EPERM: its flags. ENXIO: it has no contents.
    ESTALE: gone, or removed and being collected.
    """
    record = await get_inode(txn, inode)
    _check_open(inode, record, request)
    if not session or record.type is FileType.DIRECTORY:
        return OpenReply(attributes(inode, record), b"", True)
    if not record.links and not await has_sessions(txn, inode):
        raise EmberError(Code.STALE, f"file {inode} was removed")
    add_session(txn, inode, session, request.client, now_ns, request.write, request.append)
    if request.write and not record.flags & schema.WRITTEN:
        record.flags |= schema.WRITTEN
        put_inode(txn, inode, record)
    return OpenReply(attributes(inode, record), session, True)


async def find_session(txn: Transaction, inode: int, session: bytes, client: bytes, *, revive: bool = False) -> Session:
    """The session, if it is its client that calls; one that was pruned only if the file is kept, too, and `revive` puts
    it back. `client` is empty for a call of this service itself.

    Raises BAD_SESSION.
    """
    key = schema.session_key(inode, session)
    value = await txn.get(key)
    if value is not None:
        found = schema.decode_session(value)
        if client and found.client and found.client != client:
            raise EmberError(Code.BAD_SESSION, f"that session of file {inode} is another client's; open it yourself")
        return found
    pruned_key = schema.pruned_key(session)
    value = await txn.get(pruned_key)
    if value is not None:
        pruned = schema.decode_pruned(value)
        if (pruned.client, pruned.inode) == (client, inode) and await _is_kept(txn, inode):
            if revive:
                txn.delete(pruned_key)
                txn.put(key, schema.encode(pruned.session))
            return pruned.session
    raise EmberError(Code.BAD_SESSION, f"no such session of file {inode}; open it again")


async def _is_kept(txn: Transaction, inode: int) -> bool:
    value = await txn.get(schema.inode_key(inode))
    return value is not None and bool(schema.decode_inode(value).links or await has_sessions(txn, inode))


def _check_open(inode: int, record: Inode, request: Create | Open) -> None:
    """Linux's `may_open`, and its order: type, rights, flags."""
    write, type_ = request.write or request.truncate, record.type
    if type_ is FileType.SYMLINK:
        raise EmberError(Code.LOOP, f"inode {inode} is a symbolic link")
    if type_ is FileType.DIRECTORY and write:
        raise EmberError(Code.IS_DIRECTORY, f"inode {inode} is a directory; it cannot be opened for writing")
    rights = READ * request.read | WRITE * write
    if isinstance(request, Open) and request.execute:
        if type_ is not FileType.FILE:
            raise EmberError(Code.ACCESS_DENIED, f"inode {inode} is no file; it cannot be executed")
        rights |= EXECUTE
    check_rights(inode, record, request.user, rights)
    if record.flags & APPEND and (request.truncate or (request.write and not request.append)):
        raise EmberError(Code.NOT_PERMITTED, f"inode {inode} is flagged append-only")
    if type_ is not FileType.FILE and type_ is not FileType.DIRECTORY:
        raise EmberError(Code.NO_DEVICE, f"inode {inode} is a {type_.name.lower()}; it has no contents here")


class MustMeasure(Exception):
    """Raised inside a transaction, to abort it: the storage daemons have to be asked first."""

    def __init__(self, inode: InodeId, record: Inode) -> None:
        super().__init__(inode)
        self.inode = inode
        self.record = record


class Measured:
    """What storage said of a file's length, and the truncate version it was asked under."""

    __slots__ = ("length", "truncate_version")

    def __init__(self, length: int, truncate_version: int) -> None:
        self.length = length
        self.truncate_version = truncate_version


async def measuring(context: Context, attempt: Callable[[Measured | None], Awaitable[_Reply]]) -> _Reply:
    """Run `attempt`, which runs a transaction; when that raises `MustMeasure`, ask storage and run it again.

    Raises BUSY after `ROUNDS_MAX` rounds, and what asking raises.
    """
    measured: Measured | None = None
    for _ in range(ROUNDS_MAX):
        try:
            return await attempt(measured)
        except MustMeasure as need:
            layout = need.record.layout
            assert layout is not None
            length = await context.chunks.measure(need.inode, layout)
            measured = Measured(length, need.record.truncate_version)
    raise EmberError(Code.BUSY, "the file is truncated again and again while its length is measured; retry")


def longer(record: Inode, length: int) -> None:
    """Set the length to `length`, where it grows, of a file whose bytes up to there need not all be stored."""
    grown = length - record.length
    if grown > 0:
        record.length = length
        assert record.layout is not None
        if grown >= record.layout.chunk_size:
            record.flags |= schema.SPARSE


def _ctime_ns(before_ns: int, wrote_ns: int, now_ns: int) -> int:
    """The ctime after a write that its writer dates `wrote_ns` (0: not at all): that date, which who looked at the
    writer's machine has seen already, so that it does not change once more. Only if the writer's clock can be believed:
    ctimes grow, and no write waits for `REPORT_AGE_NS`. Else now."""
    believed = before_ns < wrote_ns <= now_ns and wrote_ns > now_ns - REPORT_AGE_NS
    return wrote_ns if believed else now_ns


async def settle(
    txn: Transaction, request: Close | Fsync, client: bytes, measured: Measured | None, now_ns: int
) -> Inode:
    """Check the session of `client` and bring the file up to date; the caller puts it. Length by the rules above; if
    anything was written, times, version and capabilities; set-id bits if the request says so.

    Raises BAD_SESSION, INVALID, FILE_TOO_LARGE, and `MustMeasure` when `measured` is missing or outdated.
    """
    session = await find_session(txn, request.inode, request.session, client, revive=True)
    reports = request.written_end >= 0 or request.exact or request.mtime_ns
    if reports and not session.write:
        raise EmberError(Code.BAD_SESSION, f"the session of file {request.inode} is not for writing")
    record = await get_inode(txn, request.inode)
    layout = record.layout
    assert layout is not None
    end = request.written_end
    version = record.truncate_version
    if request.truncate_version > version and end >= 0:
        raise EmberError(
            Code.INVALID, f"a hint of truncate version {request.truncate_version}, file {request.inode} has {version}"
        )
    if end > length_max(layout):
        raise EmberError(Code.FILE_TOO_LARGE, f"{end} bytes; files of this layout end at {length_max(layout)}")
    if request.exact or (end > record.length and request.truncate_version < version):
        if measured is None or measured.truncate_version != version:
            raise MustMeasure(InodeId(request.inode), record)
        longer(record, measured.length)
    elif end > record.length:
        record.length = end
    wrote = end >= 0 or request.exact
    if request.sparse:
        record.flags |= schema.SPARSE
    if wrote:
        record.version += 1
        drop_capability(txn, request.inode, record)
    if wrote or request.mtime_ns:
        record.mtime_ns = request.mtime_ns or now_ns
        record.ctime_ns = _ctime_ns(record.ctime_ns, request.mtime_ns, now_ns)
    if request.clear_set_id:
        mode = without_set_id(record, None)
        if mode != record.mode:
            record.mode, record.ctime_ns = mode, now_ns
    return record
