"""READ and WRITE.

A read of bytes that are here unwritten waits until they are stored; everything else is answered from the daemon's cache
or goes to the storage daemons with the other reads of the turn. A write is answered as soon as its bytes are in
write-back, unless the program wants more (O_SYNC), or has to wait for room.
"""

import os
from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.fuse import abi, answers
from fs_client.fuse.abi import Opcode
from fs_client.fuse.append import append
from fs_client.fuse.control import FIRST
from fs_client.fuse.files import File
from fs_client.fuse.handles import Handle
from fs_client.fuse.kernel_request import LATER, Handler, Later, Request, Result
from fs_client.fuse.kernel_size import appends, wrote
from fs_client.fuse.mount import Mount
from fs_client.fuse.nodes import UNTOLD
from fs_client.fuse.set_id import drop_set_id
from fs_common.errors import Code, EmberError
from fs_common.limits import CHUNK_INDEX_MAX, FILE_SIZE_MAX

SYNC = os.O_SYNC | os.O_DSYNC
MORE = SYNC | os.O_APPEND
"""Of the flags that a descriptor has at a write: what asks for more than taking its bytes. A page that the kernel kept
comes without any."""


def handlers(mount: Mount) -> Mapping[int, Handler]:
    files = mount.handles.files
    cache = mount.cache
    reads = mount.reads
    strict = mount.policy.strict
    unpack_read = abi.READ_IN.unpack_from
    unpack_write = abi.WRITE_IN.unpack_from

    def read(request: Request) -> bytes | tuple[memoryview] | Later | Coroutine[Any, Any, Result]:
        """Flat: it runs for every read."""
        number, offset, size, _, _, _ = unpack_read(request.body)
        handle = files.get(number)
        if handle is None:
            if mount.control is not None and request.node >= FIRST:
                return mount.control.read(request)
            handle = mount.handles.file(number)
        file = handle.file
        ref = file.ref
        left = ref.length - offset
        if left < size:
            if strict:
                return read_at_end(request, file, offset, size)
            if left <= 0:
                return b""
            size = left
        if file.cuts or (not file.back.empty and file.back.overlaps(offset, offset + size)):
            return read_behind(request, handle, offset, size)
        return start(request, handle, offset, size)

    def start(request: Request, handle: Handle, offset: int, size: int) -> tuple[memoryview] | Later:
        """`size`: at least 1, within the file."""
        ref = handle.file.ref
        reservation = None
        if cache.limit and (handle.direct or cache.holds(ref.inode)) and not strict:
            chunk_size = ref.layout.chunk_size
            index, within = divmod(offset, chunk_size)
            if within + size <= chunk_size:
                view = cache.get(ref.inode, index, within, size)
                if view is not None:
                    return (view,)
                if handle.direct:
                    # The last page of a file counts as whole.
                    whole = size if offset + size < ref.length else size + -size % 4096
                    reservation = cache.reserve(ref.inode, index, chunk_size, within, whole)
        reads.add(request, ref, offset, size, reservation)
        return LATER

    async def read_behind(request: Request, handle: Handle, offset: int, size: int) -> Result:
        """Behind the writes that are under way there."""
        file = handle.file
        await file.uncut()
        await file.back.flush(offset, offset + size)
        return await read_now(file, offset, size)

    async def read_now(file: File, offset: int, size: int) -> Result:
        size = min(size, file.length - offset)
        if size <= 0:
            return b""
        place = memoryview(bytearray(size))
        (found,) = await mount.fs.reader.read([(file.ref, offset, size)], place)
        return (found,)

    async def read_at_end(request: Request, file: File, offset: int, size: int) -> Result:
        """Others may have made the file longer."""
        await file.back.flush(offset, offset + size)
        await mount.fresh_attributes(file.node)
        return await read_now(file, offset, size)

    # Writing

    def write(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        """Flat: it runs for every write. What the descriptor's flags are now comes with each."""
        number, offset, size, flags, _, open_flags = unpack_write(request.body)
        handle = files.get(number)
        if handle is None:
            handle = mount.handles.file(number)
        file = handle.file
        if not flags & abi.WRITE_CACHE:
            file.node.told_ctime_ns = UNTOLD
        if open_flags & MORE or file.cuts or file.back.busy or flags & abi.WRITE_KILL_SUIDGID:
            return write_slow(request, handle, offset, size, flags, open_flags)
        wrote(file.node, offset, size)
        take(request, file, offset, size)
        return answers.write_out(size)

    def take(request: Request, file: File, offset: int, size: int) -> None:
        end = offset + size
        layout = file.ref.layout
        if end > FILE_SIZE_MAX or end > layout.chunk_size * (CHUNK_INDEX_MAX + 1):
            raise EmberError(Code.FILE_TOO_LARGE, f"{end} bytes; inode {file.inode} cannot become as long")
        if not size:
            return
        cache.invalidate(file.inode, layout.chunk_size, min(offset, file.length), end)
        file.back.add(offset, request.take_data(), mount.now())
        file.wrote(end, offset)

    async def write_slow(
        request: Request, handle: Handle, offset: int, size: int, flags: int, open_flags: int
    ) -> Result:
        file = handle.file
        if open_flags & os.O_APPEND and (appends(file.node, offset) or file.append_lock.continues(handle, offset)):
            wrote(file.node, offset, size)
            await append(mount, request, handle, offset)
        else:
            wrote(file.node, offset, size)
            while file.cuts or file.back.busy:
                await file.uncut()
                await file.back.room()
            take(request, file, offset, size)
        if flags & abi.WRITE_KILL_SUIDGID:
            await drop_set_id(mount, file)
        if open_flags & SYNC:
            await mount.make_durable(file)
            file.raise_error(handle)
        return answers.write_out(size)

    return {Opcode.READ: read, Opcode.WRITE: write}
