"""Bytes of files that the daemon keeps, where the kernel's own cache was passed by: by reads, or by writes.

Memory is one mapping for each chunk, of which only the pages that hold bytes exist. A read that memory does not answer
reserves its pages, lands in them, and makes them valid; a hit is a slice of that memory, copied by nobody. What was
written and stored is copied there (`keep`), of small files alone: most are read soon by whoever wrote them.

States of a page:

| state    | means                                       | next                                                |
| -------- | ------------------------------------------- | --------------------------------------------------- |
| EMPTY    | nothing is there, nobody writes to it       | `reserve`: FILLING; `keep`: VALID                   |
| FILLING  | one read is landing in it                   | `filled`: VALID; `failed`: EMPTY; `invalidate`: DOOMED |
| DOOMED   | a read is landing whose bytes are old already | `filled`, `failed`: EMPTY                          |
| VALID    | bytes of the file                           | `invalidate`: EMPTY                                 |

So only one read at a time lands in a page, and never in one whose bytes may be on their way to a program.

What is kept of an inode is of one version and length, as known at the last open: another one drops it (`agree`).
Bound: `limit` bytes of pages that are not EMPTY, and `CHUNKS_MAX` mappings; what was not used for longest goes first.

Pure but for the memory it maps. Used on the event loop only.
"""

import mmap

from fs_common.checks import check

PAGE = 4096
CHUNKS_MAX = 16384
"""The system bounds the mappings of a process (65,530 by default)."""

EMPTY = 0
FILLING = 1
DOOMED = 2
VALID = 3
_ALL_VALID = bytes([VALID])


class CachedChunk:
    """Of one chunk of a file."""

    __slots__ = ("memory", "pages", "taken", "used")

    def __init__(self, size: int) -> None:
        self.memory = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self.pages = bytearray(size // PAGE)
        self.taken = 0
        """Pages that are not EMPTY."""
        self.used = True
        """Since the last look for something to drop."""


class Reservation:
    """Pages of one chunk that a read is about to fill."""

    __slots__ = ("chunk", "first", "last", "view")

    def __init__(self, chunk: CachedChunk, first: int, last: int, view: memoryview) -> None:
        self.chunk = chunk
        self.first = first
        self.last = last
        """One behind the last page."""
        self.view = view
        """Where the read lands."""


class _Kept:
    """Which chunks of one inode are here, and of which contents."""

    __slots__ = ("indexes", "length", "version")

    def __init__(self) -> None:
        self.indexes: set[int] = set()
        self.version = -1
        self.length = -1


class DataCache:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes; 0: nothing is kept."""
        self.held = 0
        """Bytes of pages that are not EMPTY, of chunks that are here."""
        self.hits = 0
        self.misses = 0
        self._chunks: dict[tuple[int, int], CachedChunk] = {}
        """By (inode, chunk index), in the order of the search for something to drop."""
        self._inodes: dict[int, _Kept] = {}

    def get(self, inode: int, index: int, offset: int, length: int) -> memoryview | None:
        """`length` bytes at `offset` of a chunk (1 at least, within the chunk), if all of them are here.

        The view is good until the event loop goes on.
        """
        chunk = self._chunks.get((inode, index))
        if chunk is not None:
            first = offset >> 12
            last = (offset + length + 4095) >> 12
            pages = chunk.pages
            if pages[first] == VALID and (last - first == 1 or pages.count(_ALL_VALID, first, last) == last - first):
                chunk.used = True
                self.hits += 1
                return chunk.memory[offset : offset + length]
        self.misses += 1
        return None

    def reserve(self, inode: int, index: int, chunk_size: int, offset: int, length: int) -> Reservation | None:
        """Room for a read of these bytes. None: nothing is kept, or not whole pages, or pages that are in use."""
        if offset & 4095 or length & 4095 or length > self.limit:
            return None
        key = (inode, index)
        chunk = self._chunks.get(key)
        first = offset >> 12
        last = (offset + length) >> 12
        if chunk is None:
            self._make_room(length)
            chunk = self._chunks[key] = CachedChunk(chunk_size)
            kept = self._inodes.get(inode)
            if kept is None:
                kept = self._inodes[inode] = _Kept()
            kept.indexes.add(index)
        elif chunk.pages.count(b"\0", first, last) != last - first:
            return None
        else:
            self._make_room(length, but=chunk)
        count = last - first
        chunk.pages[first:last] = bytes([FILLING]) * count
        chunk.taken += count
        self.held += count * PAGE
        return Reservation(chunk, first, last, chunk.memory[offset : offset + length])

    def holds(self, inode: int) -> bool:
        """Whether anything of it may be here."""
        kept = self._inodes.get(inode)
        return kept is not None and bool(kept.indexes)

    def keep(self, inode: int, index: int, chunk_size: int, offset: int, data: memoryview, *, last: bool) -> None:
        """Copy bytes of a chunk that the daemons have by now: the pages that are whole, or all from the first whole one
        on, if they are the file's `last`. The inode's version is known."""
        kept = self._inodes.get(inode)
        first = (offset + PAGE - 1) // PAGE
        end = offset + len(data)
        stop = (end + PAGE - 1) // PAGE if last else end // PAGE
        size = (stop - first) * PAGE
        if kept is None or size <= 0 or size > self.limit:
            return
        chunk = self._chunks.get((inode, index))
        self._make_room(size, but=chunk)
        if chunk is None:
            chunk = self._chunks[inode, index] = CachedChunk(chunk_size)
            kept = self._inodes.setdefault(inode, kept)
            kept.indexes.add(index)
        elif chunk.pages.count(b"\0", first, stop) != stop - first:
            return
        begin = first * PAGE
        chunk.memory[begin:end] = data[begin - offset :]
        chunk.pages[first:stop] = bytes([VALID]) * (stop - first)
        chunk.taken += stop - first
        self.held += size

    def filled(self, reservation: Reservation) -> None:
        """The read has landed. Bytes behind the file's end count as well: nobody reads them."""
        self._end(reservation, VALID)

    def failed(self, reservation: Reservation) -> None:
        self._end(reservation, EMPTY)

    def _end(self, reservation: Reservation, state: int) -> None:
        chunk = reservation.chunk
        pages = chunk.pages
        for page in range(reservation.first, reservation.last):
            check(pages[page] in (FILLING, DOOMED), "a reserved page waits for its read", page, pages[page])
            if pages[page] == DOOMED or state == EMPTY:
                pages[page] = EMPTY
                self._give_up(chunk, 1)
            else:
                pages[page] = VALID

    def _give_up(self, chunk: CachedChunk, pages: int) -> None:
        if chunk.taken >= 0:
            chunk.taken -= pages
            self.held -= pages * PAGE

    def agree(self, inode: int, version: int, length: int) -> None:
        """The file is opened and has this version and length: what is of another one goes."""
        kept = self._inodes.get(inode)
        if kept is None:
            if self.limit:
                kept = self._inodes[inode] = _Kept()
            else:
                return
        elif kept.version != version or kept.length != length:
            self.invalidate(inode)
        kept.version = version
        kept.length = length

    def follow(self, inode: int, version: int, length: int) -> None:
        """The version and length are now these, by changes of this mount that were taken out by `invalidate`."""
        kept = self._inodes.get(inode)
        if kept is not None:
            kept.version = version
            kept.length = length

    def invalidate(self, inode: int, chunk_size: int = 0, start: int = 0, end: int | None = None) -> None:
        """Bytes `[start, end)` of a file are old (all: `end` None). `chunk_size` is needed for a part only."""
        kept = self._inodes.get(inode)
        if kept is None or not kept.indexes:
            return
        if end is None and not start:
            for index in kept.indexes:
                self._drop(self._chunks.pop((inode, index)))
            kept.indexes.clear()
            return
        first_index = start // chunk_size
        last_index = max(kept.indexes) if end is None else max(end - 1, start) // chunk_size
        for index in sorted(kept.indexes):
            if first_index <= index <= last_index:
                chunk = self._chunks[inode, index]
                begin = max(start - index * chunk_size, 0) >> 12
                stop = len(chunk.pages)
                if end is not None:
                    stop = min(stop, (end - index * chunk_size + 4095) >> 12)
                self._empty(chunk, begin, stop)

    def _empty(self, chunk: CachedChunk, begin: int, stop: int) -> None:
        pages = chunk.pages
        for page in range(begin, stop):
            if pages[page] == VALID:
                pages[page] = EMPTY
                self._give_up(chunk, 1)
            elif pages[page] == FILLING:
                pages[page] = DOOMED

    def closed(self, inode: int) -> None:
        """Nobody has it open: it is remembered only for what is here of it."""
        kept = self._inodes.get(inode)
        if kept is not None and not kept.indexes:
            del self._inodes[inode]

    def forget(self, inode: int) -> None:
        """The inode is gone from here."""
        self.invalidate(inode)
        self._inodes.pop(inode, None)

    def _drop(self, chunk: CachedChunk) -> None:
        """Its memory goes with the last read that lands in it and the last view of it."""
        self.held -= chunk.taken * PAGE
        chunk.taken = -1
        # Nobody finds it any more; reads that are landing end in `_end` with nothing left to count.
        for page, state in enumerate(chunk.pages):
            if state == FILLING:
                chunk.pages[page] = DOOMED

    def shrink(self) -> None:
        """The bound may have become lower."""
        for chunk in self._chunks.values():
            chunk.used = False
        self._make_room(0)

    def _make_room(self, size: int, but: CachedChunk | None = None) -> None:
        while self._chunks and (self.held + size > self.limit or len(self._chunks) >= CHUNKS_MAX):
            key = next(iter(self._chunks))
            chunk = self._chunks.pop(key)
            if chunk is but and len(self._chunks) == 0:
                self._chunks[key] = chunk
                return
            if chunk.used or chunk is but:
                chunk.used = False
                self._chunks[key] = chunk
                continue
            kept = self._inodes[key[0]]
            kept.indexes.discard(key[1])
            if not kept.indexes:
                del self._inodes[key[0]]
            self._drop(chunk)
