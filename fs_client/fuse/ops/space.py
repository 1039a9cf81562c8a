"""FALLOCATE, LSEEK, COPY_FILE_RANGE."""

import errno
import mmap
import os
from collections.abc import Mapping

from fs_client.extents import data_in, next_data, next_hole
from fs_client.fuse import answers, kernel_size, requests, shown
from fs_client.fuse.abi import Opcode
from fs_client.fuse.files import File
from fs_client.fuse.holes import zero
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.mount import Mount
from fs_client.fuse.set_id import drop_set_id
from fs_common.errors import Code, EmberError
from fs_common.limits import CHUNK_INDEX_MAX, FILE_SIZE_MAX, MIB

KEEP_SIZE = 0x01
PUNCH_HOLE = 0x02
ZERO_RANGE = 0x10
COPY_MAX = 64 * MIB
"""Bytes of data that one request copies: the kernel asks again for the rest, and the program may be interrupted in
between."""
COPY_PIECE = 4 * MIB


def handlers(mount: Mount) -> Mapping[int, Handler]:
    async def fallocate(request: Request) -> Result:
        """Space is not reserved: a chunk takes it when it is written. Length and contents are as asked for."""
        asked = requests.parse_fallocate(request.body)
        handle = mount.handles.file(asked.fh)
        file = handle.file
        if not handle.writable:
            raise EmberError(Code.BAD_SESSION, "it is not open for writing")
        if asked.mode not in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
            raise EmberError(Code.NOT_SUPPORTED, f"fallocate mode {asked.mode:#x}")
        end = asked.offset + asked.length
        if not asked.mode & KEEP_SIZE and end > min(FILE_SIZE_MAX, file.chunk_size * (CHUNK_INDEX_MAX + 1)):
            raise EmberError(Code.FILE_TOO_LARGE, f"{end} bytes")
        # The end of the file decides what is done, and other clients may have moved it.
        await file.settle()
        async with file.cutting():
            await file.back.flush()
            if not mount.nodes.certain(file.node, mount.now()):
                await file.ask_alone()
            if asked.mode & (PUNCH_HOLE | ZERO_RANGE):
                await zero(mount, file, asked.offset, min(end, file.length))
            longer = not asked.mode & KEEP_SIZE and end > file.length
            if longer:
                mount.cache.invalidate(file.inode, file.chunk_size, file.length, end)
                file.wrote(end, end)
        if request.uid:
            await drop_set_id(mount, file)
        if longer:
            await lengthen(file, end)
        else:
            await file.settle()
        if not asked.mode & KEEP_SIZE:
            kernel_size.wrote(file.node, asked.offset, asked.length)
        return None

    async def lengthen(file: File, end: int) -> None:
        """As a write that ends there and stores nothing. So if another client has cut the file since this one was told
        of it, no bytes show the service that it is as long again: it is told once more."""
        while True:
            version = file.unsettled.truncate_version
            file.wrote(end, end)
            file.unsettled.acknowledged(end, file.mtime_ns)
            await file.settle()
            if file.unsettled.truncate_version == version:
                return

    async def lseek(request: Request) -> Result:
        """SEEK_DATA and SEEK_HOLE, by whole chunks as the daemons have them."""
        asked = requests.parse_lseek(request.body)
        file = mount.handles.file(asked.fh).file
        if asked.offset > FILE_SIZE_MAX:
            # It is signed for the program, which asked before the file's beginning.
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        if any(handle.writable for handle in file.handles):
            # Pages that were written through a mapping are still the kernel's, which asks without sending them.
            mount.channel.notify_inval_inode(file.inode, asked.offset - asked.offset % mmap.PAGESIZE)
            await mount.channel.notified()
        await file.back.flush()
        if asked.offset >= file.length:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        if asked.whence == os.SEEK_DATA:
            found = await next_data(mount.fs, file.ref, asked.offset)
            if found is None:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return answers.lseek_out(found)
        if asked.whence == os.SEEK_HOLE:
            return answers.lseek_out(await next_hole(mount.fs, file.ref, asked.offset))
        raise EmberError(Code.INVALID, f"whence {asked.whence}")

    async def copy(request: Request, most: int) -> int:
        """Bytes go from daemon to daemon through this process, not through the program; holes stay holes. May copy less
        than asked, and copies at most `most`, which is what the answer can say."""
        asked = requests.parse_copy_file_range(request.body)
        source = mount.handles.file(asked.fh_in).file
        target_handle = mount.handles.file(asked.fh_out)
        target = target_handle.file
        if asked.flags:
            raise EmberError(Code.INVALID, f"flags {asked.flags:#x}")
        await source.back.flush(asked.off_in, asked.off_in + asked.len)
        left = min(asked.len, source.length - asked.off_in, most)
        if source is target and asked.off_in < asked.off_out + left and asked.off_out < asked.off_in + left:
            raise EmberError(Code.INVALID, "the ranges overlap")
        if left <= 0:
            return 0
        left = min(left, min(FILE_SIZE_MAX, target.chunk_size * (CHUNK_INDEX_MAX + 1)) - asked.off_out)
        if left <= 0:
            raise EmberError(Code.FILE_TOO_LARGE, f"a copy to {asked.off_out}")
        if request.uid:
            await drop_set_id(mount, target)
        done = 0
        data_left = COPY_MAX
        try:
            while done < left and data_left > 0:
                start = asked.off_in + done
                ranges, stop = [(start, asked.off_in + left)], asked.off_in + left
                if source.node.attributes is not None and shown.sparse(source.node):
                    ranges, stop = await data_in(mount.fs, source.ref, start, stop)
                for begin, end in [*ranges, (stop, stop)]:
                    hole = begin - (asked.off_in + done)
                    if hole:
                        await copy_hole(target, asked.off_out + done, hole)
                        done += hole
                    end = min(end, begin + data_left)
                    copied = await copy_data(source, target, begin, end, asked.off_out - asked.off_in)
                    done += copied
                    data_left -= copied
                    if copied < end - begin or not data_left:
                        data_left = 0
                        break
        except EmberError:
            if not done:
                raise
            # The program is told of what was copied, and of the error when it asks for the rest.
        kernel_size.wrote(target.node, asked.off_out, done)
        return done

    async def copy_hole(target: File, to: int, size: int) -> None:
        """The target reads as zeros there, for which nothing is stored."""
        end = to + size
        async with target.cutting():
            await target.back.flush()
            await zero(mount, target, to, min(end, target.length))
            longer = end > target.length
            if longer:
                mount.cache.invalidate(target.inode, target.chunk_size, target.length, end)
                target.wrote(end, end)
                target.has_holes()
        if longer:
            await lengthen(target, end)

    async def copy_data(source: File, target: File, begin: int, end: int, shift: int) -> int:
        """Returns how many bytes there were: fewer if somebody cuts the source meanwhile, or an error came behind
        some."""
        done = begin
        while done < end:
            size = min(COPY_PIECE, end - done)
            try:
                copied = await copy_piece(source, done, target, done + shift, size)
            except EmberError:
                if done > begin:
                    break
                raise
            done += copied
            if copied < size:
                break
        return done - begin

    async def copy_piece(source: File, offset: int, target: File, to: int, size: int) -> int:
        """Returns how many bytes there were: fewer if somebody cuts the source meanwhile."""
        buffer = mount.pool.take(size)
        try:
            (view,) = await mount.fs.reader.read([(source.ref, offset, size)], buffer.view)
            size = len(view)
            if not size:
                return 0
            await target.back.room()
            await target.uncut()
            mount.cache.invalidate(target.inode, target.chunk_size, min(to, target.length), to + size)
            taken, buffer = buffer, None  # type: ignore[assignment]
            taken.view = view
            target.back.add(to, taken, mount.now())
            target.wrote(to + size, to)
            return size
        finally:
            if buffer is not None:
                buffer.release()

    async def copy_file_range(request: Request) -> Result:
        return answers.write_out(await copy(request, 2**32 - mmap.PAGESIZE))

    async def copy_file_range_64(request: Request) -> Result:
        return answers.copy_file_range_64_out(await copy(request, FILE_SIZE_MAX))

    return {
        Opcode.FALLOCATE: fallocate,
        Opcode.LSEEK: lseek,
        Opcode.COPY_FILE_RANGE: copy_file_range,
        Opcode.COPY_FILE_RANGE_64: copy_file_range_64,
    }
