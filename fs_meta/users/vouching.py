"""Passes, and the state by which storage daemons know them: the key ring, and tokens that are revoked.

The state has a version and reaches each daemon in heartbeat answers. Passes are made under a new key only when every
daemon that is up has it: until then the key before makes them. Then the version changes again, so that each daemon is
given a pass of its own under that key; and no key goes before each has one. So a rotation turns nobody away: sessions
end whose pass was made under a key that goes (`fs_storage.gate`), and whoever had one has, or is given, a newer one.

Invariants:
* the ring of an enabled cluster has a key;
* a revoked token stays listed while a pass of it may be valid (`Revoked.key`);
* passes are never made under an older key than others before, by one process.

`Users` stores the records; this module says what the next one is. No I/O.

Page: docs/SECURITY.md.
"""

from collections.abc import Callable, Iterable, Sequence

from fs_common.errors import Code, EmberError
from fs_common.security.identity import Identity
from fs_common.security.keys import Key
from fs_common.security.passes import make_pass
from fs_meta.users.records import Revoked, VouchingRecord


class Vouching:
    """Lives on the metadata server's loop."""

    def __init__(self) -> None:
        self.record = VouchingRecord()
        self.up_nodes: Callable[[], Iterable[int]] = lambda: ()
        """Storage nodes that serve, or may: told by the manager."""
        self.changed: list[Callable[[], None]] = []
        """Called when passes are made under another key than before, or the record has changed."""
        self._heard: dict[int, int] = {}
        """The newest version that each node has said it has."""
        self._settled_since = 0
        """`newest_since` of the key that every daemon was found to have."""

    @property
    def version(self) -> int:
        """As it is told to daemons; 0: security is off. Odd: they are given passes under the newest key."""
        return 2 * self.record.version + self.settled if self.record.version else 0

    def adopt(self, record: VouchingRecord) -> None:
        """`record` is stored."""
        self.record = record
        for changed in self.changed:
            changed()

    def heard(self, node: int, version: int) -> None:
        """A daemon says which version it has."""
        before = self._heard.get(node)
        if before == version:
            return
        self._heard[node] = version
        if len(self.record.ring.keys) > 1:
            for changed in self.changed:
                changed()

    @property
    def settled(self) -> bool:
        """Every daemon that is up has the newest key, or had: one that comes back hears of it before it is up."""
        since = self.record.newest_since
        if self._settled_since != since and all(version >= 2 * since for version in self._versions()):
            self._settled_since = since
        return self._settled_since == since

    @property
    def spread(self) -> bool:
        """Every daemon that is up also has a pass under it: the key before may go."""
        since = 2 * self.record.newest_since
        return self.settled and all(version & 1 and version > since for version in self._versions())

    def _versions(self) -> Iterable[int]:
        return (self._heard.get(node, 0) for node in self.up_nodes())

    @property
    def signing(self) -> Key:
        """The key under which passes are made now."""
        ring = self.record.ring
        return ring.newest if len(ring.keys) == 1 or self.settled else ring.oldest

    def give(self, identity: Identity) -> bytes:
        """The pass of `identity`."""
        return make_pass(self.signing, identity)

    # The next records

    def rotated(self, secret: bytes, now_ns: int) -> VouchingRecord:
        """With a key more. Raises BUSY: the last new one is not everywhere yet."""
        record = self.record
        if len(record.ring.keys) > 1 and not self.spread:
            raise EmberError(Code.BUSY, "the key of the last rotation has not reached every storage daemon yet; wait")
        version = record.version + 1
        ring = record.ring.rotated(secret)
        left = [revoked for revoked in record.revoked if revoked.key >= ring.oldest.id]
        return VouchingRecord(version, ring, version, left, now_ns)

    def without(self, tokens: Sequence[str]) -> VouchingRecord:
        """With these tokens revoked."""
        record = self.record
        newest = record.ring.newest.id if record.ring.keys else 0
        revoked = [*record.revoked, *(Revoked(token, newest) for token in tokens)]
        return VouchingRecord(record.version + 1, record.ring, record.newest_since, revoked, record.rotated_ns)
