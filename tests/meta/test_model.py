"""Random histories of the whole namespace against the dictionary model: same answers, same errors, same tree.

Three users act. Every mutating request is kept; any of them may be sent again at any time, and must then be answered as
the first time and change nothing. After each step every inode is as the model has it, its times too: what one call set
has one time, later than all before.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from fs_common.errors import EmberError
from fs_common.methods import (
    CLOSE,
    CREATE,
    FSYNC,
    LINK,
    MKDIR,
    MKNOD,
    OPEN,
    REMOVE_TREE,
    RENAME,
    RMDIR,
    SET_ATTR,
    STAT,
    SYMLINK,
    TRUNCATE,
    UNLINK,
    Method,
)
from fs_common.records import meta
from fs_common.records.meta import Attributes, FileType, User
from fs_meta import fsck
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.service import OPERATIONS
from tests.meta.model import Model
from tests.meta.model_nodes import (
    Child,
    Directory,
    File,
    Link,
    Nanoseconds,
    Node,
    Special,
    Time,
    Wrong,
    group_in,
    mode_in,
)
from tests.meta.world import CHUNK, CLIENT, ROOT_LAYOUT, World, new_request

names = st.sampled_from([b"a", b"b", b"c"])
wild_paths = st.builds(
    lambda parts, absolute, slash: (b"/" if absolute else b"") + b"/".join(parts) + (b"/" if slash else b""),
    st.lists(st.sampled_from([b"a", b"b", b"c", b"a", b"b", b"c", b"..", b"."]), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)
choice = st.integers(0, 2**16)
paths = st.one_of(choice, st.tuples(choice, names), wild_paths)
"""An existing entry; a name in an existing directory; anything."""
Spot = int | tuple[int, bytes] | bytes
lengths = st.sampled_from([0, 1, 100, CHUNK, CHUNK + 1, 5 * CHUNK])
SUPER, ALICE, BOB = User(), User(1000, 1000), User(2000, 2000, [1000])
users = st.sampled_from([SUPER, SUPER, ALICE, BOB])
modes = st.sampled_from([0o777, 0o755, 0o750, 0o1777, 0o2775, 0o6755, 0o2765, 0o666, 0o640, 0o300, 0o077, 0])


class Namespace(RuleBasedStateMachine):
    handles = Bundle("handles")
    """(file, session, the truncate version its client knows)"""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.sent: list[tuple[Method, Any, Any]] = []
        self.times: dict[int, int] = {}
        """Number of a call -> the nanoseconds it was made at, once they were seen."""
        self.latest_ns = 0
        """Of all calls but the last."""

    @initialize(mode=st.sampled_from([0o777, 0o777, 0o1777, 0o2777, 0o755]))
    def format(self, mode: int) -> None:
        store = MemoryStore()
        self.run(prepare_store(store, "test", ROOT_LAYOUT, 0, 0, 1))
        self.w = World(store)
        self.run(self.w.context.inode_count.flush())
        self.model = Model(0o755)
        self.times[0] = 1
        self._begin()
        self.model.chmod(SUPER, self.model.root, mode)
        self.agree(SET_ATTR, meta.SetAttr(1, b"", new_request(), mode=mode), None)

    def teardown(self) -> None:
        self.run(self.w.context.inode_ids.close())
        self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    def send(self, method: Method, request: Any) -> Any:
        """The reply or the errno; kept for replays."""
        try:
            outcome = self.run(self._call(method, request))
        except EmberError as error:
            outcome = error.errno
        self.sent.append((method, request, outcome))
        return outcome

    async def _call(self, method: Method, request: Any) -> Any:
        return await OPERATIONS[method](self.w.context, request)

    def agree(self, method: Method, request: Any, number: int | None) -> Any:
        """Send; the outcome must be this error, or a success for None, which is returned."""
        outcome = self.send(method, request)
        if number is not None:
            assert outcome == number, (method.name, request, outcome)
            return None
        assert not isinstance(outcome, int), (method.name, request, outcome)
        return outcome

    def _begin(self) -> None:
        """Another call is made."""
        self.latest_ns = max(self.times.values())
        self.model.now += 1

    def _of_model(self, act: Callable[[], Any]) -> tuple[Any, int | None]:
        """What the model says: a result, or an errno."""
        self._begin()
        try:
            return act(), None
        except Wrong as error:
            return None, error.number

    def at(self, pick: int) -> Directory:
        directories = self.model.directories()
        return directories[pick % len(directories)]

    def path(self, spot: Spot) -> bytes:
        """The path a generated spot stands for, in the tree as it is now."""
        if isinstance(spot, bytes):
            return spot
        pick, name = (spot, b"") if isinstance(spot, int) else spot
        found = _nodes_below(self.model.root, b"/")
        known = [path for path, node in found.items() if not name or isinstance(node, Directory)]
        if name:
            return [b"", *known][pick % (len(known) + 1)] + b"/" + name
        return known[pick % len(known)] if known else b"a"

    # What makes something

    @rule(target=handles, user=users, at=choice, spot=paths, mode=modes, exclusive=st.booleans(), write=st.booleans())
    def create(self, user: User, at: int, spot: Spot, mode: int, exclusive: bool, write: bool) -> Any:
        path, start = self.path(spot), self.at(at)
        place, number = self._of_model(lambda: self.model.create(user, start, path, exclusive, write))
        request = meta.Create(start.inode, path, mode, new_request(), exclusive, write=write, client=CLIENT, user=user)
        reply = self.agree(CREATE, request, number)
        if reply is None:
            return multiple()
        if isinstance(place, File):
            assert reply.existed and reply.attributes.inode == place.inode
            return self._opened(place, reply)
        assert not reply.existed
        parent, name = place
        file = self.model.new_file(user, reply.attributes.inode, parent, mode)
        self.model.add(parent, name, file)
        return self._opened(file, reply)

    def _opened(self, file: File, reply: meta.OpenReply) -> Any:
        if not reply.session:
            return multiple()
        file.sessions.add(reply.session)
        return file, reply.session, reply.attributes.truncate_version

    @rule(user=users, at=choice, spot=paths, mode=modes, type_=st.sampled_from([1, 4, 5, 6, 7]))
    def mknod(self, user: User, at: int, spot: Spot, mode: int, type_: int) -> None:
        path, start, kind = self.path(spot), self.at(at), FileType(type_)
        place, number = self._of_model(lambda: self.model.mknod(user, start, path, kind))
        request = meta.Mknod(start.inode, path, kind, mode, new_request(), 5, user=user)
        reply = self.agree(MKNOD, request, number)
        if place is None:
            return
        parent, name = place
        inode = reply.attributes.inode
        if kind is FileType.FILE:
            self.model.add(parent, name, self.model.new_file(user, inode, parent, mode))
            return
        device = 5 if kind in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE) else 0
        bits = mode_in(parent, user, mode)
        made = Special(inode, bits, user.uid, group_in(parent, user), self.model.now, type=kind, device=device)
        self.model.add(parent, name, made)

    @rule(user=users, at=choice, spot=paths, mode=modes)
    def mkdir(self, user: User, at: int, spot: Spot, mode: int) -> None:
        path, start = self.path(spot), self.at(at)
        place, number = self._of_model(lambda: self.model.mkdir(user, start, path))
        reply = self.agree(MKDIR, meta.Mkdir(start.inode, path, mode, new_request(), user=user), number)
        if place is not None:
            parent, name = place
            self.model.add(parent, name, self.model.new_directory(user, reply.attributes.inode, parent, mode))

    @rule(user=users, at=choice, spot=paths, mode=modes)
    def mkdir_parents(self, user: User, at: int, spot: Spot, mode: int) -> None:
        path, start = self.path(spot), self.at(at)
        outcome, number = self._of_model(lambda: self.model.mkdir_parents(user, start, path, mode))
        reply = self.agree(MKDIR, meta.Mkdir(start.inode, path, mode, new_request(), True, user=user), number)
        if outcome is None:
            return
        directory, made = outcome
        for node in made:
            assert node.parent is not None
            name = next(name for name, child in node.parent.children.items() if child is node)
            node.inode = self.run(self.w.lookup(node.parent.inode, name)).inode
        assert reply.attributes.inode == directory.inode

    @rule(user=users, at=choice, spot=paths, leads_to=paths)
    def symlink(self, user: User, at: int, spot: Spot, leads_to: Spot) -> None:
        path, target, start = self.path(spot), self.path(leads_to), self.at(at)
        place, number = self._of_model(lambda: self.model.new_place(user, start, path))
        reply = self.agree(SYMLINK, meta.Symlink(start.inode, path, target, new_request(), user), number)
        if place is not None:
            parent, name = place
            gid = group_in(parent, user)
            made = Link(reply.attributes.inode, 0o777, user.uid, gid, self.model.now, target=target)
            self.model.add(parent, name, made)

    @rule(user=users, at=choice, spot=paths, new_at=choice, new_spot=paths)
    def link(self, user: User, at: int, spot: Spot, new_at: int, new_spot: Spot) -> None:
        path, new_path, start, new_start = self.path(spot), self.path(new_spot), self.at(at), self.at(new_at)
        _, number = self._of_model(lambda: self.model.link(user, start, path, new_start, new_path))
        self.agree(LINK, meta.Link(start.inode, path, new_start.inode, new_path, new_request(), user), number)

    # What removes and moves

    @rule(user=users, at=choice, spot=paths, how=st.sampled_from([UNLINK, UNLINK, RMDIR, REMOVE_TREE]))
    def remove(self, user: User, at: int, spot: Spot, how: Method) -> None:
        path, start = self.path(spot), self.at(at)
        inode = start.inode
        removes = {UNLINK: self.model.unlink, RMDIR: self.model.rmdir, REMOVE_TREE: self.model.remove_tree}[how]
        _, number = self._of_model(lambda: removes(user, start, path))
        self.agree(how, how.request(inode, path, new_request(), user), number)

    @rule(user=users, at=choice, spot=paths, new_at=choice, new_spot=paths, flags=st.sampled_from([0, 0, 1, 2]))
    def rename(self, user: User, at: int, spot: Spot, new_at: int, new_spot: Spot, flags: int) -> None:
        path, new_path, start, new_start = self.path(spot), self.path(new_spot), self.at(at), self.at(new_at)
        _, number = self._of_model(
            lambda: self.model.rename(user, start, path, new_start, new_path, flags == 1, flags == 2)
        )
        request = meta.Rename(start.inode, path, new_start.inode, new_path, new_request(), flags, user)
        self.agree(RENAME, request, number)

    # Files

    @rule(target=handles, user=users, at=choice, spot=paths, append=st.booleans())
    def open(self, user: User, at: int, spot: Spot, append: bool) -> Any:
        path, start = self.path(spot), self.at(at)
        node, number = self._of_model(lambda: self.model.open(user, start, path, append))
        request = meta.Open(start.inode, path, True, CLIENT, new_request(), user, append=append)
        reply = self.agree(OPEN, request, number)
        return multiple() if reply is None else self._opened(node, reply)

    def _settled(self, handle: tuple[File, bytes, int], end: int, exact: bool) -> int:
        """The length the rules give."""
        file, _, version = handle
        layout_end = max((index * CHUNK + length for index, length in self.w.chunks.of(file.inode).items()), default=0)
        if exact or (end > file.length and version < file.version):
            return max(file.length, layout_end)
        return max(file.length, end) if end > file.length else file.length

    @rule(handle=handles, end=lengths, writes=st.booleans(), exact=st.booleans(), clear=st.booleans())
    def fsync(self, handle: Any, end: int, writes: bool, exact: bool, clear: bool) -> None:
        file, session, version = handle
        if session not in file.sessions:
            return
        if writes:
            self.w.chunks.write(file.inode, ROOT_LAYOUT, end)
        hint = end if writes else -1
        self._begin()
        self.model.settle(file, self._settled(handle, hint, exact), writes or exact, clear)
        request = meta.Fsync(file.inode, session, new_request(), hint, version, exact, clear_set_id=clear)
        self._compare(file, self.agree(FSYNC, request, None).attributes)

    @rule(handle=consumes(handles), end=lengths, exact=st.booleans(), clear=st.booleans())
    def close(self, handle: Any, end: int, exact: bool, clear: bool) -> None:
        file, session, version = handle
        number = None
        self._begin()
        if session in file.sessions:
            self.w.chunks.write(file.inode, ROOT_LAYOUT, end)
            self.model.settle(file, self._settled(handle, end, exact), True, clear)
            self.model.close(file, session)
        else:
            number = 9
        request = meta.Close(file.inode, session, new_request(), end, version, exact, clear_set_id=clear)
        reply = self.agree(CLOSE, request, number)
        if reply is not None:
            self._compare(file, reply.attributes)

    @rule(user=users, at=choice, spot=paths, length=lengths)
    def truncate(self, user: User, at: int, spot: Spot, length: int) -> None:
        try:
            node = self.model.walk(SUPER, self.at(at), self.path(spot))
        except Wrong:
            return
        _, number = self._of_model(lambda: self.model.truncate(user, node, length, False))
        reply = self.agree(TRUNCATE, meta.Truncate(node.inode, length, new_request(), user), number)
        if isinstance(node, File) and reply is not None:
            assert reply.attributes.truncate_version == node.version
            self._is_cut(node, length)

    def _is_cut(self, file: File, length: int) -> None:
        ends = [index * CHUNK + within for index, within in self.w.chunks.of(file.inode).items()]
        assert max(ends, default=0) <= length

    @rule(user=users, handle=handles, length=lengths)
    def truncate_what_is_open(self, user: User, handle: Any, length: int) -> None:
        file, session, _ = handle
        if session not in file.sessions:
            return
        _, number = self._of_model(lambda: self.model.truncate(user, file, length, True))
        if self.agree(TRUNCATE, meta.Truncate(file.inode, length, new_request(), user, session), number) is not None:
            self._is_cut(file, length)

    # Attributes

    def _set(self, user: User, at: int, spot: Spot, act: Callable[[Node], None], **changes: Any) -> None:
        path, start = self.path(spot), self.at(at)
        _, number = self._of_model(lambda: act(self.model.walk(user, start, path)))
        self.agree(SET_ATTR, meta.SetAttr(start.inode, path, new_request(), user=user, **changes), number)

    @rule(user=users, at=choice, spot=paths, mode=st.one_of(modes, st.integers(0, 0o7777)))
    def chmod(self, user: User, at: int, spot: Spot, mode: int) -> None:
        self._set(user, at, spot, lambda node: self.model.chmod(user, node, mode), mode=mode)

    ids = st.sampled_from([None, 0, 1000, 2000])

    @rule(user=users, at=choice, spot=paths, uid=ids, gid=ids)
    def chown(self, user: User, at: int, spot: Spot, uid: int | None, gid: int | None) -> None:
        if uid is not None or gid is not None:
            self._set(user, at, spot, lambda node: self.model.chown(user, node, uid, gid), uid=uid, gid=gid)

    some_ns = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))

    @rule(user=users, at=choice, spot=paths, atime=some_ns, mtime=some_ns)
    def utimes(self, user: User, at: int, spot: Spot, atime: int | None, mtime: int | None) -> None:
        now = atime is None and mtime is None
        changes = {"atime_ns": atime, "mtime_ns": mtime, "atime_now": now, "mtime_now": now}
        self._set(user, at, spot, lambda node: self.model.utimes(user, node, atime, mtime), **changes)

    @rule(user=users, at=choice, spot=paths, flags=st.sampled_from([0, 0, 0x40, 0x10, 0x20]))
    def set_flags(self, user: User, at: int, spot: Spot, flags: int) -> None:
        self._set(user, at, spot, lambda node: self.model.set_flags(user, node, flags), flags=flags)

    @rule(user=users, at=choice, spot=paths, follow=st.booleans())
    def look(self, user: User, at: int, spot: Spot, follow: bool) -> None:
        path, start = self.path(spot), self.at(at)
        node, number = self._of_model(lambda: self.model.walk(user, start, path, follow))
        try:
            seen = self.run(self._call(STAT, meta.Stat(start.inode, path, follow, user))).attributes
            assert number is None and node is not None
            self._compare(node, seen)
        except EmberError as error:
            assert error.errno == number

    # The collector, replays, restarts

    @rule()
    def collect(self) -> None:
        before = set(self.run(self.w.names()))
        self.run(self.w.collect_all())
        made = set(self.run(self.w.names())) - before
        new_place = self.run(self.w.lookup(1, made.pop())).inode if made else 0
        self._begin()
        self.model.collect(new_place)
        assert not made
        alive = self.run(self.w.inodes())
        assert {inode for inode, _ in self.w.chunks.lengths} <= alive
        named = {node.inode for node in self.model.nodes()}
        assert alive == named | {file.inode for file in self.model.nameless}
        assert self.w.context.inode_count.estimate == len(alive)

    @rule(user=users, pick=choice, flag=st.sampled_from([0x10, 0x20]))
    def remove_what_holds_something_flagged(self, user: User, pick: int, flag: int) -> None:
        """Seldom by chance: the collector comes to what nobody may remove."""
        deep = [path for path, node in _nodes_below(self.model.root, b"/").items() if path.count(b"/") > 1]
        if deep:
            path = deep[pick % len(deep)]
            self.set_flags(SUPER, 0, path, flag)
            self.remove(user, 0, b"/" + path.split(b"/")[1], REMOVE_TREE)
            self.collect()

    @rule(user=users, pick=choice, new_pick=choice, name=names)
    def move_a_directory(self, user: User, pick: int, new_pick: int, name: bytes) -> None:
        """Seldom by chance: one that its mover may not write gets another parent."""
        found = [path for path, node in _nodes_below(self.model.root, b"/").items() if isinstance(node, Directory)]
        if found:
            target = [b"", *found][new_pick % (len(found) + 1)] + b"/" + name
            self.rename(user, 0, found[pick % len(found)], 0, target, 0)

    @rule(pick=choice, restart=st.booleans())
    def replay(self, pick: int, restart: bool) -> None:
        if not self.sent:
            return
        method, request, outcome = self.sent[pick % len(self.sent)]
        if restart:
            self.run(self.w.context.inode_count.flush())
            self.run(self.w.context.inode_ids.close())
            self.w.context = self.w.new_context()
            self.w.collector._context = self.w.context
            self.run(self.w.context.inode_count.flush())
        chunks = dict(self.w.chunks.lengths)
        try:
            again = self.run(self._call(method, request))
        except EmberError as error:
            again = error.errno
        assert again == outcome
        assert self.w.chunks.lengths == chunks

    @invariant()
    def the_tree_is_the_models(self) -> None:
        if not hasattr(self, "w"):
            return
        expected = _nodes_below(self.model.root, b"")
        seen = self._picture()
        assert seen.keys() == expected.keys()
        self._compare(self.model.root, self.run(self.w.stat(b"/")))
        for path, node in expected.items():
            self._compare(node, seen[path])
        for file in self.model.nameless:
            if file.sessions:
                reply = self.run(self._call(STAT, meta.Stat(file.inode, b"", False)))
                self._compare(file, reply.attributes)

    @invariant()
    def the_store_is_sound(self) -> None:
        if hasattr(self, "w"):
            assert not fsck.check(self.run(self.w.dump()))

    def _picture(self) -> dict[bytes, Attributes]:
        found: dict[bytes, Attributes] = {}
        pending = [(b"", 1)]
        while pending:
            path, inode = pending.pop()
            for entry in self.run(self.w.readdir(inode, with_attributes=True)).entries:
                assert entry.attributes is not None and entry.type == entry.attributes.type
                found[path + entry.name] = entry.attributes
                if entry.type == 2:
                    pending.append((path + entry.name + b"/", entry.inode))
        return found

    def _compare(self, node: Child, seen: Attributes) -> None:
        length, target, device = 0, b"", 0
        match node:
            case File():
                type_, length = FileType.FILE, node.length
            case Link():
                type_, length, target = FileType.SYMLINK, len(node.target), node.target
            case Special():
                type_, device = node.type, node.device
            case Directory():
                type_ = FileType.DIRECTORY
        wanted = (node.inode, type_, node.mode, node.uid, node.gid, node.links, length, target, device, node.flags)
        shown = (seen.inode, seen.type, seen.mode, seen.uid, seen.gid, seen.links, seen.length, seen.target)
        assert (*shown, seen.device, seen.flags) == wanted
        assert seen.version == node.contents, node
        for time, ns in (
            (node.born, seen.btime_ns), (node.atime, seen.atime_ns), (node.mtime, seen.mtime_ns),
            (node.ctime, seen.ctime_ns),
        ):  # fmt: skip
            self._compare_time(time, ns)

    def _compare_time(self, time: Time, ns: int) -> None:
        if isinstance(time, Nanoseconds):
            assert ns == time.value
        elif time in self.times:
            assert ns == self.times[time]
        else:
            assert ns > self.latest_ns, "what was not changed by this call has kept its time"
            self.times[time] = ns


def _nodes_below(directory: Directory, path: bytes) -> dict[bytes, Child]:
    found: dict[bytes, Child] = {}
    for name, child in directory.children.items():
        found[path + name] = child
        if isinstance(child, Directory):
            found |= _nodes_below(child, path + name + b"/")
    return found


TestNamespace = Namespace.TestCase
TestNamespace.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
def test_long_histories() -> None:
    run_state_machine_as_test(
        Namespace, settings=settings(max_examples=600, stateful_step_count=80, deadline=None, database=None)
    )
