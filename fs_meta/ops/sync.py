"""sync: what was answered becomes durable."""

from fs_common.records.meta import Sync
from fs_common.records.session import Empty
from fs_meta.ops.context import Context
from fs_meta.ops.once import EMPTY


async def sync(context: Context, request: Sync) -> Empty:
    """Every answer that this server gave before the request came is durable when it is answered.

    Needs no request id: doing it twice is doing it. DISK_FAILED and the like: nobody knows what is durable.
    """
    await context.kv.sync()
    return EMPTY
