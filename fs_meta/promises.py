"""What clients were promised to be told before whoever changes it has its answer.

A client that follows the service may believe what it was told without asking again, for as long as it holds a promise
and a lease. A promise is of one subject: the attributes of an inode, or the names of a directory. It ends with the
first change that another client makes: that client's answer waits until the follower has taken the news.

| a subject is | for a follower that                                                                       |
| ------------ | ----------------------------------------------------------------------------------------- |
| free         | asks whenever it wants to know; may be promised                                           |
| held         | believes what it knows; a change by others makes it told                                  |
| told         | may not have heard yet: changes wait for it, and it is not promised; taken, it is free    |

Leases: each call of a follower begins its lease anew. It counts from when it sent the call, the service from when that
arrived, so the follower stops believing first. When a change meets a follower whose lease is over, all of its promises
end and nobody waits; its next call tells it so (another generation).

Promise or change first? An answer may be read before a change and given after it. `stamp` is taken before the read; a
subject that others have changed since is not promised. A subject that was told lately is not promised for a while:
directories and files that several clients work in are asked for as without promises.

Pure: times come in, seconds of one monotonic clock. Used from one thread.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

LEASE_S = 2.0
PAUSE_S = 1.0
"""How long a subject that was told is not promised again, to anybody."""
FORGET_S = 60.0
"""After the end of its lease a follower may come back to its promises for so long."""
HELD_MAX = 1 << 18
"""Promises of one follower. The oldest make room: about 250 bytes each."""
HELD_BY_ALL = 1 << 20
"""Promises of all followers, about: each has an equal share, and gives room when it asks for more than that."""
NEWS_MAX = 1 << 13
"""Subjects in one answer."""
CHANGES_MAX = 1 << 16
"""Subjects whose last change is remembered."""


def attributes_of(inode: int) -> int:
    """The subject of an inode's attributes, and of all else that its record holds."""
    return inode << 1


def names_of(directory: int) -> int:
    """The subject of a directory's names."""
    return directory << 1 | 1


def subjects_of(writes: Iterable[bytes]) -> set[int]:
    """What a transaction that wrote these keys has changed (keys: `fs_meta.schema`)."""
    subjects = set()
    for key in writes:
        kind = key[0]
        if kind in (_INODE, _XATTR):
            subjects.add(int.from_bytes(key[1:9], "big") << 1)
        elif kind == _ENTRY:
            subjects.add(int.from_bytes(key[1:9], "big") << 1 | 1)
    return subjects


def removed_by(writes: Mapping[bytes, bytes | None]) -> list[int]:
    """Inodes that a transaction has taken away with these writes."""
    return [int.from_bytes(key[1:9], "big") for key, value in writes.items() if value is None and key[0] == _INODE]


_INODE, _ENTRY, _XATTR = b"IDA"


class Follower:
    """One client that follows."""

    __slots__ = ("client", "generation", "heard", "held", "holder", "number", "told", "until")

    def __init__(self, client: bytes, generation: int) -> None:
        self.client = client
        self.generation = generation
        self.holder = ""
        """Who answers for it: a user, a machine."""
        self.until = 0.0
        """End of its lease."""
        self.held: dict[int, None] = {}
        """Subjects, oldest promise first; those that are told included."""
        self.told: dict[int, int] = {}
        """Subject to the number of its news; numbers ascend."""
        self.number = 0
        """Of the last news there is."""
        self.heard = 0
        """Of the last news that it has taken."""


class Promises:
    """All followers of one service. `new_generation` gives a number that no follower of any service had before."""

    def __init__(
        self,
        new_generation: Callable[[], int],
        *,
        lease_s: float = LEASE_S,
        pause_s: float = PAUSE_S,
        held_max: int = HELD_MAX,
        held_by_all: int = HELD_BY_ALL,
    ) -> None:
        self.lease_s = lease_s
        self._pause_s = pause_s
        self._held_max = held_max
        self._held_by_all = held_by_all
        self._new_generation = new_generation
        self._followers: dict[bytes, Follower] = {}
        self._holders: dict[int, tuple[Follower, ...]] = {}
        """Subject to those that hold a promise of it."""
        self._changes: dict[int, tuple[bytes, int, int]] = {}
        """Subject to who changed it last, when, and when somebody else did before that (in changes, as `stamp`)."""
        self._floor = 0
        """When subjects that are not in `_changes` were changed at the latest."""
        self._stamp = 0
        self._paused: dict[int, float] = {}
        """Subject to until when it is not promised. Times ascend."""

    def __len__(self) -> int:
        """Followers."""
        return len(self._followers)

    @property
    def held(self) -> int:
        """Promises of all followers."""
        return sum(len(follower.held) for follower in self._followers.values())

    def follower(self, client: bytes) -> Follower | None:
        return self._followers.get(client)

    def lease_ends(self) -> float:
        """When the last lease ends; 0: there is none."""
        return max((follower.until for follower in self._followers.values()), default=0.0)

    # Followers

    def call(self, client: bytes, generation: int, heard: int, now: float) -> Follower:
        """A follower calls; `heard`: the last news it took. If it is not of that generation it learns so from the reply
        and forgets all it was promised. What is promised stays here: the call may be an old one that comes late."""
        follower = self._followers.get(client)
        if follower is None:
            follower = self._followers[client] = Follower(client, self._new_generation())
        if follower.generation != generation:
            heard = 0
        follower.until = now + self.lease_s
        follower.heard = max(follower.heard, min(heard, follower.number))
        told = follower.told
        taken = list(itertools.takewhile(lambda subject: told[subject] <= follower.heard, told))
        self._release(follower, taken)
        for subject in taken:
            del told[subject]
            del follower.held[subject]
        return follower

    def news(self, follower: Follower) -> tuple[int, list[int]]:
        """(number, subjects): what it has not taken yet, as much as fits one answer."""
        subjects = list(itertools.islice(follower.told, NEWS_MAX))
        return (follower.told[subjects[-1]] if subjects else follower.heard), subjects

    def drop(self, follower: Follower) -> None:
        """All of its promises end; it learns that with its next call."""
        if self._followers.get(follower.client) is follower:
            del self._followers[follower.client]
        self._release(follower, follower.held)
        follower.held.clear()
        follower.told.clear()
        follower.heard = follower.number

    def forget(self, now: float) -> None:
        """Drop those that have not called for long: their promises would stay until somebody changes something."""
        for follower in [other for other in self._followers.values() if other.until + FORGET_S <= now]:
            self.drop(follower)

    def _release(self, follower: Follower, subjects: Iterable[int]) -> None:
        """It does not hold them any more; they leave `held` by the caller."""
        holders = self._holders
        for subject in subjects:
            sharing = holders[subject]
            if len(sharing) == 1:
                del holders[subject]
            else:
                holders[subject] = tuple(other for other in sharing if other is not follower)

    # Promises

    def stamp(self) -> int:
        """Taken before what is promised is read."""
        return self._stamp

    def promise(self, follower: Follower, subjects: Sequence[int], stamp: int, now: float) -> bool:
        """Promise all of them, or none (False)."""
        told, held, client = follower.told, follower.held, follower.client
        changes, floor = self._changes, self._floor
        self._end_pauses(now)
        for subject in subjects:
            if subject in told or subject in self._paused:
                return False
            by, last, before = changes.get(subject, (b"", floor, floor))
            if (before if by == client else last) > stamp:
                return False
        if self._followers.get(client) is not follower:
            return False
        holders = self._holders
        for subject in subjects:
            if subject not in held:
                held[subject] = None
                holders[subject] = (*holders.get(subject, ()), follower)
        share = min(self._held_max, self._held_by_all // len(self._followers))
        if len(held) - len(told) > share:
            self._make_room(follower, max(share // 16, 1))
        return True

    def _make_room(self, follower: Follower, room: int) -> None:
        """Take the oldest promises back: like a change, but nobody waits. What is told already is on its way out."""
        oldest = itertools.filterfalse(follower.told.__contains__, follower.held)
        for subject in list(itertools.islice(oldest, room)):
            self._tell(follower, subject)

    def _end_pauses(self, now: float) -> None:
        paused = self._paused
        while paused:
            subject = next(iter(paused))
            if paused[subject] > now:
                return
            del paused[subject]

    # Changes

    def change(self, subjects: Iterable[int], by: bytes, now: float) -> Mapping[Follower, int]:
        """`by` (a client; empty: nobody's) has changed them. Returns whom its answer has to wait for: until each has
        taken the news of that number, was dropped, or its lease has ended (then `drop` it)."""
        self._stamp += 1
        stamp, changes, holders = self._stamp, self._changes, self._holders
        waits: dict[Follower, int] = {}
        for subject in subjects:
            last = changes.get(subject, (by, 0, self._floor))
            changes[subject] = (by, stamp, last[2] if last[0] == by else last[1])
            for follower in holders.get(subject, ()):
                if follower.client == by:
                    continue
                if follower.until <= now:
                    self.drop(follower)
                    continue
                waits[follower] = max(waits.get(follower, 0), self._tell(follower, subject))
                self._paused.pop(subject, None)
                self._paused[subject] = now + self._pause_s
        if len(changes) > CHANGES_MAX:
            changes.clear()
            self._floor = stamp
        return waits

    def removed(self, inodes: Iterable[int], by: bytes) -> None:
        """`by` has taken them away: nothing of them will ever change, so it is promised nothing of them any more.
        (Others that were, are told.)"""
        follower = self._followers.get(by)
        if follower is None:
            return
        for inode in inodes:
            for subject in (attributes_of(inode), names_of(inode)):
                if subject in follower.held and subject not in follower.told:
                    self._release(follower, (subject,))
                    del follower.held[subject]

    def untold(self, by: bytes) -> Mapping[Follower, int]:
        """As `change`: whom an answer to `by` has to wait for that tells of earlier changes, whoever made them."""
        return {
            follower: follower.number
            for follower in self._followers.values()
            if follower.told and follower.client != by
        }

    def _tell(self, follower: Follower, subject: int) -> int:
        number = follower.told.get(subject)
        if number is None:
            follower.number += 1
            number = follower.told[subject] = follower.number
        return number


def split(subjects: Iterable[int]) -> tuple[list[int], list[int]]:
    """(inodes whose attributes, directories whose names) they are."""
    inodes: list[int] = []
    directories: list[int] = []
    for subject in subjects:
        (directories if subject & 1 else inodes).append(subject >> 1)
    return inodes, directories
