"""Permits: what a client that acts for one user shows to storage daemons before they let it at a file's contents.

A daemon refuses what it has seen no permit for (PERMIT_NEEDED), before it has done anything of it. Then the metadata
service is asked, once for all files of the request, and the request is sent again behind the answer. Mounts and root
are never refused, and nothing here runs for them.

Called by: `storage_client`. Page: docs/SECURITY.md.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from fs_common.records.session import PermitReply, Right

GONE = -1
NEEDED = {
    methods.READ_CHUNKS.number: Right.READ,
    methods.WARM_CHUNKS.number: Right.READ,
    methods.UPDATE_CHUNKS.number: Right.WRITE,
}
"""Others need any."""

FetchPermit = Callable[[list[int], float], Awaitable[PermitReply]]
"""Of these files, within so many seconds."""


def files_of(request: Any) -> list[int]:
    """The files that a request to a storage daemon is about, each once."""
    items = getattr(request, "items", None)
    return [request.inode] if items is None else list(dict.fromkeys(item.inode for item in items))


def check_granted(method: Method, files: list[int], reply: PermitReply) -> None:
    """Raises STALE, ACCESS_DENIED: for the first file that the permit does not help with."""
    needed = NEEDED.get(method.number, Right.READ | Right.WRITE)
    for inode, rights in zip(files, reply.rights, strict=True):
        if rights == GONE:
            raise EmberError(Code.STALE, f"file {inode} is gone")
        if not rights & needed:
            what = "write" if needed == Right.WRITE else "read"
            raise EmberError(Code.ACCESS_DENIED, f"the user of this token may not {what} file {inode}")
