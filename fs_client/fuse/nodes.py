"""What the daemon knows of inodes and names, and for how long.

A `Node` is kept while the kernel refers to its inode, while the file is open, and else until its attributes are old.
Attributes and names are believed for a bounded time from the moment their answer came; the kernel is told only what is
left of that time, so that nothing is shown longer than the mount's consistency allows.

Order of knowledge: an answer may be older than a change that this mount made while it was on its way. Every change
made here takes a new stamp when it begins and when it has ended; an answer is adopted only if its request was sent
after the last change of that inode. `stamp()` is taken before a request is sent.

Pure: times are given by the caller, seconds of one monotonic clock. Used on the event loop only.
"""

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from fs_common.records.meta import Attributes, DirectoryEntry

if TYPE_CHECKING:
    from fs_client.fuse.files import File

NEVER = float("-inf")
FOREVER = float("inf")


class Node:
    """An inode."""

    __slots__ = (
        "attributes",
        "cached_version",
        "changed",
        "directory",
        "expires",
        "file",
        "inode",
        "lookups",
        "plain_until",
        "removed",
        "told_ctime_ns",
        "told_version",
    )

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.attributes: Attributes | None = None
        """The last that were adopted."""
        self.expires = NEVER
        """Until when `attributes` are believed."""
        self.changed = 0
        """Stamp of the last change made here."""
        self.lookups = 0
        """References the kernel has by look-ups."""
        self.file: File | None = None
        """While it is open here."""
        self.directory: Names | None = None
        """Of a directory: what is known of its names."""
        self.cached_version = -1
        """Version of the contents that the kernel's pages are of; -1: it has none that could be kept."""
        self.told_version = -1
        """Version of the contents whose length the kernel was told last; -1: none that it may still believe."""
        self.told_ctime_ns = 0
        """Of the attributes that the kernel was told last: others that have the same version differ in it."""
        self.plain_until = NEVER
        """Until then it has certainly no extended attributes."""
        self.removed = False
        """This mount took its last name; what is known of it now is all there will be."""


class Names:
    """What is known of one directory's names."""

    __slots__ = ("ahead_misses", "ahead_size", "complete_until", "entries", "last_miss", "spans")

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[int, float]] = {}
        """Name to (inode, until when that is believed); inode 0: there is no such name."""
        self.complete_until = NEVER
        """Until then a name that is not in `entries` does not exist: directories of the control tree, and listings of
        data that does not change."""
        self.spans: list[tuple[bytes, bytes | None, float]] = []
        """(after, last, until): every name behind `after` up to `last` (None: the end) was listed. The newest few."""
        self.ahead_size = 0
        """How many names the next look-ahead asks for; see `look_ahead`."""
        self.ahead_misses = 0
        """Look-ups in a row that neither memory nor a page answered."""
        self.last_miss = NEVER

    def listed_until(self, name: bytes, now: float) -> float | None:
        """Until when a listing that would have had the name is believed; None: there is none."""
        for after, last, until in self.spans:
            if until > now and after < name and (last is None or name <= last):
                return until
        return None


CLOCKS_APART_NS = 1_000_000_000
"""How far the clocks of this machine and the service's may be apart."""
SPANS_MAX = 8
"""Listed spans remembered for a directory: walks by several programs at once."""


class Nodes:
    """All of them. `attribute_s` and `name_s`: how long answers are believed.

    A listing that lacks a name says that the name was not there then. Only with `listings_exclude`, for data that does
    not change, does that answer a later look-up: else a program that is told of a new file by another machine would
    not find it, though it has never asked for it before.
    """

    def __init__(
        self, root: int, attribute_s: float, name_s: float, absent_s: float, *, listings_exclude: bool = False
    ) -> None:
        self.attribute_s = attribute_s
        self.name_s = name_s
        self.absent_s = absent_s
        """For names that do not exist."""
        self._listings_exclude = listings_exclude
        self.by_inode: dict[int, Node] = {}
        self._stamp = 0
        self._floor = 0
        """Highest `changed` of nodes that were dropped: an answer about an unknown inode has to be newer."""
        self._loose: deque[tuple[float, int]] = deque()
        """(when, inode): nodes to drop then, if nobody refers to them; times ascend."""
        self.node(root).lookups = 1

    # Stamps

    def stamp(self) -> int:
        """Taken before a request is sent; given to `adopt` with its answer."""
        return self._stamp

    def change(self, *inodes: int) -> int:
        """This mount changes these inodes now (called before the request, and after the answer): what is known of
        their attributes is old, and answers to requests sent before this are not adopted. Returns what `learn` takes
        with the answer."""
        self._stamp += 1
        for inode in inodes:
            node = self.node(inode)
            node.changed = self._stamp
            node.expires = NEVER
        return self._stamp

    def change_names(self, *directories: int) -> None:
        """Names of these directories change now: answers that are on their way say nothing about them."""
        self._stamp += 1
        for inode in directories:
            self.node(inode).changed = self._stamp

    def touched(self, directory: int, time_ns: int, links: int = 0) -> None:
        """This mount changed names of the directory, at about `time_ns`, and it has so many more subdirectories.

        What else is known of it stays believed as long as it was: the kernel asks for a directory's attributes after
        every change in it, if only to check permissions.
        """
        self.change_names(directory)
        node = self.node(directory)
        attributes = node.attributes
        if attributes is not None:
            if attributes.mtime_ns > time_ns + CLOCKS_APART_NS:
                # Somebody set it: the service has its own time there now.
                node.expires = NEVER
            time_ns = max(time_ns, attributes.mtime_ns)
            node.attributes = msgspec.structs.replace(
                attributes, mtime_ns=time_ns, ctime_ns=time_ns, links=attributes.links + links
            )

    # Nodes

    def node(self, inode: int) -> Node:
        node = self.by_inode.get(inode)
        if node is None:
            node = self.by_inode[inode] = Node(inode)
        return node

    def adopt(self, attributes: Attributes, stamp: int, now: float) -> Node:
        """Learn the attributes of an inode from an answer to a request sent at `stamp`."""
        inode = attributes.inode
        node = self.by_inode.get(inode)
        if node is None:
            node = self.by_inode[inode] = Node(inode)
            node.changed = self._floor
            self._loose.append((now + self.attribute_s, inode))
        if stamp >= node.changed:
            node.attributes = attributes
            node.expires = now + self.attribute_s
            node.removed = False
        elif node.attributes is None:
            node.attributes = attributes
        return node

    def learn(self, attributes: Attributes, now: float, sent: int | None = None) -> Node:
        """Adopt the answer to a change of this mount: answers that are still on their way are older.

        `sent`: of `change`. Where another change of the inode began or was answered since, nobody knows which of the
        two the service made first, so neither answer is believed: the next one who wants to know asks.
        """
        self._stamp += 1
        node = self.node(attributes.inode)
        alone = sent is None or node.changed == sent
        node.changed = self._stamp
        node.attributes = attributes
        node.expires = now + self.attribute_s if alone else NEVER
        node.removed = node.removed and not attributes.links
        return node

    def forget(self, inode: int, count: int, now: float) -> None:
        """The kernel gives up `count` look-ups."""
        node = self.by_inode.get(inode)
        if node is None:
            return
        node.lookups = max(node.lookups - count, 0)
        if not node.lookups:
            self._loose.append((now, inode))

    def sweep(self, now: float) -> None:
        """Drop nodes that nobody refers to and that are old. Called now and then; costs what it drops."""
        loose = self._loose
        while loose and loose[0][0] <= now:
            _, inode = loose.popleft()
            node = self.by_inode.get(inode)
            if node is None or node.lookups or node.file is not None or inode == 1:
                continue
            if node.expires > now:
                loose.append((node.expires if node.expires != FOREVER else now + 60.0, inode))
                continue
            self._floor = max(self._floor, node.changed)
            del self.by_inode[inode]

    # Names

    def names(self, directory: int) -> Names:
        node = self.node(directory)
        if node.directory is None:
            node.directory = Names()
        return node.directory

    def find(self, directory: int, name: bytes, now: float) -> tuple[int, float] | None:
        """(inode, until when) of a name; inode 0: it does not exist. None: not known."""
        node = self.by_inode.get(directory)
        if node is None or node.directory is None:
            return None
        names = node.directory
        found = names.entries.get(name)
        if found is not None:
            if found[1] > now:
                return found
            del names.entries[name]
            return None
        if names.complete_until > now:
            return 0, names.complete_until
        if not self._listings_exclude:
            return None
        until = names.listed_until(name, now)
        return None if until is None else (0, until)

    def put_name(self, directory: int, name: bytes, inode: int, now: float) -> None:
        """A name that this mount made, or was just told of. `inode` 0: it does not exist."""
        until = now + (self.name_s if inode else self.absent_s)
        self.names(directory).entries[name] = (inode, until)

    def drop_name(self, directory: int, name: bytes) -> None:
        """What the name is now is not known: it is asked for. Spans and completeness end, as they would answer."""
        names = self.names(directory)
        names.entries.pop(name, None)
        names.complete_until = NEVER
        names.spans.clear()

    def adopt_name(self, directory: int, name: bytes, inode: int, stamp: int, now: float) -> None:
        """A look-up's answer, unless names of the directory were changed here since it was sent."""
        if stamp >= self.node(directory).changed:
            self.put_name(directory, name, inode, now)

    def adopt_page(
        self, directory: int, after: bytes, entries: list[DirectoryEntry], more: bool, stamp: int, now: float
    ) -> None:
        """A page of a directory, with attributes."""
        adopt = self.adopt
        until = now + self.name_s
        known = self.names(directory)
        # A name that was put by a change here is newer than the page.
        fresh = stamp >= self.node(directory).changed
        names = known.entries
        for entry in entries:
            if entry.attributes is not None:
                adopt(entry.attributes, stamp, now)
            if fresh:
                names[entry.name] = (entry.inode, until)
        if not fresh or not self.absent_s:
            return
        absent_until = now + self.absent_s
        if not after and not more and self._listings_exclude:
            known.complete_until = absent_until
            return
        last = entries[-1].name if more and entries else None
        if len(known.spans) >= SPANS_MAX:
            del known.spans[0]
        known.spans.append((after, last, absent_until))

    def drop_old_names(self, now: float) -> None:
        """Forget names whose time is over, where there are many."""
        for node in self.by_inode.values():
            names = node.directory
            if names is not None and len(names.entries) > NAMES_SWEPT_FROM:
                names.entries = {name: found for name, found in names.entries.items() if found[1] > now}


NAMES_SWEPT_FROM = 4096
"""Fewer names of a directory are left until they are asked for again."""
