"""usage: what is below a directory, counted by the server."""

import asyncio

from fs_common.checks import violated
from fs_common.errors import Code, EmberError
from fs_common.records.meta import FileType, Usage, UsageReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.resolve import get_inode

_PAGE = 512
"""Entries for each snapshot: about a millisecond, after which other calls get their turn."""
_NAME_OFFSET = len(schema.entry_key(0, b""))


async def usage(context: Context, request: Usage) -> UsageReply:
    """Files, directories and symbolic links below `inode` (itself not counted) and the files' bytes.

    A file with several names is counted once. Counted page by page, not in one snapshot: changes made meanwhile may or
    may not be seen. ENOTDIR. ESTALE: the inode is gone.
    """
    counted = {FileType.FILE: 0, FileType.DIRECTORY: 0, FileType.SYMLINK: 0}
    seen: set[int] = set()
    """Files with several names that were counted."""
    total_bytes = 0

    async def start(txn: Transaction) -> None:
        if (await get_inode(txn, request.inode)).type is not FileType.DIRECTORY:
            raise EmberError(Code.NOT_DIRECTORY, f"inode {request.inode} is not a directory")

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
                record = await get_inode(txn, entry.inode) if entry.type is FileType.FILE else None
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
                    pending.append((entry.inode, b""))
                case FileType.SYMLINK:
                    pass
                case _:
                    violated("an entry's type is one of three", entry.type)
            counted[entry.type] += 1
        await asyncio.sleep(0)
    return UsageReply(counted[FileType.FILE], counted[FileType.DIRECTORY], counted[FileType.SYMLINK], total_bytes)
