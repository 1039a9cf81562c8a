"""What daemons have acknowledged from memory and this client has not had synced since, and whether it is still there.

A replica that may have lost something that it acknowledged (a power cut, say) goes on under another incarnation of its
store, once its chain has given it back what the others had. So it serves nothing of before only if all replicas of the
chain have lost it. Daemons name the incarnations of those that have it (`Holder`) with every answer to updates and
syncs.

An old copy of a store may have been put in its place without anybody's saying so. It shows by what its log had come to
when it was opened: less than at the answer to what it had then. Such a replica is not as it was, either.

For each chain, `_holders` are replicas as they were when each had everything this client was acknowledged from memory.
An answer changes them:

    answer names                                    means                                  holders then
    ---------------------------------------------   ------------------------------------   ------------------------
    one of them as it was                           nothing is lost: whoever else is       those not named
                                                    named serves, so it was given all      otherwise, and all named
    none as it was, but not all of them otherwise   the others may have everything still   those not named
    none of them as it was, but one in the lineage  who was filled up by one that was as   those named
    of a sync's answer is                           it was has all that it had
    none of them as it was                          what was not synced may be gone: the   those named
                                                    chain's epoch grows

A `Mark` of each file and chain says in which epoch the first byte was acknowledged that is not synced, and how far the
count of answers had come with the last. A sync covers what had been acknowledged when it was sent; what was marked in
an epoch that is over when it is answered is lost. Each loss is counted in the file (`Share.losses`), so that whoever
has it open is told once.

The members of a chain may change while something is unsynced. Whoever was not serving and serves again was filled up
by the others, and has another incarnation since: what it had acknowledged before may be gone, if those others lost it.
So one that is as it was has served without a break, and has everything, and so has everybody who serves beside it. One
that does not serve is no witness: the routing says who does, and a sync asks all that do, so who is not named then is
left out. If none stays, that counts as a loss.

Files that were closed are remembered (`CLOSED_MAX`), the oldest only by their chains: a file that is opened later than
that may be one of them.

Used by `storage_client` (answers), `sync_chains`, and who has files open. Pure; on the event loop only.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet

from fs_common.layout import Durability
from fs_common.records.storage import Holder, ItemError, UpdateItem

CLOSED_MAX = 4096


class Mark:
    """One file's unsynced bytes on one chain."""

    __slots__ = ("epoch", "first", "last")

    def __init__(self, epoch: int, count: int) -> None:
        self.epoch = epoch
        """Of the chain, when the first of them were acknowledged."""
        self.first = count
        """The count of answers at the first of them."""
        self.last = count
        """And at the last."""


class Share:
    """What belongs together: the unsynced bytes of one file."""

    __slots__ = ("inode", "losses", "marks", "opened", "users")

    def __init__(self, inode: int, opened: int) -> None:
        self.inode = inode
        self.opened = opened
        """The count of answers when it was opened first."""
        self.users = 0
        """Who has it open."""
        self.marks: dict[int, Mark] = {}
        """By chain."""
        self.losses = 0
        """How often something of it was found to be lost."""


class Unsynced:
    """See the module. One for each client."""

    def __init__(self, serving: Callable[[int], AbstractSet[int]] = lambda chain: frozenset()) -> None:
        """`serving`: targets that serve a chain by the newest routing; none: it is not known, or nobody does."""
        self._serving = serving
        self.count = 0
        """Answers to updates so far."""
        self._holders: dict[int, dict[int, Holder]] = {}
        """By chain and target."""
        self._epochs: dict[int, int] = {}
        """By chain; 0 for those that are not there."""
        self._files: dict[int, Share] = {}
        """By inode: files that are open, or were closed with something unsynced."""
        self._closed: dict[int, Share] = {}
        """Those of them that nobody has open, the oldest first."""
        self._forgotten = Share(0, 0)
        """Of files that were closed too long ago."""

    # Files

    def open(self, inode: int) -> Share:
        """Its share; for each call one of `close`."""
        share = self._files.get(inode)
        if share is None:
            share = self._files[inode] = Share(inode, self.count)
        self._closed.pop(inode, None)
        share.users += 1
        return share

    def close(self, share: Share) -> None:
        share.users -= 1
        if share.users:
            return
        if not share.marks:
            del self._files[share.inode]
            return
        self._closed[share.inode] = share
        if len(self._closed) > CLOSED_MAX:
            oldest = self._closed.pop(next(iter(self._closed)))
            del self._files[oldest.inode]
            self._forget(oldest.marks)

    def _forget(self, marks: dict[int, Mark]) -> None:
        for chain, mark in marks.items():
            kept = self._forgotten.marks.setdefault(chain, mark)
            kept.epoch = min(kept.epoch, mark.epoch)
            kept.first = min(kept.first, mark.first)
            kept.last = max(kept.last, mark.last)

    def shares(self) -> list[Share]:
        """All that have something unsynced."""
        return [share for share in (*self._files.values(), self._forgotten) if share.marks]

    def chains(self) -> set[int]:
        """Those on which something is unsynced."""
        return {chain for share in (*self._files.values(), self._forgotten) for chain in share.marks}

    def shares_of(self, share: Share) -> list[Share]:
        """Those that may have bytes of this file."""
        forgotten = any(mark.first <= share.opened for mark in self._forgotten.marks.values())
        return [share, self._forgotten] if forgotten else [share]

    # Handing over to another process, which is the same client to the daemons

    def captured(self) -> tuple[list[Holder], list[int]]:
        """What is known of replicas, and the chains of files that nobody has open. Those of open files: `Share.marks`.
        Losses are told before."""
        holders = [holder for targets in self._holders.values() for holder in targets.values()]
        closed = (self._forgotten, *self._closed.values())
        return holders, sorted({chain for share in closed for chain in share.marks})

    def restore(self, holders: Iterable[Holder], closed: Iterable[int]) -> None:
        """What `captured` gave elsewhere."""
        self.seen(holders)
        self.restore_share(self._forgotten, closed)

    def restore_share(self, share: Share, chains: Iterable[int]) -> None:
        for chain in chains:
            share.marks[chain] = Mark(self._epochs.get(chain, 0), self.count)

    # Answers

    def stored(self, items: Sequence[UpdateItem], errors: Sequence[ItemError], holders: Iterable[Holder]) -> None:
        """A daemon has answered these updates; those that `errors` does not name are stored."""
        self.seen(holders)
        self.count += 1
        failed = {error.index for error in errors} if errors else ()
        for index, item in enumerate(items):
            if item.durability == Durability.MEMORY and index not in failed:
                share = self._files.get(item.inode, self._forgotten)
                mark = share.marks.get(item.chain)
                if mark is None:
                    share.marks[item.chain] = Mark(self._epochs.get(item.chain, 0), self.count)
                else:
                    mark.last = self.count

    def seen(self, holders: Iterable[Holder], *, all_of_them: bool = False, lineage: Iterable[Holder] = ()) -> None:
        """Daemons named these. `all_of_them`: every replica that serves its chain was asked; `lineage`: by whom they
        were filled up, all of their chains together."""
        named: dict[int, dict[int, Holder]] = {}
        usual = True
        for holder in holders:
            serving = self._serving(holder.chain)
            if serving and holder.target not in serving:
                continue  # it was a member when this was answered, and is none now
            known = self._holders.get(holder.chain)
            before = None if known is None else known.get(holder.target)
            if (
                before is not None
                and before.incarnation == holder.incarnation
                and before.opening == holder.opening
                and known is not None
            ):
                if holder.position > before.position:
                    known[holder.target] = holder
            else:
                usual = False
            named.setdefault(holder.chain, {})[holder.target] = holder
        if not usual or all_of_them:
            for chain, targets in named.items():
                self._compare(chain, targets, all_of_them, lineage)

    def routing_changed(self) -> None:
        """Others may serve now: who does not is no witness any more. Where nobody serves nothing changes: whoever
        serves next is one of those that did."""
        for chain, known in self._holders.items():
            serving = self._serving(chain)
            if serving and not known.keys() <= serving:
                left = {target: holder for target, holder in known.items() if target in serving}
                if left:
                    self._holders[chain] = left

    def _compare(self, chain: int, named: dict[int, Holder], all_of_them: bool, lineage: Iterable[Holder]) -> None:
        """See the module's table."""
        known = self._holders.get(chain)
        if known is None:
            self._holders[chain] = named
            return
        kept = {
            target: was
            for target, was in known.items()
            if (target in named or not all_of_them)
            and (target not in named or _as_it_was(was, named[target], all_of_them))
        }
        if not kept:
            filled = (holder for holder in lineage if holder.chain == chain and holder.target in known)
            if not any(_as_it_was(known[holder.target], holder, False) for holder in filled):
                self._epochs[chain] = self._epochs.get(chain, 0) + 1
            self._holders[chain] = named
        elif kept.keys() & named.keys():
            self._holders[chain] = kept | {
                target: holder for target, holder in named.items() if target not in kept or _newer(holder, kept[target])
            }
        else:
            self._holders[chain] = kept

    def synced(self, shares: Iterable[Share], chains: Collection[int], count: int) -> None:
        """All replicas that serve have synced these chains; the sync was sent when `count` answers had come."""
        for share in shares:
            self.look(share)
            for chain in chains & share.marks.keys():
                if share.marks[chain].last <= count:
                    del share.marks[chain]
            if not share.marks and self._closed.get(share.inode) is share:
                del self._files[share.inode], self._closed[share.inode]

    def look(self, share: Share) -> None:
        """Count a loss if something of it was lost since this was asked last."""
        lost = False
        for chain, mark in share.marks.items():
            epoch = self._epochs.get(chain, 0)
            if mark.epoch < epoch:
                mark.epoch = epoch
                lost = True
        if lost:
            share.losses += 1


def _as_it_was(before: Holder, holder: Holder, now: bool) -> bool:
    """Whether a replica still has what it had, if `holder` is what it says. `now`: it says so of this moment; otherwise
    its answer may be from before the one that told of `before`."""
    if before.incarnation != holder.incarnation:
        return False
    if holder.opening > before.opening:
        return holder.recovered >= before.position
    return holder.opening == before.opening or (not now and before.recovered >= holder.position)


def _newer(holder: Holder, other: Holder) -> bool:
    return (holder.opening, holder.position) > (other.opening, other.position)
