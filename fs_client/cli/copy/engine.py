"""Copies files and trees from one place to another, many files at a time.

One task walks the sources, makes directories and symbolic links, and hands files to a fixed number of workers through
a short queue; a large file is copied in blocks, several of them under way. Memory: the queue, `BLOCKS_MAX` blocks, and
with `preserve` the attributes of the directories made so far, which are set when all is in them.

A file that fails is removed at the destination, reported, and the copying goes on with the next: what is there at the
end is whole. So it is when the copying is cancelled. Only a process that is killed can leave half a file.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass

from fs_client.cli.copy.existing import Existing
from fs_client.cli.copy.place import Item, Place, Reader, Type, Writer
from fs_client.cli.copy.uninterrupted import uninterrupted
from fs_client.cli.failure import reason
from fs_client.cli.remote import join

BLOCK_BYTES = 4 << 20
"""Several chunks of the default size: one block is written to several chains at once."""
BLOCKS_MAX = 16
"""In memory, of all files together."""
BLOCKS_OF_A_FILE_MAX = 6
HOPELESS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ESHUTDOWN,
    }
)
"""Errors that the next file would meet too: the copying ends."""


@dataclass(frozen=True, slots=True)
class Source:
    place: Place
    path: str
    item: Item
    target: str
    """Where it goes, in full."""


@dataclass(slots=True)
class Counts:
    files: int = 0
    """Files and symbolic links that are whole at the destination."""
    bytes: int = 0
    found_files: int = 0
    found_bytes: int = 0
    failures: int = 0
    kept: int = 0
    """Files that were there already and are as they were."""


class Hopeless(Exception):
    """Nothing more can be copied; the failure has been reported."""


class _Stays(Exception):
    """There is a file already where this one goes, and it is left as it is."""


class Copier:
    """One run of `cp`."""

    def __init__(
        self,
        target: Place,
        *,
        jobs: int,
        preserve: bool,
        failed: Callable[[str, str], None],
        moved: Callable[[Counts], None],
        existing: Existing = Existing.REPLACE,
        force: bool = False,
        copied: Callable[[str, str], None] | None = None,
    ) -> None:
        """`force`: a file that is there and may not be written is removed."""
        self.counts = Counts()
        self._target = target
        self._jobs = jobs
        self._preserve = preserve
        self._failed = failed
        """Told (subject, reason) of each failure."""
        self._moved = moved
        """Told the counts whenever they have changed."""
        self._existing = existing
        self._force = force
        self._copied = copied
        """Told (source, target) of each file, link and directory that has come to be."""
        self._queue: asyncio.Queue[Source | None] = asyncio.Queue(maxsize=4 * jobs)
        """None: there is no more."""
        self._blocks = asyncio.Semaphore(BLOCKS_MAX)
        self._free: list[bytearray] = []
        """Blocks that were used and are not in use: at most `BLOCKS_MAX`."""
        self._directories: list[Source] = []
        """With `preserve`: made or found, parents first."""

    async def copy(self, *batches: list[Source]) -> None:
        """Copy all of it, one batch after the other: two sources for one place must not be in the same.

        Failures are counted and reported, not raised; cancellation leaves no half file.
        """
        with contextlib.suppress(Hopeless):
            for batch in batches:
                async with _FirstError(), asyncio.TaskGroup() as group:
                    group.create_task(self._walk(batch))
                    for _ in range(self._jobs):
                        group.create_task(self._work())
            for source in reversed(self._directories):
                await self._set_attributes(source)

    async def _walk(self, sources: list[Source]) -> None:
        for source in sources:
            if await self._offer(source):
                await self._offer_contents(source)
        for _ in range(self._jobs):
            await self._queue.put(None)

    async def _offer_contents(self, directory: Source) -> None:
        """Depth first, on a stack of our own: a tree may be deeper than Python's stack."""
        listings = [self._contents(directory)]
        try:
            while listings:
                found = await anext(listings[-1], None)
                if found is None:
                    listings.pop()
                elif await self._offer(found):
                    listings.append(self._contents(found))
        finally:
            for listing in reversed(listings):
                await listing.aclose()

    async def _contents(self, directory: Source) -> AsyncGenerator[Source, None]:
        """What is in a directory. Ends early, and reports it, when it cannot be listed."""
        try:
            async with contextlib.aclosing(directory.place.list(directory.path)) as items:
                async for item in items:
                    if item.name in ("", ".", "..") or "/" in item.name:
                        self._fail(directory, f"has an entry with the impossible name {item.name!r}")
                        continue
                    path, target = join(directory.path, item.name), join(directory.target, item.name)
                    yield Source(directory.place, path, item, target)
        except OSError as error:
            self._fail(directory, error)

    async def _offer(self, source: Source) -> bool:
        """Queue a file, copy a symbolic link, make a directory. Whether there are contents to go on with."""
        self.counts.found_files += source.item.type in (Type.FILE, Type.SYMLINK)
        match source.item.type:
            case Type.FILE:
                self.counts.found_bytes += source.item.size
                self._moved(self.counts)
                await self._queue.put(source)
            case Type.SYMLINK:
                await self._copy_symlink(source)
            case Type.DIRECTORY:
                return await self._make_directory(source)
            case Type.OTHER:
                self._fail(source, f"is {Type.OTHER.value}")
        return False

    async def _make_directory(self, source: Source) -> bool:
        try:
            try:
                await self._target.make_directory(source.target, source.item.mode & 0o777)
                self._tell(source)
            except FileExistsError:
                present = await self._target.look(source.target, follow=True)
                if present is not None and present.type == Type.SYMLINK:
                    there = self._target.show(source.target)
                    raise OSError(f"goes where {there} is a symbolic link, which is not followed: remove it") from None
                if present is None or present.type != Type.DIRECTORY:
                    raise
        except OSError as error:
            self._fail(source, error)
            return False
        if self._preserve:
            self._directories.append(source)
        return True

    async def _copy_symlink(self, source: Source) -> None:
        try:
            target = await source.place.read_link(source.path)
            try:
                await self._target.make_symlink(target, source.target)
            except FileExistsError:
                present = await self._target.look(source.target, follow=False)
                if present is None or present.type == Type.DIRECTORY:
                    raise
                if self._stays(source.item, present):
                    self._keep(source)
                    return
                await self._target.remove(source.target)
                await self._target.make_symlink(target, source.target)
        except OSError as error:
            self._fail(source, error)
            return
        if not self._preserve or await self._set_attributes(source):
            self._count(source)

    def _stays(self, item: Item, present: Item) -> bool:
        """Whether what is there already is left as it is."""
        if present.type == Type.DIRECTORY:
            return False  # which nothing replaces: that is a failure
        match self._existing:
            case Existing.REPLACE:
                return False
            case Existing.KEEP:
                return True
            case Existing.UPDATE:
                return present.mtime_ns >= item.mtime_ns

    def _keep(self, source: Source) -> None:
        self.counts.kept += 1
        self.counts.found_files -= 1
        if source.item.type == Type.FILE:
            self.counts.found_bytes -= source.item.size
        self._moved(self.counts)

    def _count(self, source: Source) -> None:
        """It is whole at the destination."""
        self.counts.files += 1
        self._moved(self.counts)
        self._tell(source)

    def _tell(self, source: Source) -> None:
        if self._copied is not None:
            self._copied(source.place.show(source.path), self._target.show(source.target))

    async def _work(self) -> None:
        while (source := await self._queue.get()) is not None:
            try:
                if not await self._copy_file(source):
                    continue
            except _Stays:
                self._keep(source)
                continue
            except OSError as error:
                self._fail(source, error)
                continue
            self._count(source)

    async def _copy_file(self, source: Source) -> bool:
        """False: its attributes could not be kept, which has been reported. Raises `_Stays`."""
        kept = True
        if self._existing is not Existing.REPLACE:
            present = await self._target.look(source.target, follow=True)
            if present is not None and self._stays(source.item, present):
                raise _Stays
        if source.place.identity == self._target.identity:
            # Opening would empty the file that we want to read.
            present = await self._target.look(source.target, follow=True)
            if present is not None and present.identity == source.item.identity:
                raise OSError(f"is the same file as {self._target.show(source.target)}")
        # Were opening cut short, nobody would know whether the file at the destination is an old one or was emptied.
        reader = await uninterrupted(source.place.open_to_read(source.path))
        try:
            # Until it has its owner it is open to nobody else.
            mode = source.item.mode & (0o700 if self._preserve else 0o777)
            writer = await uninterrupted(self._open_to_write(source.target, mode))
            try:
                try:
                    await self._copy_content(reader, writer)
                    await writer.finish()
                    if self._preserve:
                        kept = await self._reported(source, writer.set_attributes(source.item))
                finally:
                    await writer.close()
            except BaseException:
                await self._remove_half(source)
                raise
        finally:
            await reader.close()
        return kept

    async def _open_to_write(self, path: str, mode: int) -> Writer:
        exclusive = self._existing is Existing.KEEP
        try:
            return await self._target.open_to_write(path, mode, exclusive=exclusive)
        except FileExistsError:
            if not exclusive:
                raise
            raise _Stays from None  # it has come since we looked
        except PermissionError:
            present = await self._target.look(path, follow=False) if self._force else None
            if present is None or present.type == Type.DIRECTORY:
                raise
            await self._target.remove(path)
            return await self._target.open_to_write(path, mode, exclusive=False)

    async def _copy_content(self, reader: Reader, writer: Writer) -> None:
        """All blocks. A file that says it is empty is read until its end: those of /proc say so."""
        if reader.size == 0:
            offset = 0
            while got := await self._copy_block(reader, writer, offset, BLOCK_BYTES):
                offset += got
            return
        if reader.size <= BLOCK_BYTES:
            got = await self._copy_block(reader, writer, 0, reader.size)
            if got < reader.size:
                raise _shrank(reader, got)
            return
        offsets = iter(range(0, reader.size, BLOCK_BYTES))

        async def lane() -> None:
            for offset in offsets:
                wanted = min(BLOCK_BYTES, reader.size - offset)
                got = await self._copy_block(reader, writer, offset, wanted)
                if got < wanted:
                    raise _shrank(reader, offset + got)

        async with _FirstError(), asyncio.TaskGroup() as group:
            for _ in range(BLOCKS_OF_A_FILE_MAX):
                group.create_task(lane())

    async def _copy_block(self, reader: Reader, writer: Writer, offset: int, length: int) -> int:
        """Copy up to `length` bytes; returns how many there were."""
        async with self._blocks:
            block = self._free.pop() if self._free else bytearray(BLOCK_BYTES)
            try:
                view = memoryview(block)[:length]
                got = await reader.read_into(offset, view)
                if got:
                    await writer.write(offset, view[:got])
            finally:
                self._free.append(block)
        self.counts.bytes += got
        self._moved(self.counts)
        return got

    async def _remove_half(self, source: Source) -> None:
        try:
            await self._target.remove(source.target)
        except OSError as error:
            shown = self._target.show(source.target)
            self._failed(shown, f"is incomplete and could not be removed: {reason(error)}")

    async def _set_attributes(self, source: Source) -> bool:
        return await self._reported(source, self._target.set_attributes(source.target, source.item))

    async def _reported(self, source: Source, setting: Coroutine[None, None, None]) -> bool:
        try:
            await setting
        except OSError as error:
            self._fail(source, error)
            return False
        return True

    def _fail(self, source: Source, error: OSError | str) -> None:
        self.counts.failures += 1
        text = error if isinstance(error, str) else reason(error)
        target = self._target.show(source.target)
        at_target = not isinstance(error, str) and error.filename is not None and error.filename != source.path
        self._failed(target if at_target else source.place.show(source.path), text)
        if not isinstance(error, str) and error.errno in HOPELESS:
            raise Hopeless


class _FirstError:
    """Turns the group of errors that a task group raises into the first of them."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None


def _shrank(reader: Reader, size: int) -> OSError:
    return OSError(f"became shorter while it was copied: {size} bytes of {reader.size}")
