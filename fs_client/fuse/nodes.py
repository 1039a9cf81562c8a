"""What the daemon knows of inodes and names, and for how long.

A `Node` is kept while the kernel refers to its inode, while the file is open, and, unless it was removed, until its
attributes are old. A name that does not exist is remembered as long as it is believed.

Attributes and names are believed for a bounded time from the moment their answer came; the kernel is told only what is
left of that time, so that nothing is shown longer than the mount's consistency allows.

Promises: where the service has promised to tell of changes before those who make them have their answer, what is known
is believed until it tells (`told`), as long as the lease lasts (`believed_until`). The kernel still is told the bounded
time alone and asks again: from memory it is answered with what is true now. While the names of a directory are
promised, everything in `Names.entries` is covered by the promise.

Order of knowledge: an answer may be older than a change that this mount made while it was on its way. Every change
made here takes a new stamp when it begins and when it has ended; an answer is adopted only if its request was sent
after the last change of that inode. `stamp()` is taken before a request is sent.

Pure: times are given by the caller, seconds of one monotonic clock. Used on the event loop only.
"""

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from fs_common.records.following import Promised
from fs_common.records.meta import Attributes, DirectoryEntry

if TYPE_CHECKING:
    from fs_client.fuse.files import File

ATTRIBUTES, NAMES = Promised.ATTRIBUTES, Promised.NAMES
NEVER = float("-inf")
NOT_PROMISED = -1
FOREVER = float("inf")
UNMEASURED = -1
UNTOLD = 0
"""A ctime that the kernel does not believe: it asks for times after each write of a program."""


class Node:
    """An inode."""

    __slots__ = (
        "asked",
        "attributes",
        "cached_version",
        "changed",
        "counted",
        "directory",
        "expires",
        "file",
        "inode",
        "lookups",
        "plain_until",
        "promised",
        "removed",
        "seen",
        "sizes",
        "stored_bytes",
        "stored_version",
        "told_ctime_ns",
        "told_version",
    )

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.attributes: Attributes | None = None
        """The last that were adopted."""
        self.asked = 0
        """Stamp of the question, or of the change, whose answer they are: what began before it may be in them."""
        self.expires = NEVER
        """Until when `attributes` are believed, if they are not promised."""
        self.promised = NOT_PROMISED
        """Stamp of the answer that promised them: the service tells if others change them."""
        self.counted = NOT_PROMISED
        """Of a directory whose promise ended for its times alone: the stamp of `promised`. Its number of links still is
        the service's, less what this mount has under way."""
        self.changed = 0
        """Stamp of the last change made here."""
        self.lookups = 0
        """References the kernel has by look-ups."""
        self.seen = 1
        """`lookups` when `forgetting` looked at it last: more since say that it is of use."""
        self.file: File | None = None
        """While it is open here."""
        self.directory: Names | None = None
        """Of a directory: what is known of its names."""
        self.cached_version = -1
        """Version of the contents that the kernel's pages are of; -1: it has none that could be kept."""
        self.told_version = -1
        """Version of the contents whose length the kernel was told last; -1: none that it may still believe."""
        self.told_ctime_ns = UNTOLD
        """That the kernel was told last: attributes that have the same version differ in it."""
        self.stored_bytes = 0
        """Of a sparse file: what it takes on the daemons, once, whatever the replicas."""
        self.stored_version = UNMEASURED
        """Version of the contents that `stored_bytes` was asked for at."""
        self.sizes: tuple[int, ...] = ()
        """Lengths that the kernel may believe (`kernel_size`); none: any."""
        self.plain_until = NEVER
        """Until then it has certainly no extended attributes."""
        self.removed = False
        """This mount took its last name; what is known of it now is all there will be."""


class Names:
    """What is known of one directory's names."""

    __slots__ = (
        "ahead_misses",
        "ahead_size",
        "complete",
        "complete_until",
        "entries",
        "last_miss",
        "listed",
        "promised",
        "spans",
    )

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[int, float]] = {}
        """Name to (inode, until when that is believed without a promise); inode 0: there is no such name."""
        self.promised = False
        """The service tells if others change names here."""
        self.complete = False
        """Promised, and `entries` has all names there are."""
        self.listed: bytes | None = None
        """Promised, and `entries` has all names up to this one, by a listing that is under way; None: there is none."""
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

    def unpromised(self) -> None:
        """What is known is believed as long as without a promise."""
        self.promised = self.complete = False
        self.listed = None

    def clear(self) -> None:
        """Nothing is known but what belongs to the mount itself."""
        self.entries = {name: found for name, found in self.entries.items() if found[1] == FOREVER}

    def forget(self) -> None:
        """As if it had never been asked for."""
        self.unpromised()
        self.clear()
        self.spans.clear()
        if self.complete_until != FOREVER:
            self.complete_until = NEVER

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
        """Those that were of no use for longest come first."""
        self.named: dict[int, Names] = {}
        """`Node.directory` of those that have one; first where nothing was listed for longest."""
        self.forgotten = 0
        """Nodes that the kernel has given up, in all."""
        self.names_about = 0
        """Names in all of them, or more; `forgetting` counts anew."""
        self._stamp = 0
        self._floor = 0
        """Highest `changed` of nodes that were dropped: an answer about an unknown inode has to be newer."""
        self.believed_until = NEVER
        """End of the lease under which promises are believed."""
        self._promised_from = 0
        """What was promised to requests sent before this stamp is not believed."""
        self._names_promised_from = 0
        """The same, of names."""
        self.loose: deque[tuple[float, int]] = deque()
        """(when, inode): nodes to drop then, if nobody refers to them; times ascend. Each node that nobody refers to is
        in it."""
        self._absent: deque[tuple[float, int, bytes]] = deque()
        """(when, directory, name): names that do not exist, to drop then if they are not believed; times ascend."""
        self.root = root
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
            self._doubted(node)
        return self._stamp

    def plain(self, node: Node, now: float) -> None:
        """It was just made here: it has no extended attributes, unless its directory hands some down."""
        attributes = node.attributes
        assert attributes is not None
        if not attributes.acl and not attributes.default_acl:
            node.plain_until = now + self.attribute_s

    def change_names(self, *directories: int) -> None:
        """Names of these directories change now: answers that are on their way say nothing about them."""
        self._stamp += 1
        for inode in directories:
            self.node(inode).changed = self._stamp

    def touched(
        self, directory: int, time_ns: int, now: float, sent: int, links: int = 0, *, exact: bool = False
    ) -> None:
        """This mount changed names of the directory, at about `time_ns`, by a request that began at stamp `sent`, and
        it has so many more subdirectories.

        What else is known of it stays believed as long as it was: the kernel asks for a directory's attributes after
        every change in it, if only to check permissions. A promise goes on if the time is `exact`, the service's own,
        and no other change of this mount crossed this one.

        A number of links is derived only from one that others cannot have changed unseen, and that was asked for before
        this change began: so it has all changes but those of this mount that are under way, each of which is counted
        here once. From any other nothing is derived: the next one who wants to know asks.
        """
        node = self.node(directory)
        promised = max(node.promised, node.counted)
        known = promised >= self._promised_from and self.believed_until > now and node.asked < sent
        if links and not known:
            links = 0
            self._doubted(node)
        elif not exact or node.changed != sent:
            node.promised, node.counted = NOT_PROMISED, promised
        self.change_names(directory)
        attributes = node.attributes
        if attributes is not None:
            if attributes.mtime_ns > time_ns + CLOCKS_APART_NS:
                # Somebody set it: the service has its own time there now.
                self._doubted(node)
            time_ns = max(time_ns, attributes.mtime_ns)
            node.attributes = msgspec.structs.replace(
                attributes, mtime_ns=time_ns, ctime_ns=time_ns, links=attributes.links + links
            )

    @staticmethod
    def _doubted(node: Node) -> None:
        """Its attributes are old, or may be."""
        node.expires = NEVER
        node.promised = node.counted = NOT_PROMISED

    # Promises

    def fresh(self, node: Node, now: float) -> bool:
        """Its attributes may be believed; `node.expires` says how long, at most `attribute_s`."""
        if node.expires > now:
            return node.attributes is not None
        if self.certain(node, now):
            node.expires = min(self.believed_until, now + self.attribute_s)
            return True
        return False

    def certain(self, node: Node, now: float) -> bool:
        """Its attributes are what the service has now, or nobody has been told of others yet."""
        return node.promised >= self._promised_from and self.believed_until > now and node.attributes is not None

    def certainly_absent(self, directory: int, name: bytes, now: float) -> bool:
        """There is no such name, and nobody has been told otherwise yet."""
        node = self.by_inode.get(directory)
        names = None if node is None else node.directory
        if names is None or not names.promised or self.believed_until <= now:
            return False
        found = names.entries.get(name)
        return names.complete if found is None else not found[0]

    def told(self, inodes: list[int], directories: list[int]) -> None:
        """Others have changed attributes of these, and names of those."""
        stamp = self._stamp = self._stamp + 1
        by_inode = self.by_inode
        for inode in (*inodes, *directories):
            node = by_inode.get(inode)
            if node is None:
                # An answer may be on its way.
                self._floor = stamp
            else:
                node.changed = stamp
        for inode in inodes:
            node = by_inode.get(inode)
            if node is not None and not node.removed:
                self._doubted(node)
        for inode in directories:
            node = by_inode.get(inode)
            if node is not None and node.directory is not None:
                node.directory.unpromised()
                node.directory.clear()
                node.directory.spans.clear()

    def lost(self) -> None:
        """Nothing is promised any more; what is known is believed as long as without promises."""
        self.doubt()
        self._names_promised_from = self._stamp
        self.believed_until = NEVER
        for node in self.by_inode.values():
            if node.directory is not None:
                node.directory.unpromised()

    def doubt(self) -> None:
        """This mount has changed an inode without knowing which: it is not told, so no promise of attributes is
        believed any more."""
        self._stamp += 1
        self._promised_from = self._stamp

    def promise_names(self, directory: int, stamp: int, *, empty: bool = False) -> Names:
        """An answer to a request sent at `stamp` promises the directory's names. `empty`: it has none."""
        names = self.names(directory)
        if not names.promised and stamp >= self._names_promised_from and stamp >= self.node(directory).changed:
            names.clear()
            names.promised = True
            names.complete = empty
        return names

    # Nodes

    def node(self, inode: int) -> Node:
        node = self.by_inode.get(inode)
        return self._made(inode, NEVER) if node is None else node

    def _made(self, inode: int, keep_until: float) -> Node:
        node = self.by_inode[inode] = Node(inode)
        node.changed = self._floor
        self.loose.append((keep_until, inode))
        return node

    def adopt(self, attributes: Attributes, stamp: int, now: float, promised: int = 0) -> Node:
        """Learn the attributes of an inode from an answer to a request sent at `stamp`."""
        inode = attributes.inode
        node = self.by_inode.get(inode)
        if node is None:
            node = self._made(inode, now + self.attribute_s)
        if stamp >= node.changed:
            node.attributes = attributes
            node.asked = stamp
            node.expires = now + self.attribute_s
            node.promised = stamp if promised & ATTRIBUTES else NOT_PROMISED
            node.counted = NOT_PROMISED
            node.removed = False
        elif node.attributes is None:
            node.attributes = attributes
            node.asked = stamp
        return node

    def show_once(self, attributes: Attributes, stamp: int) -> None:
        """The answer to a question sent at `stamp` that a change of this mount has crossed, as all before it: what the
        service had after the question was asked is what the one who asked is shown, and nobody believes it."""
        node = self.node(attributes.inode)
        node.attributes = attributes
        node.asked = stamp
        self._doubted(node)

    def learn(
        self,
        attributes: Attributes,
        now: float,
        sent: int | None = None,
        *,
        promised: int = 0,
        new_since: int | None = None,
    ) -> Node:
        """Adopt the answer to a change of this mount: answers that are still on their way are older.

        `sent`: of `change`. Where another change of the inode began or was answered since, nobody knows which of the
        two the service made first, so neither answer is believed: the next one who wants to know asks.

        `promised`: of the answer. That nothing crossed it is known where `sent` is given; of an inode that the request
        has made, by `new_since`, the stamp before it.
        """
        self._stamp += 1
        node = self.node(attributes.inode)
        alone = sent is None or node.changed == sent
        since = sent if alone else None
        if new_since is not None and node.changed <= new_since:
            since = new_since
        node.changed = node.asked = self._stamp
        node.attributes = attributes
        node.expires = now + self.attribute_s if alone else NEVER
        node.promised = since if promised & ATTRIBUTES and since is not None else NOT_PROMISED
        node.counted = NOT_PROMISED
        node.removed = node.removed and not attributes.links
        return node

    def forget(self, inode: int, count: int, now: float) -> None:
        """The kernel gives up `count` look-ups."""
        node = self.by_inode.get(inode)
        if node is None:
            return
        node.lookups = max(node.lookups - count, 0)
        if not node.lookups:
            self.forgotten += 1
            # Before those that were fetched ahead and are not asked for yet.
            self.loose.appendleft((now, inode))

    def compact(self) -> None:
        """Tables that were large become as small as what is in them: a dict never shrinks by itself. Costs what is
        here."""
        tables: list[dict[Any, Any]] = [node.directory.entries for node in self.by_inode.values() if node.directory]
        for table in (*tables, self.by_inode):
            kept = list(table.items())
            table.clear()
            table.update(kept)

    def sweep(self, now: float) -> None:
        """Drop nodes that nobody refers to and that are old or removed, and names that are known not to exist and old.
        Called now and then; costs what it drops."""
        loose, by_inode = self.loose, self.by_inode
        while loose and loose[0][0] <= now:
            _, inode = loose.popleft()
            node = by_inode.get(inode)
            if node is None or node.lookups or node.file is not None or inode == self.root:
                continue
            if node.expires > now and not node.removed:
                loose.append((node.expires if node.expires != FOREVER else now + 60.0, inode))
                continue
            self.drop(node)
        absent = self._absent
        while absent and absent[0][0] <= now:
            _, directory, name = absent.popleft()
            node = by_inode.get(directory)
            if node is None or node.directory is None:
                continue
            found = node.directory.entries.get(name)
            if found is not None and not found[0]:
                if found[1] > now:
                    absent.append((found[1], directory, name))
                else:
                    del node.directory.entries[name]

    def drop(self, node: Node) -> None:
        self._floor = max(self._floor, node.changed)
        del self.by_inode[node.inode]
        self.named.pop(node.inode, None)

    # Names

    def names(self, directory: int) -> Names:
        node = self.node(directory)
        if node.directory is None:
            node.directory = self.named[directory] = Names()
        return node.directory

    def find(self, directory: int, name: bytes, now: float) -> tuple[int, float] | None:
        """(inode, until when) of a name; inode 0: it does not exist. None: not known."""
        node = self.by_inode.get(directory)
        if node is None or node.directory is None:
            return None
        names = node.directory
        promised = names.promised and self.believed_until > now
        found = names.entries.get(name)
        if found is not None:
            if found[1] > now:
                return found
            if promised:
                inode = found[0]
                found = (inode, min(self.believed_until, now + (self.name_s if inode else self.absent_s)))
                names.entries[name] = found
                return found
            if not names.promised:
                del names.entries[name]
            return None
        if promised and names.complete:
            return 0, min(self.believed_until, now + self.absent_s)
        if names.complete_until > now:
            return 0, names.complete_until
        if not self._listings_exclude:
            return None
        until = names.listed_until(name, now)
        return None if until is None else (0, until)

    def put_name(self, directory: int, name: bytes, inode: int, now: float) -> None:
        """A name that this mount made, or was just told of. `inode` 0: it does not exist."""
        names = self.names(directory)
        if not inode and names.complete:
            names.entries.pop(name, None)
            return
        until = now + (self.name_s if inode else self.absent_s)
        names.entries[name] = (inode, until)
        self.names_about += 1
        if not inode:
            self._absent.append((until, directory, name))
        if len(names.entries) > NAMES_MAX:
            names.unpromised()
            names.clear()

    def drop_name(self, directory: int, name: bytes) -> None:
        """What the name is now is not known: it is asked for. Spans and completeness end, as they would answer."""
        names = self.names(directory)
        names.entries.pop(name, None)
        names.complete = False
        names.listed = None
        names.complete_until = NEVER
        names.spans.clear()

    def adopt_name(self, directory: int, name: bytes, inode: int, stamp: int, now: float) -> None:
        """A look-up's answer, unless names of the directory were changed here since it was sent."""
        if stamp >= self.node(directory).changed:
            self.put_name(directory, name, inode, now)

    def adopt_page(
        self,
        directory: int,
        after: bytes,
        entries: list[DirectoryEntry],
        more: bool,
        stamp: int,
        now: float,
        promised: int = 0,
    ) -> None:
        """A page of a directory, with attributes."""
        adopt = self.adopt
        until = now + self.name_s
        known = self.promise_names(directory, stamp) if promised & NAMES else self.names(directory)
        # A name that was put by a change here is newer than the page.
        fresh = stamp >= self.node(directory).changed
        names = known.entries
        self.names_about += len(entries)
        self.named[directory] = self.named.pop(directory)
        for entry in entries:
            if entry.attributes is not None:
                adopt(entry.attributes, stamp, now, promised)
            if fresh:
                names[entry.name] = (entry.inode, until)
        self._list_further(known, after, entries, more, fresh=fresh)
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

    def _list_further(
        self, known: Names, after: bytes, entries: list[DirectoryEntry], more: bool, *, fresh: bool
    ) -> None:
        """A page behind `after` was put into what is known, if it is `fresh`."""
        follows = not after or known.listed == after
        known.listed = None
        if known.promised and fresh and follows and len(known.entries) <= NAMES_MAX:
            if not more:
                known.complete = True
            elif entries:
                known.listed = entries[-1].name

    def listing(self, directory: int, now: float) -> list[DirectoryEntry] | None:
        """All entries in the order of names, if that is certain. None: they have to be asked for.

        Attributes in it are the last known, and may be old; types never change.
        """
        node = self.by_inode.get(directory)
        names = None if node is None else node.directory
        if names is None or not (names.promised and names.complete and self.believed_until > now):
            return None
        if len(names.entries) > LISTING_MAX:
            return None
        entries = []
        by_inode = self.by_inode
        for name, (inode, until) in sorted(names.entries.items()):
            if not inode or until == FOREVER:
                continue
            child = by_inode.get(inode)
            if child is None or child.attributes is None:
                return None
            entries.append(DirectoryEntry(name, inode, child.attributes.type, child.attributes))
        return entries


NAMES_MAX = 1 << 17
"""Names of one directory that are kept under a promise, about: about 200 bytes each."""
LISTING_MAX = 4096
"""A larger directory is listed by the service, page by page: sorting it here would hold up the loop."""
