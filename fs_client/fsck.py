"""Checks a cluster as a whole while it is used: chunks against files, replicas against each other, what disks damaged.

Everything is looked at twice, with a pause between: what an update, a removal or the collector had under way is over
then, and only what is as it was is a finding.

* Replicas of a chain: their lists (LIST_HELD) are walked side by side, a page at a time; the digests have to agree.
* Orphans: chunks whose file the metadata service does not know any more, although the collector has nothing to do with
  it. They come of metadata that was restored from a backup, or lost.
* Damage that the daemons have found and could not repair (their scrub says).
* Files against their chunks: bytes stored past a file's end, and holes. What is missing inside a file's length cannot
  be told from a hole that was never written, so it is counted and is no finding.

Repairs what is safe: orphans are removed, and a replica that differs from all others is filled up again by its chain.

Memory: about 150 bytes for each file that has chunks.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE, chunk_id, split_chunk_id
from fs_common.layout import Layout
from fs_common.methods import LIST_HELD, REFILL_TARGET, REMOVE_FILES, SCRUB, STAT
from fs_common.records import meta
from fs_common.records.mending import HeldChunk, ListHeld, ListHeldReply
from fs_common.records.routing import Chain, ChainTarget, NodeState, PublicState
from fs_common.records.scrubbing import RefillTarget, Scrub, ScrubReply
from fs_common.records.storage import RemoveFiles, RemoveFilesReply

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

PAGE = 1024
CHAINS_AT_ONCE = 4
CALL_S = 20.0
LOOK_AGAIN_S = 2.0
KEPT_AT_ONCE = 1024
ATTEMPTS = 5
"""Times that a chain is walked anew when it changes meanwhile."""
REFILL_S = 600.0
REFILL_LOOK_S = 0.5


class Orphan(NamedTuple):
    inode: int
    chain: int
    chunks: int
    bytes: int


class Difference(msgspec.Struct):
    chain: int
    inode: int
    index: int
    path: str
    replicas: dict[int, str]
    """By target: what it has."""
    loser: int
    """The one target that lacks what all others have, or has something else; 0: it is not one alone."""


class Report(msgspec.Struct):
    chains: int = 0
    chunks: int = 0
    bytes: int = 0
    files: int = 0
    """That have chunks."""
    orphans: list[Orphan] = []
    differing: list[Difference] = []
    damaged: list[str] = []
    not_checked: list[str] = []
    """What could not be looked at, and why."""
    collected: int = 0
    """Files that wait for the collector and still have chunks."""
    past_the_end: int = 0
    """Files with chunks past their end: somebody writes them, or died doing so."""
    holes: int = 0
    """Files with chunks missing inside their length."""
    paths_checked: bool = False
    repaired: list[str] = []
    not_repaired: list[str] = []

    @property
    def sound(self) -> bool:
        return not (self.orphans or self.differing or self.damaged or self.not_checked)


class _File:
    __slots__ = ("chunks", "last")

    def __init__(self) -> None:
        self.chunks = 0
        self.last = -1


Key = tuple[int, bytes]
"""Chain and chunk."""
Told = Callable[[str], None]


class Fsck:
    def __init__(self, fs: "AsyncFileSystem", *, grace_s: float, repair: bool, paths: bool, told: Told) -> None:
        """`grace_s`: how long an orphan has to be one. `told`: lines of progress."""
        self._fs = fs
        self._grace_s = grace_s
        self._repair = repair
        self._paths = paths
        self._told = told
        self.report = Report()
        self._files: dict[int, _File] = {}
        self._gone: dict[int, dict[int, Orphan]] = {}
        """Inodes that seem to be gone: by chain, what it has of them."""
        self._doubts: dict[Key, dict[int, HeldChunk]] = {}
        """What each replica that was asked has."""
        self._walked = 0

    async def run(self) -> Report:
        """Raises ACCESS_DENIED: security is on, and the caller may not administer."""
        report = self.report
        chains = self._fs.routing.routing.chains
        report.chains = len(chains)
        await self._be_let_in(chains)
        turns = asyncio.Semaphore(CHAINS_AT_ONCE)
        await asyncio.gather(*(self._check_chain(chain.chain, turns) for chain in chains))
        report.files = len(self._files)
        await self._look_again_at_doubts()
        await self._look_again_at_orphans()
        await self._ask_for_damage()
        if self._paths:
            await self._walk_paths()
        if self._repair:
            await self._repair_orphans()
            await self._repair_differences()
        return report

    async def _be_let_in(self, chains: Sequence[Chain]) -> None:
        """Raises ACCESS_DENIED: who may not look at what replicas hold need not be told so of each chain."""
        for chain in chains:
            for member in _serving(chain)[:1]:
                try:
                    await self._list(chain, member, b"", 1)
                except EmberError as error:
                    if error.code is not Code.ACCESS_DENIED:
                        return
                    raise EmberError(
                        error.code, "fsck needs a token of a user who may administer the cluster (--admin)"
                    ) from None
                return

    # -- chains ----------------------------------------------------------------------------------------------------

    async def _check_chain(self, number: int, turns: asyncio.Semaphore) -> None:
        async with turns:
            error: EmberError | None = None
            after = b""
            for _ in range(ATTEMPTS):
                chain = self._chain(number)
                serving = _serving(chain)
                if not serving:
                    self.report.not_checked.append(f"chain {number}: no replica serves")
                    return
                try:
                    while True:
                        after, more = await self._check_page(chain, serving, after)
                        self._walked += 1
                        self._told(f"checking {self.report.chains} chains: {self.report.chunks:,} chunks looked at")
                        if not more:
                            break
                except EmberError as caught:
                    error = caught
                    await asyncio.sleep(LOOK_AGAIN_S)
                    await self._fs.routing.refresh_if_possible(self._fs.routing.routing.version, CALL_S)
                    continue
                missing = len(chain.targets) - len(serving)
                if missing:
                    self.report.not_checked.append(f"chain {number}: {missing} of its replicas do not serve")
                return
            self.report.not_checked.append(f"chain {number}: {error}")

    async def _check_page(self, chain: Chain, serving: list[ChainTarget], after: bytes) -> tuple[bytes, bool]:
        """Compare the next page of chunks. Returns where to go on, and whether there are more."""
        pages = await asyncio.gather(*(self._list(chain, member, after, PAGE) for member in serving))
        # Up to where all of them have told what they have.
        ends = [page[-1].chunk for page in pages if len(page) == PAGE]
        last = min(ends, default=b"\xff" * 12)
        tables = [{held.chunk: held for held in page if held.chunk <= last} for page in pages]
        inodes: dict[int, Orphan] = {}
        for chunk in sorted(set().union(*tables)):
            found = [table.get(chunk, _nothing(chunk)) for table in tables]
            if _differ(found):
                whole = {member.target: held for member, held in zip(serving, found, strict=True)}
                self._doubts[chain.chain, chunk] = whole
            held = max(found, key=lambda one: one.version)
            if not held.version or held.removed:
                continue
            number, index = split_chunk_id(chunk)
            inode = int(number)
            self.report.chunks += 1
            self.report.bytes += held.length
            file = self._files.setdefault(inode, _File())
            file.chunks += 1
            file.last = max(file.last, index)
            orphan = inodes.get(inode, Orphan(inode, chain.chain, 0, 0))
            inodes[inode] = orphan._replace(chunks=orphan.chunks + 1, bytes=orphan.bytes + held.length)
        for inode in await self._unknown(inodes):
            of_inode = self._gone.setdefault(inode, {})
            before = of_inode.get(chain.chain, Orphan(inode, chain.chain, 0, 0))
            of_inode[chain.chain] = before._replace(
                chunks=before.chunks + inodes[inode].chunks, bytes=before.bytes + inodes[inode].bytes
            )
        return last, bool(ends)

    async def _list(self, chain: Chain, member: ChainTarget, after: bytes, limit: int) -> list[HeldChunk]:
        request = ListHeld(chain.chain, chain.version, after, limit)
        reply: ListHeldReply = await self._fs.pool.call(self._address(member.node), LIST_HELD, request, timeout=CALL_S)
        return reply.chunks

    async def _unknown(self, inodes: Iterable[int]) -> list[int]:
        """Those of which the metadata service does not promise the chunks."""
        asked = list(inodes)
        unknown: list[int] = []
        for start in range(0, len(asked), KEPT_AT_ONCE):
            some = asked[start : start + KEPT_AT_ONCE]
            kept = await self._fs.kept(some, CALL_S)
            unknown += [inode for inode, for_ms in zip(some, kept, strict=True) if for_ms < 0]
        return unknown

    # -- the second look -------------------------------------------------------------------------------------------

    async def _look_again_at_doubts(self) -> None:
        if not self._doubts:
            return
        self._told(f"looking again at {len(self._doubts):,} chunks that seem to differ")
        await asyncio.sleep(LOOK_AGAIN_S)
        for (number, chunk), before in sorted(self._doubts.items()):
            try:
                now = await self._look_at(number, chunk)
            except EmberError as error:
                self.report.not_checked.append(f"chain {number}, chunk {chunk.hex()}: {error.message}")
                continue
            if now == before and _differ(now.values()):
                self.report.differing.append(self._difference(number, chunk, now))

    async def _look_at(self, number: int, chunk: bytes) -> dict[int, HeldChunk]:
        chain = self._chain(number)
        before = (int.from_bytes(chunk, "big") - 1).to_bytes(12, "big") if any(chunk) else b""
        now = {}
        for member in _serving(chain):
            page = await self._list(chain, member, before, 1)
            now[member.target] = page[0] if page and page[0].chunk == chunk else _nothing(chunk)
        return now

    def _difference(self, number: int, chunk: bytes, now: dict[int, HeldChunk]) -> Difference:
        inode, index = split_chunk_id(chunk)
        # Whatever any replica has committed the tail had committed: the highest version was on all of them.
        top = max(held.version for held in now.values())
        winners = {held.digest for held in now.values() if held.version == top}
        losers = [target for target, held in now.items() if held.digest not in winners]
        if len(winners) > 1:
            # The tail decides what is committed.
            tail = _serving(self._chain(number))[-1].target
            winner = now[tail].digest if tail in now else -1
            losers = [target for target, held in now.items() if held.digest != winner]
        words = {target: _words(held) for target, held in now.items()}
        return Difference(number, inode, index, "", words, losers[0] if len(losers) == 1 else 0)

    async def _look_again_at_orphans(self) -> None:
        if not self._gone:
            return
        self._told(f"waiting {self._grace_s:.0f} s: {len(self._gone):,} files with chunks seem to be gone")
        await asyncio.sleep(self._grace_s)
        for inode in await self._unknown(sorted(self._gone)):
            if await self._is_known(inode):
                self.report.collected += 1
                continue
            for number in sorted(self._gone[inode]):
                found = await self._left_of(inode, number)
                if found.chunks:
                    self.report.orphans.append(found)

    async def _is_known(self, inode: int) -> bool:
        """It has a record yet: the collector has still to do with it."""
        try:
            await self._fs.metadata.call(STAT, meta.Stat(inode, b"", user=meta.User()), timeout_s=CALL_S)
        except EmberError as error:
            if error.code is Code.STALE:
                return False
            raise
        return True

    async def _left_of(self, inode: int, number: int) -> Orphan:
        chain = self._chain(number)
        serving = _serving(chain)
        found = Orphan(inode, number, 0, 0)
        if not serving:
            return found
        after = (int.from_bytes(chunk_id(inode, 0), "big") - 1).to_bytes(12, "big") if inode else b""
        while True:
            page = await self._list(chain, serving[0], after, PAGE)
            mine = [held for held in page if split_chunk_id(held.chunk)[0] == inode]
            present = [held for held in mine if held.version and not held.removed]
            found = found._replace(
                chunks=found.chunks + len(present), bytes=found.bytes + sum(held.length for held in present)
            )
            if len(mine) < PAGE:
                return found
            after = mine[-1].chunk

    # -- damage, and paths -----------------------------------------------------------------------------------------

    async def _ask_for_damage(self) -> None:
        for node in self._fs.routing.routing.nodes:
            if node.state is not NodeState.UP:
                self.report.not_checked.append(f"node {node.node} is {node.state.name.lower()}")
                continue
            try:
                reply: ScrubReply = await self._fs.pool.call((node.host, node.port), SCRUB, Scrub(), timeout=CALL_S)
            except EmberError as error:
                self.report.not_checked.append(f"node {node.node}: {error.message}")
                continue
            for target in reply.targets:
                self.report.damaged += [f"target {target.target}: {line}" for line in target.damaged]

    async def _walk_paths(self) -> None:
        """Find the paths of what differs, and compare files with their chunks."""
        report = self.report
        wanted = {found.inode for found in report.differing}
        levels: list[tuple[str, int]] = [("/", int(ROOT_INODE))]
        files = 0
        while levels:
            path, inode = levels.pop()
            after, more = b"", True
            while more:
                try:
                    entries, more = await self._fs.page(inode, after, path, attributes=True)
                except OSError as error:
                    report.not_checked.append(f"{path}: {error.strerror}")
                    break
                for entry in entries:
                    below = f"{path.rstrip('/')}/{entry.name}"
                    if entry.type == meta.FileType.DIRECTORY:
                        levels.append((below, entry.inode()))
                    elif entry.type == meta.FileType.FILE:
                        files += 1
                        if entry.inode() in wanted:
                            for found in report.differing:
                                if found.inode == entry.inode() and not found.path:
                                    found.path = below
                        self._compare(entry.inode(), entry.attributes.attributes if entry.attributes else None)
                if not entries:
                    break
                after = entries[-1].name.encode(errors="surrogateescape")
            self._told(f"comparing files with their chunks: {files:,} files")
        report.paths_checked = True

    def _compare(self, inode: int, attributes: meta.Attributes | None) -> None:
        file = self._files.get(inode)
        layout: Layout | None = attributes.layout if attributes is not None else None
        if file is None or attributes is None or layout is None:
            return
        wanted = -(-attributes.length // layout.chunk_size)
        if file.last >= wanted:
            self.report.past_the_end += 1
        elif file.chunks < wanted:
            self.report.holes += 1

    # -- repair ----------------------------------------------------------------------------------------------------

    async def _repair_orphans(self) -> None:
        for orphan in self.report.orphans:
            inode = orphan.inode
            try:
                if await self._is_known(inode):
                    continue
                chain = self._chain(orphan.chain)
                serving = _serving(chain)
                removed = 0
                finished = 0
                while not finished:
                    request = RemoveFiles(chain.chain, chain.version, [inode])
                    reply: RemoveFilesReply = await self._fs.pool.call(
                        self._address(serving[0].node), REMOVE_FILES, request, timeout=CALL_S
                    )
                    removed, finished = removed + reply.removed, reply.finished
                self.report.repaired.append(f"chain {orphan.chain}: {removed} chunks of inode {inode} are removed")
            except (EmberError, IndexError) as error:
                self.report.not_repaired.append(f"chain {orphan.chain}, inode {inode}: {error}")

    async def _repair_differences(self) -> None:
        """A replica that differs from all others of its chain is filled up again. Where it is not one replica alone,
        nobody can tell here which order would lose nothing."""
        of_chains: dict[int, set[int]] = {}
        for found in self.report.differing:
            of_chains.setdefault(found.chain, set()).add(found.loser)
        for number, losers in sorted(of_chains.items()):
            if len(losers) > 1 or 0 in losers:
                self.report.not_repaired.append(
                    f"chain {number}: its replicas differ in more than one way; look at what each has, and give up one"
                    " with `emberfs targets replace`"
                )
                continue
            (loser,) = losers
            try:
                await self._refill(number, loser)
            except EmberError as error:
                self.report.not_repaired.append(f"chain {number}, target {loser}: {error.message}")

    async def _refill(self, number: int, loser: int) -> None:
        chain = self._chain(number)
        (member,) = [member for member in chain.targets if member.target == loser]
        keys = [found for found in self.report.differing if found.chain == number]
        self._told(f"chain {number}: target {loser} is filled up again")
        await self._fs.pool.call(
            self._address(member.node), REFILL_TARGET, RefillTarget(number, chain.version), timeout=CALL_S
        )
        async with asyncio.timeout(REFILL_S):
            while True:
                await asyncio.sleep(REFILL_LOOK_S)
                known = self._fs.routing.routing.version
                await self._fs.routing.refresh_if_possible(known, CALL_S)
                if len(_serving(self._chain(number))) < len(chain.targets):
                    continue
                try:
                    looks = [await self._look_at(number, bytes(chunk_id(one.inode, one.index))) for one in keys]
                except EmberError:
                    continue
                if not any(_differ(look.values()) for look in looks):
                    break
        self.report.repaired.append(f"chain {number}: target {loser} has {len(keys)} chunks as the others have them")

    # -- routing ---------------------------------------------------------------------------------------------------

    def _chain(self, number: int) -> Chain:
        for chain in self._fs.routing.routing.chains:
            if chain.chain == number:
                return chain
        raise EmberError(Code.CHAIN_UNKNOWN, f"chain {number} is not in the routing any more")

    def _address(self, node: int) -> tuple[str, int]:
        for info in self._fs.routing.routing.nodes:
            if info.node == node:
                return info.host, info.port
        raise EmberError(Code.CHAIN_UNKNOWN, f"routing has no node {node}")


def _serving(chain: Chain) -> list[ChainTarget]:
    return [member for member in chain.targets if member.state == PublicState.SERVING]


def _nothing(chunk: bytes) -> HeldChunk:
    return HeldChunk(chunk, 0, 0, 0, False, 0, 0, 0, 0, False, 0)


def _differ(found: Iterable[HeldChunk]) -> bool:
    """At rest, and not the same. A removal may be forgotten by one and not by another."""
    held = list(found)
    if any(one.pending_version for one in held):
        return False
    return len({one.digest if one.version and not one.removed else 0 for one in held}) > 1


def _words(held: HeldChunk) -> str:
    if not held.version:
        return "nothing"
    if held.removed:
        return f"a removal, version {held.version}"
    return f"version {held.version} of {held.length} bytes, digest {held.digest:08x}"
