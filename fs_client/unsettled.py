"""What writes did to a file's length and times and the metadata service does not know yet.

A writer tells the service how far it wrote (a hint), or asks it to find the exact length if a write failed. The hint is
taken out when it is sent, so that writes that are acknowledged meanwhile make a new one, and given back when the
service could not be told.

Used by `file.AsyncFile` and by the mount. Pure. Source: rules of length in the design's reference section 3.1.
"""

from typing import NamedTuple

from fs_common.records import meta


class Hint(NamedTuple):
    """One report to the service; fields are those of `meta.Fsync`."""

    written_end: int
    truncate_version: int
    exact: bool
    mtime_ns: int
    clear_set_id: bool
    sparse: bool

    @property
    def changes(self) -> int:
        """By how much the version of the file's contents grows when the service takes this."""
        return 1 if self.written_end >= 0 or self.exact else 0

    def fsync(self, inode: int, session: bytes, request: bytes, *, relaxed: bool = False) -> meta.Fsync:
        return meta.Fsync(inode, session, request, *self, relaxed)

    def close(self, inode: int, session: bytes, request: bytes, *, relaxed: bool = False) -> meta.Close:
        return meta.Close(inode, session, request, *self, relaxed)


class Unsettled:
    """See the module."""

    __slots__ = ("_clear_set_id", "_inexact", "_mtime_ns", "_sparse", "_written_end", "truncate_version")

    def __init__(self, truncate_version: int) -> None:
        self.truncate_version = truncate_version
        """The version `written_end` is a hint under."""
        self._written_end = -1
        """Highest end offset that was acknowledged since `truncate_version`; -1: nothing."""
        self._inexact = False
        """A write failed: bytes beyond `written_end` may be stored."""
        self._mtime_ns = 0
        """Of the newest write; 0: none."""
        self._clear_set_id = False
        self._sparse = False

    def __bool__(self) -> bool:
        return self._written_end >= 0 or self._inexact or self._mtime_ns > 0 or self._clear_set_id

    @property
    def written_end(self) -> int:
        return self._written_end

    @property
    def mtime_ns(self) -> int:
        return self._mtime_ns

    def acknowledged(self, end: int, now_ns: int) -> None:
        """Bytes up to `end` are stored."""
        if end > self._written_end:
            self._written_end = end
        self._mtime_ns = now_ns

    def failed(self) -> None:
        """A write failed, or nobody knows what became of it."""
        self._inexact = True

    def unprivileged(self) -> None:
        """Somebody wrote whose writing takes the set-id bits."""
        self._clear_set_id = True

    def holes(self) -> None:
        """A write left chunks out, or they were removed."""
        self._sparse = True

    def take(self) -> Hint:
        """What to tell the service now."""
        hint = Hint(
            self._written_end,
            self.truncate_version,
            self._inexact,
            self._mtime_ns,
            self._clear_set_id,
            self._sparse,
        )
        self._written_end, self._inexact, self._mtime_ns, self._clear_set_id, self._sparse = -1, False, 0, False, False
        return hint

    def give_back(self, hint: Hint) -> None:
        """The service was not told."""
        if hint.truncate_version == self.truncate_version:
            self._written_end = max(self._written_end, hint.written_end)
        elif hint.written_end >= 0:
            self._inexact = True
        self._inexact = self._inexact or hint.exact
        self._mtime_ns = max(self._mtime_ns, hint.mtime_ns)
        self._clear_set_id = self._clear_set_id or hint.clear_set_id
        self._sparse = self._sparse or hint.sparse

    def settled(self, attributes: meta.Attributes) -> int:
        """The service's answer. Returns the file's length: what it says, or further what was written since."""
        if attributes.truncate_version != self.truncate_version:
            # Somebody cut the file: what was written before that says nothing about its length any more.
            self.truncate_version = attributes.truncate_version
            if self._written_end >= 0:
                self._written_end, self._inexact = -1, True
        return max(attributes.length, self._written_end)

    def cut(self, attributes: meta.Attributes) -> None:
        """This writer itself set the length, after all of its writes had ended."""
        self.truncate_version = attributes.truncate_version
        self._written_end = -1
        self._mtime_ns = 0
