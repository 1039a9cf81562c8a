"""The locks held on one file: which of them conflict, and what taking or giving up a range makes of them. Pure.

Locks are values of `schema.HeldLock`; a file's are a list in the order of `sorted_locks`, which every function here
keeps and expects. An owner is a client and a number that the client chose. Kinds do not know of each other. Within a
kind:

* locks of one owner never conflict; they do not overlap, and those of one type that touch are one lock;
* taking a range replaces whatever its owner had in it: the rest of an older lock stays on one or both sides (split),
  and what touches becomes one (merge). So the same call takes, widens, upgrades and downgrades;
* two owners conflict where their ranges overlap and not both are shared.

Locks of the kinds FLOCK and APPEND are of the whole file, so for them this is one lock for each owner.

Source: fcntl(2), flock(2).
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from fs_common.records.locks import LockType
from fs_meta.schema import HeldLock

Owner = tuple[bytes, int]
"""Client, and its number for who has the lock there."""

_order: Final = attrgetter("kind", "client", "owner", "start")
_SHARED: Final = int(LockType.SHARED)


def owner_of(lock: HeldLock) -> Owner:
    return lock.client, lock.owner


def sorted_locks(locks: Iterable[HeldLock]) -> list[HeldLock]:
    return sorted(locks, key=_order)


def overlap(one: HeldLock, other: HeldLock) -> bool:
    return one.start <= other.end and other.start <= one.end


def conflict(one: HeldLock, other: HeldLock) -> bool:
    """Whether both cannot be held at once."""
    return (
        one.kind == other.kind
        and (one.type != _SHARED or other.type != _SHARED)
        and one.start <= other.end
        and other.start <= one.end
        and (one.owner != other.owner or one.client != other.client)
    )


def conflicting(held: Iterable[HeldLock], wanted: HeldLock) -> list[HeldLock]:
    """What stands in the way of `wanted`."""
    return [lock for lock in held if conflict(lock, wanted)]


def take(held: Sequence[HeldLock], lock: HeldLock) -> list[HeldLock]:
    """All locks once `lock`, which conflicts with none of them, is taken."""
    own, others = _divided(held, lock.kind, owner_of(lock))
    pieces = [*_cut(own, lock.start, lock.end), lock]
    pieces.sort(key=_order)
    merged: list[HeldLock] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and last.type == piece.type and last.end + 1 >= piece.start:
            merged[-1] = _resized(last, last.start, piece.end)
        else:
            merged.append(piece)
    return sorted_locks([*others, *merged])


def give_up(held: Sequence[HeldLock], kind: int, owner: Owner, start: int, end: int) -> list[HeldLock]:
    """All locks once the owner has none of this kind in the range."""
    own, others = _divided(held, kind, owner)
    return sorted_locks([*others, *_cut(own, start, end)])


def give_up_all(held: Iterable[HeldLock], kind: int, owner: Owner) -> list[HeldLock]:
    """All locks once the owner has none of this kind."""
    return _divided(held, kind, owner)[1]


def without_client(held: Iterable[HeldLock], client: bytes) -> list[HeldLock]:
    """All locks once the client has none of any kind."""
    return [lock for lock in held if lock.client != client]


def problems(held: Sequence[HeldLock]) -> list[str]:
    """What of the rules at the head a list of locks breaks; nothing for a sound one."""
    found = []
    if list(held) != sorted_locks(held):
        found.append("not in order")
    for index, lock in enumerate(held):
        if not 0 <= lock.start <= lock.end:
            found.append(f"range {lock.start} to {lock.end}")
        for other in held[index + 1 :]:
            if conflict(lock, other):
                found.append(f"{lock} conflicts with {other}")
            elif (lock.kind, owner_of(lock)) == (other.kind, owner_of(other)) and overlap(lock, other):
                found.append(f"one owner's {lock} and {other} overlap")
    return found


def _divided(held: Iterable[HeldLock], kind: int, owner: Owner) -> tuple[list[HeldLock], list[HeldLock]]:
    """(the owner's of this kind, all others)"""
    client, number = owner
    own: list[HeldLock] = []
    others: list[HeldLock] = []
    for lock in held:
        mine = lock.owner == number and lock.kind == kind and lock.client == client
        (own if mine else others).append(lock)
    return own, others


def _cut(own: Iterable[HeldLock], start: int, end: int) -> list[HeldLock]:
    """What is left of an owner's locks outside of a range."""
    left: list[HeldLock] = []
    for lock in own:
        if lock.end < start or lock.start > end:
            left.append(lock)
            continue
        if lock.start < start:
            left.append(_resized(lock, lock.start, start - 1))
        if lock.end > end:
            left.append(_resized(lock, end + 1, lock.end))
    return left


def _resized(lock: HeldLock, start: int, end: int) -> HeldLock:
    return HeldLock(lock.kind, lock.type, lock.client, lock.owner, start, end, lock.process)
