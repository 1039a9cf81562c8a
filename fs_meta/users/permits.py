"""What users may do with the contents of files, said to storage daemons (`fs_common.security.permits`).

| who                                            | may                                    |
| ---------------------------------------------- | -------------------------------------- |
| whom the file's mode lets read, or write       | that                                   |
| its owner, who could change the mode           | read and write                         |
| a client with a session for writing            | write: its right was looked at then    |
| a client with a hold                           | read: the same                         |

Called by: `fs_meta.server`. Page: docs/SECURITY.md.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records.meta import FileType, User
from fs_common.records.session import GetPermit, PermitReply
from fs_common.rpc import Call, Reply, Service
from fs_common.security.permits import PERMIT_INODES_MAX, Permit, Right, make_permit
from fs_meta import schema
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.ops.permission import READ, WRITE, check_rights, is_owner
from fs_meta.users.users import Users

SESSIONS_LOOKED_AT: Final = 1024
"""Of one file: who is behind so many others has the rights that its mode gives."""
GONE: Final = -1


def register(service: Service, kv: KeyValueStore, users: Users) -> None:
    """Answer GET_PERMIT."""

    async def get_permit(call: Call) -> Reply:
        """A permit for the caller, with what it may do with each file; GONE for one that is not there any more.
        Without security it is empty, and nobody asks for one. INVALID: too many files."""
        request: GetPermit = call.request
        if len(request.inodes) > PERMIT_INODES_MAX:
            raise EmberError(Code.INVALID, f"{len(request.inodes)} files in one permit, at most {PERMIT_INODES_MAX}")
        identity = call.session.identity
        if identity is None:
            return Reply(PermitReply(b"", []))
        client = call.session.hello.client
        rights = await kv.read(_look(request.inodes, identity.user, client))
        vouched = Permit(client, request.inodes, [max(right, 0) for right in rights])
        return Reply(PermitReply(make_permit(users.vouching.signing, vouched), rights))

    service.register(methods.GET_PERMIT, get_permit)


def _look(inodes: list[int], user: User, client: bytes) -> Callable[[Transaction], Awaitable[list[int]]]:
    async def look(txn: Transaction) -> list[int]:
        return [await _rights(txn, inode, user, client) for inode in inodes]

    return look


async def _rights(txn: Transaction, inode: int, user: User, client: bytes) -> int:
    value = await txn.get(schema.inode_key(inode))
    if value is None:
        return GONE
    record = schema.decode_inode(value)
    if record.type is not FileType.FILE:
        return Right.NONE
    rights = Right.NONE
    for right, asked in ((Right.READ, READ), (Right.WRITE, WRITE)):
        try:
            check_rights(inode, record, user, asked)
        except EmberError as error:
            # The owner may change the mode, but not what a flag of the file forbids.
            if error.code is not Code.ACCESS_DENIED or not is_owner(record, user):
                continue
        rights |= right
    if rights == Right.READ | Right.WRITE:
        return int(rights)
    begin, end = schema.sessions_range(inode)
    for _, stored in await txn.range(begin, end, limit=SESSIONS_LOOKED_AT):
        session = schema.decode_session(stored)
        if session.client == client:
            rights |= Right.WRITE if session.write else Right.READ
    return int(rights)
