"""Reads that memory does not answer: gathered, sent to the daemons in few frames, answered one by one.

All reads that come in one turn of the loop go in one batch. While more than `FEW` small reads are under way, further
ones gather, so that many at once share frames, and few readers never wait for each other. Large
reads go at once, each in a batch of its own: several side by side are what read-ahead lives of.

A read is answered as soon as its own bytes are there; one that fails does not touch the others. Nothing is read beyond
what the kernel asked for.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from fs_client.file_ref import FileRef
from fs_client.fuse.data_cache import Reservation
from fs_common import eager, tracing
from fs_common.buffers import Buffer
from fs_common.errors import Code, EmberError
from fs_common.limits import KIB

if TYPE_CHECKING:
    from fs_client.fuse.kernel_request import Request
    from fs_client.fuse.mount import Mount

FEW = 3
"""More than one for each of a few servers: from there on a frame shared saves more time than waiting costs."""
LARGE = 128 * KIB


class ReadGather:
    def __init__(self, mount: "Mount") -> None:
        self._mount = mount
        self._reader = mount.fs.reader
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Read] = []
        self._under_way = 0
        """Small reads that are sent and not answered."""
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, request: "Request", file: FileRef, offset: int, size: int, reservation: Reservation | None) -> None:
        """Read `size` bytes (1 at least, within the file) and answer the request with them."""
        buffer: Buffer | None = None
        if reservation is not None:
            place = reservation.view[:size]
        elif size < LARGE:
            place = memoryview(bytearray(size))
        else:
            buffer = self._mount.pool.take(size)
            place = buffer.view
        read = _Read(request, file, offset, size, place, reservation, buffer)
        if size >= LARGE:
            self._start([read], small=False)
        else:
            self._waiting.append(read)

    def turn_done(self) -> None:
        """The requests of this turn are all here."""
        if self._waiting and self._under_way <= FEW:
            waiting, self._waiting = self._waiting, []
            self._under_way += len(waiting)
            self._start(waiting, small=True)

    def _start(self, reads: "list[_Read]", *, small: bool) -> None:
        for read in reads:
            # The file may have been cut since the read came.
            left = read.file.length - read.offset
            if left < read.size:
                read.size = max(left, 0)
                read.place = read.place[: read.size]
        # One frame may answer many reads: it has the id of the first.
        other = tracing.current()
        tracing.enter(reads[0].request.trace)
        _Batch(self, reads, small).start()
        tracing.enter(other)

    def small_ended(self) -> None:
        """A small read is answered, one way or the other."""
        self._under_way -= 1
        if self._waiting:
            self.turn_done()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        result = eager.start(coroutine, self._loop)
        if result is not None:
            self._tasks.add(result)
            result.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for the reads that are under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


class _Read:
    __slots__ = ("buffer", "file", "offset", "place", "request", "reservation", "size")

    def __init__(
        self,
        request: "Request",
        file: FileRef,
        offset: int,
        size: int,
        place: memoryview,
        reservation: Reservation | None,
        buffer: Buffer | None,
    ) -> None:
        self.request = request
        self.file = file
        self.offset = offset
        self.size = size
        self.place = place
        self.reservation = reservation
        self.buffer = buffer
        """Memory to give back after the answer."""


class _Batch:
    __slots__ = ("_gather", "_reads", "_small")

    def __init__(self, gather: ReadGather, reads: list[_Read], small: bool) -> None:
        self._gather = gather
        self._reads = reads
        self._small = small

    def start(self) -> None:
        reads = self._reads
        numbers = [number for number, read in enumerate(reads) if read.size]
        if len(numbers) < len(reads):
            for number in set(range(len(reads))).difference(numbers):
                self._ended(number, None)
        ranges = [(read.file, read.offset, read.size) for read in reads if read.size]
        places = [read.place for read in reads if read.size]
        gather = self._gather
        if len(numbers) == len(reads):
            ended = self._ended
        else:

            def ended(number: int, error: EmberError | None) -> None:
                self._ended(numbers[number], error)

        try:
            gather._reader.start(ranges, places, ended, gather.spawn)
        except EmberError:
            # Routing is too old to know where one of the files is: each finds out by itself.
            for number in numbers:
                gather.spawn(self._alone(number))

    async def _alone(self, number: int) -> None:
        read = self._reads[number]
        try:
            await self._gather._reader.read([(read.file, read.offset, read.size)], read.place)
        except EmberError as error:
            self._ended(number, error)
        except BaseException as error:
            self._ended(number, EmberError(Code.CANCELLED, f"the read was given up: {error!r}"))
            raise
        else:
            self._ended(number, None)

    def _ended(self, number: int, error: EmberError | None) -> None:
        read = self._reads[number]
        mount = self._gather._mount
        if error is None:
            mount.channel.answer(read.request, (read.place,))
            if read.reservation is not None:
                mount.cache.filled(read.reservation)
        else:
            mount.channel.fail(read.request, mount.errno(error))
            if read.reservation is not None:
                mount.cache.failed(read.reservation)
        if read.buffer is not None:
            read.buffer.release()
        if self._small:
            self._gather.small_ended()
