"""Making bytes of a file zero without their being sent: whole chunks are removed, of others what they hold is written.

A chunk that is not there reads as zeros within the file's length, and the daemons give its space back. So what is done
is done to the chunks that there are, asked for page by page. The file's last chunk is written, not removed, unless it
is full: another client may be making it longer.
"""

from typing import TYPE_CHECKING

from fs_client.extents import stored_page
from fs_client.fuse.files import File
from fs_common.limits import MIB

if TYPE_CHECKING:
    from fs_client.fuse.mount import Mount

_ZEROS = memoryview(bytes(MIB))


async def zero(mount: "Mount", file: File, start: int, end: int) -> None:
    """Bytes `[start, end)` within the file become zeros. The caller holds `file.changing`, and write-back is empty."""
    if start >= end:
        return
    size = file.chunk_size
    try:
        index, last = start // size, -(-end // size)
        while index < last:
            page = await stored_page(mount.fs, file.ref, index, last)
            whole = []
            for found, length in page.chunks:
                begin = found * size
                if start <= begin and begin + size <= end:
                    whole.append(found)
                else:
                    await _write(mount, file, max(start, begin), min(end, begin + length))
            if whole:
                await mount.fs.writer.remove(file.ref, whole)
                file.has_holes()
                mount.progressed()
            index = page.stop
        file.wrote(0)
        file.unsettled.acknowledged(0, file.mtime_ns)
    finally:
        mount.cache.invalidate(file.inode, size, start, end)


async def _write(mount: "Mount", file: File, start: int, end: int) -> None:
    while start < end:
        take = min(len(_ZEROS), end - start)
        await mount.fs.writer.write(file.ref, start, _ZEROS[:take], lambda _: None)
        start += take
