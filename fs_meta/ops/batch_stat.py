"""batch_stat: many paths in one snapshot."""

from fs_common.errors import Code, EmberError
from fs_common.limits import BATCH_NAMES_MAX, BODY_BYTES_MAX
from fs_common.records.meta import Attributes, BatchAttributesReply, BatchStat, NameFailure
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.inodes import attributes
from fs_meta.ops.permission import READ, check_rights
from fs_meta.ops.resolve import get_inode, resolve

_ATTRIBUTES_BYTES = 160
"""A generous bound of encoded attributes without a symbolic link's target."""


async def batch_stat(context: Context, request: BatchStat) -> BatchAttributesReply:
    """Attributes of each path, as `stat`; a path that fails does not fail the others. `read`: EACCES as of `open`.

    EINVAL: more than 4096 paths. EMSGSIZE: the symbolic links' targets make the answer too large; ask for fewer.
    """
    if len(request.paths) > BATCH_NAMES_MAX:
        raise EmberError(Code.INVALID, f"{len(request.paths)} paths in one request, at most {BATCH_NAMES_MAX}")
    at, follow, user = request.at, request.follow, request.user

    async def look(txn: Transaction) -> BatchAttributesReply:
        found: list[Attributes | None] = []
        failures: list[NameFailure] = []
        size = 0
        for index, path in enumerate(request.paths):
            try:
                inode = await resolve(txn, at, path, follow, user)
                record = await get_inode(txn, inode)
                if request.read:
                    check_rights(inode, record, user, READ)
            except EmberError as error:
                found.append(None)
                failures.append(NameFailure(index, error.code.value.number, error.message))
                size += len(error.message) + _ATTRIBUTES_BYTES
            else:
                found.append(attributes(inode, record))
                size += len(record.target) + _ATTRIBUTES_BYTES
        if size > BODY_BYTES_MAX:
            raise EmberError(Code.TOO_LARGE, f"an answer of some {size} bytes; ask for fewer paths at a time")
        return BatchAttributesReply(found, failures)

    return await context.kv.read(look)
