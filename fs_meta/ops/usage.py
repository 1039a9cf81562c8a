"""usage: what is below a directory, counted by the server."""

import asyncio

from fs_common.errors import Code, EmberError
from fs_common.records.meta import FileType, Usage, UsageReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.permission import READ, SEARCH, allowed, check_rights
from fs_meta.ops.resolve import get_inode

_PAGE = 512
"""Entries for each snapshot: about a millisecond, after which other calls get their turn."""
_NAME_OFFSET = len(schema.entry_key(0, b""))


async def usage(context: Context, request: Usage) -> UsageReply:
    """Objects of each kind below `inode` (itself not counted) and the files' bytes.

    A file with several names is counted once. Counted page by page, not in one snapshot: changes made meanwhile may or
    may not be seen. A directory that the user may not list and search is counted, what is below it is not; EACCES if
    `inode` is one. ENOTDIR. ESTALE: the inode is gone.
    """
    counted = dict.fromkeys(FileType, 0)
    seen: set[int] = set()
    """Files with several names that were counted."""
    total_bytes = unreadable = 0
    user = request.user

    async def start(txn: Transaction) -> None:
        record = await get_inode(txn, request.inode)
        if record.type is not FileType.DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"inode {request.inode} is not a directory")
        check_rights(request.inode, record, user, READ | SEARCH)

    await context.kv.read(start)
    pending = [(request.inode, b"")]
    """Directories to count, and the name behind which to go on."""
    while pending:
        directory, after = pending.pop()
        begin, end = schema.entries_range(directory, after)

        async def page(
            txn: Transaction, begin: bytes = begin, end: bytes = end
        ) -> list[tuple[bytes, schema.Entry, schema.Inode | None]]:
            rows = []
            for key, value in await txn.range(begin, end, _PAGE):
                entry = schema.decode_entry(value)
                looked_at = entry.type is FileType.FILE or (user.uid and entry.type is FileType.DIRECTORY)
                record = await get_inode(txn, entry.inode) if looked_at else None
                rows.append((key[_NAME_OFFSET:], entry, record))
            return rows

        rows = await context.kv.read(page)
        if len(rows) == _PAGE:
            pending.append((directory, rows[-1][0]))
        for _, entry, record in rows:
            match entry.type:
                case FileType.FILE:
                    assert record is not None
                    if record.links > 1:
                        if entry.inode in seen:
                            continue
                        seen.add(entry.inode)
                    total_bytes += record.length
                case FileType.DIRECTORY:
                    if record is None or allowed(record, user, READ | SEARCH):
                        pending.append((entry.inode, b""))
                    else:
                        unreadable += 1
                case _:
                    pass
            counted[entry.type] += 1
        await asyncio.sleep(0)
    files, directories, symlinks = (counted.pop(kind) for kind in (FileType.FILE, FileType.DIRECTORY, FileType.SYMLINK))
    return UsageReply(files, directories, symlinks, total_bytes, sum(counted.values()), unreadable)
