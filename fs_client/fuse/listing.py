"""What an open directory has been told of its entries: a few pages, however long the listing is.

An entry's place in the listing is its number, from 0 on, and what a program may come back to (`telldir`). So what was
once at a place is never at another one until the listing starts anew, whatever is made and removed meanwhile. Of pages
that are far from where the program reads only the names are kept, packed: some bytes each. Such a page is fetched again
when somebody comes back to it (`recalled`): names that are gone leave their places empty, and new ones are not shown.

Pure. Used by `ops.directories` and, for what is handed over, `handover`.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping

from fs_common.records.meta import DirectoryEntry

HELD_MAX = 3
"""Pages whose entries are here: where the program reads, the one before, and the one that is fetched ahead."""


class Page:
    """Entries that follow each other, in the order of their names; at least one."""

    __slots__ = ("_names", "after", "count", "entries", "first")

    def __init__(self, first: int, after: bytes, entries: list[DirectoryEntry | None]) -> None:
        self.first = first
        """Place of its first entry."""
        self.after = after
        """The name before it; empty: there is none."""
        self.count = len(entries)
        self.entries: list[DirectoryEntry | None] | None = entries
        """None instead of an entry: it is gone. None at all: they have to be recalled."""
        self._names = b""
        """Packed; empty: `entries` still has all of them."""

    @property
    def end(self) -> int:
        return self.first + self.count

    def names(self) -> list[bytes]:
        """Of all its entries, gone or not."""
        if not self._names:
            assert self.entries is not None
            return [entry.name for entry in self.entries if entry is not None]
        return zlib.decompress(self._names).split(b"/")

    def pack(self) -> bytes:
        if not self._names:
            self._names = zlib.compress(b"/".join(self.names()), 1)
        return self._names

    def drop(self) -> None:
        """Keep the names alone."""
        self.pack()
        self.entries = None

    def recalled(self, found: Mapping[bytes, DirectoryEntry]) -> None:
        """The entries as they are now."""
        names = self.names()
        self.pack()
        self.entries = [found.get(name) for name in names]

    def has_from(self, place: int) -> bool:
        """An entry at `place` or behind it is here and not gone."""
        entries = self.entries
        if entries is None:
            return False
        return any(entries[index] is not None for index in range(place - self.first, self.count))


class Listing:
    """From one start to the next (`rewinddir`)."""

    __slots__ = ("_firsts", "_held", "complete", "last", "pages")

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self._firsts: list[int] = []
        self._held: list[Page] = []
        """Those with entries."""
        self.last = b""
        """Name of the last entry."""
        self.complete = False
        """There are no more."""

    @property
    def count(self) -> int:
        """Entries so far."""
        return self.pages[-1].end if self.pages else 0

    def add(self, entries: Iterable[DirectoryEntry], complete: bool) -> None:
        """What follows the last page."""
        page = Page(self.count, self.last, list(entries))
        self.complete = complete
        if page.count:
            self.last = page.names()[-1]
            self._add(page)
            self._hold(page)

    def _add(self, page: Page) -> None:
        self.pages.append(page)
        self._firsts.append(page.first)

    def page_at(self, place: int) -> Page | None:
        """None: it is not there yet, or behind the end."""
        if place >= self.count:
            return None
        return self.pages[bisect_right(self._firsts, place) - 1]

    def recalled(self, page: Page, found: Mapping[bytes, DirectoryEntry]) -> None:
        """What `page` was made of, as far as it is still there, was fetched again."""
        page.recalled(found)
        self._hold(page)

    def _hold(self, page: Page) -> None:
        """It has entries, and is where the program reads, or the next one."""
        if page not in self._held:
            self._held.append(page)
        while len(self._held) > HELD_MAX:
            farthest = max(self._held, key=lambda held: abs(held.first - page.first))
            self._held.remove(farthest)
            farthest.drop()

    # Handing over

    def packed(self) -> list[tuple[int, bytes]]:
        """(how many, their names packed) of each page."""
        return [(page.count, page.pack()) for page in self.pages]

    @classmethod
    def unpacked(cls, pages: Iterable[tuple[int, bytes]], complete: bool) -> "Listing":
        """What `packed` gave: everything has to be recalled."""
        listing = cls()
        for count, names in pages:
            page = Page(listing.count, listing.last, [])
            page.count, page.entries, page._names = count, None, names
            listing.last = page.names()[-1]
            listing._add(page)
        listing.complete = complete
        return listing
