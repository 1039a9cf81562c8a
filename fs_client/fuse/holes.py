"""Making bytes of a file zero without their being sent: whole chunks are removed, the rest is written.

A chunk that is not there reads as zeros within the file's length, and the daemons give its space back. The file's last
chunk is written, too, unless it is full: another client may be making it longer.
"""

from typing import TYPE_CHECKING

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
        first = -(-start // size)
        last = end // size
        if first >= last:
            await _write(mount, file, start, end)
        else:
            await _write(mount, file, start, first * size)
            await mount.fs.writer.remove(file.ref, range(first, last))
            file.has_holes()
            await _write(mount, file, last * size, end)
        file.wrote(0)
        file.unsettled.acknowledged(0, file.mtime_ns)
    finally:
        mount.cache.invalidate(file.inode, size, start, end)


async def _write(mount: "Mount", file: File, start: int, end: int) -> None:
    while start < end:
        take = min(len(_ZEROS), end - start)
        await mount.fs.writer.write(file.ref, start, _ZEROS[:take], lambda _: None)
        start += take
