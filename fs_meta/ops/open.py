"""open: an existing file or directory."""

from fs_common.methods import OPEN
from fs_common.records.meta import Open, OpenReply
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context
from fs_meta.ops.once import once
from fs_meta.ops.resolve import resolve
from fs_meta.ops.sessions import open_existing


async def open_(context: Context, request: Open) -> OpenReply:
    """By path, following symbolic links, or by inode when `path` is empty. For writing, a session is made; with `hold`
    without `write` too, which keeps the file's contents beyond its last name until it is closed.

    What the request opens it for takes the right to (EACCES). EISDIR: a directory for writing. ELOOP: a symbolic link
    by inode. EPERM: for writing, an immutable file, or an append-only one without `append` or with `truncate`. ENXIO: a
    fifo, socket or device; whoever has it at hand opens it without the service. ESTALE: gone, or removed and not open
    for writing by anyone. The walk's errors. Opening for reading without `hold` changes nothing and needs no request
    id.
    """
    now_ns = context.now_ns()
    keeps = request.write or request.hold
    session = context.new_session() if keeps else b""

    async def apply(txn: Transaction) -> tuple[OpenReply, int]:
        inode = await resolve(txn, request.at, request.path, True, request.user)
        return await open_existing(txn, inode, request, session, now_ns), 0

    if keeps:
        return await once(context, OPEN, request.request, apply, relaxed=request.relaxed)
    return (await context.kv.read(apply))[0]
