"""readdir: one page of a directory."""

from fs_common.errors import Code, EmberError
from fs_common.limits import BODY_BYTES_MAX, NAME_BYTES_MAX, READDIR_PAGE_MAX
from fs_common.records.meta import DirectoryEntry, FileType, Readdir, ReaddirReply
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes
from fs_meta.ops.permission import READ, SEARCH, allowed, check_rights
from fs_meta.ops.resolve import get_inode

_PAGE_BYTES_MAX = BODY_BYTES_MAX * 3 // 4
"""A page with attributes ends here, below the bound of a record: symbolic links' targets are up to 4095 bytes each."""
_ENTRY_BYTES = 192
"""A generous bound of an encoded entry and its attributes, without name and target."""
_NAME_OFFSET = len(schema.entry_key(0, b""))


async def readdir(context: Context, request: Readdir) -> ReaddirReply:
    """Names behind `after` in byte order, from one snapshot; with attributes, those are of the same snapshot.

    A page holds `limit` entries (1 to 4096), fewer at the end or where it would become too large for a record; `more`
    says that names are left. Names that exist during the whole listing are listed exactly once over its pages.

    Takes the right to read the directory (EACCES); without the right to search it entries come without attributes.
    ENOTDIR. ESTALE: the directory is gone. EINVAL: `limit` below 1.
    """
    if request.limit < 1:
        raise EmberError(Code.INVALID, f"a page of {request.limit} entries")
    if len(request.after) > NAME_BYTES_MAX:
        raise EmberError(Code.NAME_TOO_LONG, f"a name of {len(request.after)} bytes, at most {NAME_BYTES_MAX}")
    limit = min(request.limit, READDIR_PAGE_MAX)
    begin, end = schema.entries_range(request.inode, request.after)
    user = request.user

    async def page(txn: Transaction) -> ReaddirReply:
        pairs = await txn.range(begin, end, limit + 1)
        with_attributes = request.with_attributes
        if not pairs or user.uid:
            record = await get_inode(txn, request.inode)
            if record.type is not FileType.DIRECTORY:
                raise EmberError(Code.NOT_DIRECTORY, f"inode {request.inode} is not a directory")
            check_rights(request.inode, record, user, READ)
            with_attributes = with_attributes and allowed(record, user, SEARCH)
        more = len(pairs) > limit
        if more:
            pairs.pop()
        entries = []
        if not with_attributes:
            for key, value in pairs:
                entry = schema.decode_entry(value)
                entries.append(DirectoryEntry(key[_NAME_OFFSET:], entry.inode, entry.type))
            return ReaddirReply(entries, more)
        size = 0
        for key, value in pairs:
            entry = schema.decode_entry(value)
            record = await get_inode(txn, entry.inode)
            name = key[_NAME_OFFSET:]
            size += len(name) + len(record.target) + _ENTRY_BYTES
            if size > _PAGE_BYTES_MAX:
                return ReaddirReply(entries, True)
            entries.append(DirectoryEntry(name, entry.inode, entry.type, attributes(entry.inode, record)))
        return ReaddirReply(entries, more)

    return await context.kv.read(page)
