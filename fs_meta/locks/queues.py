"""Who waits for a lock, in which order they get it, and which waits would never end. Pure.

Each file with waiters has one queue in the order of arrival, and what is known to be held on it. For every waiter:

* **blocked**: a held lock of another owner conflicts with what it wants;
* **held back**: nothing held conflicts, but an earlier waiter of another owner wants what conflicts. So a waiter for
  an exclusive lock is not passed by shared ones for ever. It ends in two ways besides the earlier waiter's leaving:
  when that one waits, over however many others, for an owner who is held back by it (it would never end); and when a
  waiter was held back for long enough to be called impatient. Nobody can tell whether the holder of a shared lock
  waits, outside of here, for somebody who is held back (a program that starts another one under `flock`), so being held
  back may delay, but not hang.

Whoever is neither is named by `ready`, and tries. Only waiters are held back: who does not wait takes what is free.

Deadlock: the graph over owners in which a waiter's owner points to the owners who block it, over all files, for locks
of kind RANGE. A waiter that closes a circle in it is refused. Being held back is no part of that graph, since it ends.

Nothing here is needed after a restart: callers ask again, and join anew.

Source: fcntl(2) on F_SETLKW and EDEADLK.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from fs_common.records.locks import LockKind
from fs_meta.locks.ranges import Owner, conflict, conflicting, owner_of, take
from fs_meta.schema import HeldLock


class Waiter:
    """One call that waits for one lock."""

    __slots__ = ("impatient", "inode", "owner", "request", "wanted")

    def __init__(self, inode: int, wanted: HeldLock, request: bytes) -> None:
        self.inode = inode
        self.wanted = wanted
        self.owner: Owner = owner_of(wanted)
        self.request = request
        """Id of the request: copies of it end together."""
        self.impatient = False
        """It is not held back any more."""


class _File:
    __slots__ = ("held", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        """In the order of arrival, >= 1."""
        self.held: Sequence[HeldLock] = ()
        """As last learned."""


class LockQueues:
    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._of: defaultdict[Owner, list[Waiter]] = defaultdict(list)
        """Waiters by owner, over all files."""

    def __contains__(self, inode: int) -> bool:
        """Whether anybody waits for a lock on the file."""
        return inode in self._files

    def __iter__(self) -> Iterator[Waiter]:
        for file in list(self._files.values()):
            yield from list(file.waiters)

    def join(self, waiter: Waiter) -> None:
        """It waits from now on, behind all others of its file."""
        file = self._files.get(waiter.inode)
        if file is None:
            file = self._files[waiter.inode] = _File()
        file.waiters.append(waiter)
        self._of[waiter.owner].append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """It has its lock, or has given up."""
        file = self._files[waiter.inode]
        file.waiters.remove(waiter)
        if not file.waiters:
            del self._files[waiter.inode]
        of_owner = self._of[waiter.owner]
        of_owner.remove(waiter)
        if not of_owner:
            del self._of[waiter.owner]

    def learn(self, inode: int, held: Sequence[HeldLock]) -> None:
        """What is held on a file now."""
        file = self._files.get(inode)
        if file is not None:
            file.held = held

    def copies(self, inode: int, request: bytes) -> list[Waiter]:
        """The waiters of one request."""
        file = self._files.get(inode)
        return [] if file is None else [waiter for waiter in file.waiters if waiter.request == request]

    def ready(self, inode: int) -> list[Waiter]:
        """Who would get its lock now if they tried in this order."""
        file = self._files.get(inode)
        if file is None:
            return []
        found: list[Waiter] = []
        staying: list[Waiter] = []
        reached: dict[Waiter, set[Owner]] = {}
        held: Sequence[HeldLock] = file.held
        for waiter in file.waiters:
            if conflicting(held, waiter.wanted) or self._is_held_back(waiter, staying, reached):
                staying.append(waiter)
            else:
                found.append(waiter)
                held = take(held, waiter.wanted)
        return found

    def is_held_back(self, waiter: Waiter) -> bool:
        """Whether somebody before it in the queue keeps it from a lock that is free."""
        return self._is_held_back(waiter, self._before(waiter), {})

    def deadlock(self, waiter: Waiter) -> bool:
        """Whether the wait, for what is held now, closes a circle of owners who block each other."""
        return (
            waiter.wanted.kind == LockKind.RANGE
            and self._is_in_the_way(waiter)
            and waiter.owner in self._reached(waiter, hard=True)
        )

    def untangle(self, waiter: Waiter) -> list[Waiter]:
        """Who must try anew because `waiter` waits: those on a circle with it, one of whom is held back and passes."""
        if not self._is_in_the_way(waiter):
            return []
        reached = self._reached(waiter, hard=False)
        if waiter.owner not in reached:
            return []
        return [other for owner in reached for other in self._of[owner] if other is not waiter]

    def _before(self, waiter: Waiter) -> Iterable[Waiter]:
        for other in self._files[waiter.inode].waiters:
            if other is waiter:
                return
            yield other

    def _is_held_back(self, waiter: Waiter, before: Iterable[Waiter], reached: dict[Waiter, set[Owner]]) -> bool:
        """`reached`: what is known already of whom others wait for."""
        if waiter.impatient:
            return False
        for other in before:
            if conflict(other.wanted, waiter.wanted):
                if other not in reached:
                    reached[other] = self._reached(other, hard=False)
                if waiter.owner not in reached[other]:
                    return True
        return False

    def _is_in_the_way(self, waiter: Waiter) -> bool:
        """Whether anybody can be waiting for its owner: else no circle goes through it. Most waiters hold nothing."""
        if len(self._of[waiter.owner]) > 1:
            return True
        return any(owner_of(lock) == waiter.owner for file in self._files.values() for lock in file.held)

    def _reached(self, waiter: Waiter, *, hard: bool) -> set[Owner]:
        """The owners a waiter waits for, those they wait for, and so on. `hard`: for held RANGE locks alone."""
        reached: set[Owner] = set()
        pending = [waiter]
        while pending:
            here = pending.pop()
            for owner in self._waits_for(here, hard):
                if owner not in reached:
                    reached.add(owner)
                    pending.extend(self._of.get(owner, ()))
        return reached

    def _waits_for(self, waiter: Waiter, hard: bool) -> Iterator[Owner]:
        if hard and waiter.wanted.kind != LockKind.RANGE:
            return
        for lock in self._files[waiter.inode].held:
            if conflict(lock, waiter.wanted):
                yield owner_of(lock)
        if not hard and not waiter.impatient:
            for other in self._before(waiter):
                if conflict(other.wanted, waiter.wanted):
                    yield other.owner
