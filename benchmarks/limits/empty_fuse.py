"""A file system with nothing behind it, on the channel that the mount uses: what any mount in this process costs least.

One file, `file`, of a given size, whose reads are answered from one buffer. Other names can be created, written (the
bytes are dropped) and unlinked. As a program: `python -m benchmarks.limits.empty_fuse MOUNTPOINT`.
"""

import argparse
import asyncio
import errno
import os
import signal
import stat
from multiprocessing.connection import Connection
from typing import Any

from fs_client.fuse import abi, answers, mountpoint, requests
from fs_client.fuse.abi import Opcode
from fs_client.fuse.channel import Channel, End
from fs_client.fuse.kernel_request import Handler, Request

MIB = 1 << 20
READ_AHEAD_BYTES = 16 * MIB
"""As the mount has it."""
FILE_NODE = 2
NAME = b"file"
VALID_NS = 10**9


class EmptyFileSystem:
    """Answers everything at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._data = memoryview(os.urandom(MIB))
        self._nodes = {NAME: FILE_NODE}
        """Names in the root directory."""
        self._sizes = {FILE_NODE: size}
        self._last_node = FILE_NODE

    def handlers(self) -> dict[int, Handler]:
        return {
            Opcode.LOOKUP: self.lookup,
            Opcode.GETATTR: lambda request: answers.attr_out(self._attr(request.node), VALID_NS),
            Opcode.SETATTR: lambda request: answers.attr_out(self._attr(request.node), VALID_NS),
            Opcode.OPEN: lambda request: answers.open_out(request.node),
            Opcode.OPENDIR: lambda request: answers.open_out(0),
            Opcode.CREATE: self.create,
            Opcode.READ: self.read,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.WRITE: self.write,
            Opcode.UNLINK: self.unlink,
            Opcode.STATFS: self.statfs,
            Opcode.GETXATTR: self.getxattr,
            **dict.fromkeys((Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FSYNC), lambda request: None),
        }

    def lookup(self, request: Request) -> bytes:
        node = self._nodes.get(requests.parse_lookup(request.body))
        return answers.no_entry_out(0) if node is None else self._entry(node)

    def create(self, request: Request) -> bytes:
        self._last_node += 1
        self._nodes[requests.parse_create(request.body).name] = self._last_node
        self._sizes[self._last_node] = 0
        return self._entry(self._last_node) + answers.open_out(self._last_node)

    def read(self, request: Request) -> memoryview:
        fh, offset, size, *_ = abi.READ_IN.unpack_from(request.body)
        left = self._sizes[fh] - offset
        if size > left:
            size = max(left, 0)
        return self._data[:size]

    def write(self, request: Request) -> bytes:
        written = requests.parse_write(request.body)
        self._sizes[written.fh] = max(self._sizes[written.fh], written.offset + written.size)
        return answers.write_out(written.size)

    def unlink(self, request: Request) -> None:
        del self._nodes[requests.parse_unlink(request.body)]

    def readdir(self, request: Request) -> bytes:
        read = requests.parse_read(request.body)
        packer = answers.DirentPacker(read.size)
        for index, (name, node) in enumerate(list(self._nodes.items())[read.offset :], read.offset + 1):
            if not packer.add(node, index, stat.S_IFREG >> 12, name):
                break
        return packer.body()

    def readdirplus(self, request: Request) -> bytes:
        read = requests.parse_read(request.body)
        packer = answers.DirentPlusPacker(read.size)
        for index, (name, node) in enumerate(list(self._nodes.items())[read.offset :], read.offset + 1):
            if not packer.add(self._entry(node), node, index, stat.S_IFREG >> 12, name):
                break
        return packer.body()

    def statfs(self, request: Request) -> bytes:
        return answers.statfs_out(
            blocks=1 << 30, bfree=1 << 29, bavail=1 << 29, files=1 << 20, ffree=1 << 19, bsize=4096, namelen=255,
            frsize=4096,
        )  # fmt: skip

    def getxattr(self, request: Request) -> bytes:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def _entry(self, node: int) -> bytes:
        return answers.entry_out(node, self._attr(node), VALID_NS, VALID_NS)

    def _attr(self, node: int) -> bytes:
        mode, size = (stat.S_IFDIR | 0o777, 0) if node == abi.ROOT_ID else (stat.S_IFREG | 0o666, self._sizes[node])
        times = dict.fromkeys(("atime_ns", "mtime_ns", "ctime_ns"), 0)
        return answers.attr(node, mode, size=size, blocks=-(-size // 512), nlink=1, uid=0, gid=0, **times)


async def serve_until(stopped: asyncio.Event, directory: str, size: int, ready: Any = None) -> None:
    """Mount it there until `stopped` is set or it is unmounted from outside. `ready()` is called once it is there."""
    descriptor = mountpoint.mount(
        directory, mountpoint.MountSettings("empty", allow_other=os.geteuid() == 0, nonempty=True)
    )

    def end(reason: End) -> None:
        stopped.set()

    channel = Channel(descriptor, EmptyFileSystem(size).handlers(), on_end=end)
    channel.start()
    await channel.ready()
    entry = mountpoint.find(os.path.abspath(directory))
    if entry is not None:
        mountpoint.set_read_ahead(entry, READ_AHEAD_BYTES)
    if ready is not None:
        ready()
    await stopped.wait()
    if channel.ended is None:
        # By a helper process where we are not root; the channel answers meanwhile.
        await asyncio.to_thread(mountpoint.unmount, directory, lazy=True)
    await channel.close()


def serve(pipe: Connection, directory: str, size: int) -> None:
    """A worker: mounted until the pipe closes. Sends 0 where others send their port."""
    import uvloop

    async def run() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), stopped.set)
        await serve_until(stopped, directory, size, lambda: pipe.send(0))
        loop.remove_reader(pipe.fileno())

    uvloop.run(run())


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mountpoint")
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    options = parser.parse_args()

    async def run() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await serve_until(stopped, options.mountpoint, options.mib * MIB)

    uvloop.run(run())


if __name__ == "__main__":
    main()
