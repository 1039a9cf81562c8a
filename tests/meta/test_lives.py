"""Random lives of files: names, sessions, holds, unnamed files, locks, attributes, clients that die and come back.

After every step the store is sound and everything that somebody can still reach has its bytes; in the end everything
else is gone. What a client was told is stored counts, also if it dies before it has told the service.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fs_common.errors import EmberError
from fs_common.records import meta
from fs_common.records.locks import LockType
from fs_meta import fsck
from fs_meta.clients import Clients
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.ops.close import close
from fs_meta.ops.fsync import fsync
from fs_meta.prune import Pruner
from tests.meta.world import CHUNK, ROOT_LAYOUT, World, new_request

TIMEOUT_S = 30.0
CLIENTS = [b"a" * 16, b"b" * 16]

picks = st.integers(0, 2**16)
clients = st.sampled_from(CLIENTS)
names = st.sampled_from([b"1", b"2", b"3"])


class File:
    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.names: set[bytes] = set()
        self.sessions: dict[bytes, tuple[bytes, bool]] = {}
        """Session -> (client, it is for writing)."""
        self.pruned: dict[bytes, tuple[bytes, bool]] = {}
        self.linkable = False
        self.end = 0
        """Of the bytes that are stored."""
        self.told = 0
        """The length the service was told of, at least."""
        self.locks: dict[tuple[bytes, int], LockType] = {}
        self.xattrs: dict[bytes, bytes] = {}

    @property
    def kept(self) -> bool:
        return bool(self.names or self.sessions)


class Lives(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        store = MemoryStore()
        self.run(prepare_store(store, "test", ROOT_LAYOUT, 0, 0, 1))
        self.w = World(store)
        self.run(self.w.context.inode_count.flush())
        self.files: list[File] = []
        self.now = 0.0
        self.alive: set[bytes] = set()
        self.restart()

    def restart(self) -> None:
        """The service begins anew: it knows nobody until they come."""
        self.clients = Clients(TIMEOUT_S)
        self.pruner = Pruner(self.w.context, self.clients, lambda: self.now)
        for client in self.alive:
            self.clients.connected(client)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def refused(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The errno; None if it succeeds."""
        try:
            self.run(coroutine)
        except EmberError as error:
            return error.errno
        return None

    def come(self, client: bytes) -> None:
        """It calls, so it is connected."""
        if client not in self.alive:
            self.alive.add(client)
            self.clients.connected(client)
        self.clients.holds(client, self.now)

    def named(self, name: bytes) -> File | None:
        return next((file for file in self.files if name in file.names), None)

    def kept(self, pick: int) -> File | None:
        kept = [file for file in self.files if file.kept]
        return kept[pick % len(kept)] if kept else None

    @rule(client=clients, name=names)
    def create(self, client: bytes, name: bytes) -> None:
        if self.named(name) is not None:
            return
        self.come(client)
        opened = self.run(self.w.create_open(name, client=client))
        file = File(opened.attributes.inode)
        file.names.add(name)
        file.sessions[opened.session] = (client, True)
        self.files.append(file)

    @rule(client=clients, linkable=st.booleans())
    def create_unnamed(self, client: bytes, linkable: bool) -> None:
        self.come(client)
        opened = self.run(self.w.create_unnamed(client=client, linkable=linkable))
        file = File(opened.attributes.inode)
        file.linkable = linkable
        file.sessions[opened.session] = (client, True)
        self.files.append(file)

    @rule(client=clients, pick=picks, write=st.booleans())
    def open(self, client: bytes, pick: int, write: bool) -> None:
        file = self.kept(pick)
        if file is None:
            return
        self.come(client)
        opened = self.run(self.w.open(b"", at=file.inode, write=write, hold=not write, client=client))
        file.sessions[opened.session] = (client, write)

    @rule(pick=picks, name=names)
    def link(self, pick: int, name: bytes) -> None:
        file = self.kept(pick)
        if file is None or self.named(name) is not None:
            return
        allowed = bool(file.names) or file.linkable
        assert (self.refused(self.w.link(b"", name, at=file.inode)) is None) == allowed
        if allowed:
            file.names.add(name)
            file.linkable = False

    @rule(name=names)
    def unlink(self, name: bytes) -> None:
        file = self.named(name)
        if file is not None:
            self.run(self.w.unlink(name))
            file.names.discard(name)

    @rule(name=names, new=names)
    def rename(self, name: bytes, new: bytes) -> None:
        file, replaced = self.named(name), self.named(new)
        if file is None or name == new:
            return
        self.run(self.w.rename(name, new))
        if replaced is not file:
            file.names.discard(name)
            file.names.add(new)
            if replaced is not None:
                replaced.names.discard(new)

    def _session(self, pick: int, *, write: bool) -> tuple[File, bytes, bytes] | None:
        """A session of a connected client."""
        found = [
            (file, session, client)
            for file in self.files
            for session, (client, writes) in file.sessions.items()
            if writes >= write and client in self.alive
        ]
        return found[pick % len(found)] if found else None

    @rule(pick=picks, length=st.sampled_from([1, 100, CHUNK + 1, 3 * CHUNK]))
    def write(self, pick: int, length: int) -> None:
        """To storage alone; the service hears of it with an fsync or close, or never."""
        found = self._session(pick, write=True)
        if found is not None:
            self.w.chunks.write(found[0].inode, ROOT_LAYOUT, length)
            found[0].end = max(found[0].end, length)

    @rule(pick=picks, ends=st.booleans(), away=st.booleans())
    def settle(self, pick: int, ends: bool, away: bool) -> None:
        found = self._session(pick, write=False)
        if found is None:
            return
        file, session, client = found
        writes = file.sessions[session][1]
        report = file.end if writes and file.end else -1
        self.w.chunks.unreachable = away  # a hint asks nobody
        request: Any
        if ends:
            request = meta.Close(file.inode, session, new_request(), report)
            reply = self.run(close(self.w.context, request, client))
            del file.sessions[session]
        else:
            request = meta.Fsync(file.inode, session, new_request(), report)
            reply = self.run(fsync(self.w.context, request, client))
        self.w.chunks.unreachable = False
        if report >= 0:
            file.told = file.end
        assert reply.attributes.length == file.told

    @rule(pick=picks, client=clients, owner=st.integers(1, 2), type_=st.sampled_from(list(LockType)))
    def lock(self, pick: int, client: bytes, owner: int, type_: LockType) -> None:
        file = self.kept(pick)
        if file is None:
            return
        self.come(client)
        others = {held for of, held in file.locks.items() if of != (client, owner)}
        fits = not others or (type_ is LockType.SHARED and others == {LockType.SHARED}) or type_ is LockType.UNLOCK
        assert (self.refused(self.w.lock(file.inode, owner, type_, client=client)) is None) == fits
        if fits:
            file.locks.pop((client, owner), None)
            if type_ is not LockType.UNLOCK:
                file.locks[client, owner] = type_

    @rule(pick=picks, name=st.sampled_from([b"user.a", b"trusted.b"]), value=st.sampled_from([b"", b"v"]))
    def set_xattr(self, pick: int, name: bytes, value: bytes) -> None:
        file = self.kept(pick)
        if file is not None:
            self.run(self.w.set_xattr(file.inode, name, value))
            file.xattrs[name] = value

    @precondition(lambda self: self.alive)
    @rule(client=clients, away=st.booleans())
    def die(self, client: bytes, away: bool) -> None:
        """A client is gone, and its time passes; storage may be away at first."""
        if client not in self.alive:
            return
        self.alive.discard(client)
        self.clients.disconnected(client, self.now)
        self.now += TIMEOUT_S
        self.w.chunks.unreachable = away
        self.run(self._prune())
        self.w.chunks.unreachable = False
        self.now += TIMEOUT_S
        self.run(self._prune())
        self._pruned({client})

    @rule(returns=st.booleans())
    def begin_anew(self, returns: bool) -> None:
        """The service restarts, and its clients come back in time, or do not."""
        if not returns:
            self.alive.clear()
        self.restart()
        self.run(self._prune())
        self.now += TIMEOUT_S
        self.run(self._prune())
        self._pruned(set(CLIENTS) - self.alive)

    async def _prune(self) -> None:
        await self.pruner.prune_locks()
        await self.pruner.prune_sessions()

    def _pruned(self, dead: set[bytes]) -> None:
        for file in self.files:
            ended = {session: of for session, of in file.sessions.items() if of[0] in dead}
            for session in ended:
                del file.sessions[session]
            file.locks = {of: held for of, held in file.locks.items() if of[0] not in dead}
            if file.kept:
                file.pruned |= ended
                if any(writes for _, writes in ended.values()):
                    file.told = file.end

    @rule(pick=picks)
    def come_back(self, pick: int) -> None:
        """A client was only cut off, and goes on with what it had open."""
        found = [(file, session, of) for file in self.files for session, of in file.pruned.items()]
        if not found:
            return
        file, session, (client, writes) = found[pick % len(found)]
        self.come(client)
        request = meta.Fsync(file.inode, session, new_request())
        again = self.refused(fsync(self.w.context, request, client)) is None
        assert again == file.kept
        del file.pruned[session]
        if again:
            file.sessions[session] = (client, writes)

    @rule()
    def collect(self) -> None:
        self.run(self.w.collect_all())
        for file in [file for file in self.files if not file.kept]:
            self.files.remove(file)
            assert file.inode not in self.run(self.w.inodes()) and not self.w.chunks.of(file.inode)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        if not hasattr(self, "w"):
            return
        assert not fsck.check(self.run(self.w.dump()))
        for file in self.files:
            if not file.kept:
                continue
            seen = self.run(self.w.stat(b"", at=file.inode))
            assert (seen.links, seen.length) == (len(file.names), file.told)
            stored = max((index * CHUNK + length for index, length in self.w.chunks.of(file.inode).items()), default=0)
            assert stored == file.end
            assert {owner for owner, *_ in self.run(self.w.held(file.inode))} == {owner for _, owner in file.locks}
            assert self.run(self.w.list_xattrs(file.inode)) == sorted(file.xattrs)

    def teardown(self) -> None:
        if not hasattr(self, "w"):
            return
        self.alive.clear()
        self.begin_anew(False)
        for file in self.files:
            for name in list(file.names):
                self.run(self.w.unlink(name))
        self.run(self.w.collect_all())
        left = {key[:1] for key, _ in self.run(self.w.dump())}
        assert left <= {b"F", b"N", b"C", b"T", b"K", b"I", b"R", b"X", b"P"}, left
        assert self.run(self.w.inodes()) == {1} and not self.w.chunks.lengths
        assert self.w.context.inode_count.estimate == 1
        self.run(self.w.context.inode_ids.close())
        self.runner.close()


def test_lives() -> None:
    run_state_machine_as_test(Lives, settings=settings(max_examples=60, stateful_step_count=40))


@pytest.mark.slow
def test_many_lives() -> None:
    run_state_machine_as_test(Lives, settings=settings(max_examples=300, stateful_step_count=60))
