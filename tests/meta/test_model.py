"""Random histories of the whole namespace against the dictionary model: same answers, same errors, same tree.

Every mutating request is kept; any of them may be sent again at any time, and must then be answered as the first time
and change nothing.
"""

import asyncio
import stat
from collections.abc import Coroutine
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
from fs_common.records.meta import Attributes
from fs_meta import fsck
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.service import OPERATIONS
from tests.meta.model import Directory, File, Link, Model, Node, Wrong
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


class Namespace(RuleBasedStateMachine):
    handles = Bundle("handles")
    """(file, session, the truncate version its client knows)"""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.sent: list[tuple[Method, Any, Any]] = []

    @initialize()
    def format(self) -> None:
        store = MemoryStore()
        self.run(prepare_store(store, "test", ROOT_LAYOUT, 0, 0, 1))
        self.w = World(store)
        self.run(self.w.context.inode_count.flush())

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

    def at(self, pick: int) -> Directory:
        directories = self.model.directories()
        return directories[pick % len(directories)]

    def path(self, spot: Spot) -> bytes:
        """The path a generated spot stands for, in the tree as it is now."""
        if isinstance(spot, bytes):
            return spot
        pick, name = (spot, b"") if isinstance(spot, int) else spot
        found = _expected(self.model.root, b"/")
        known = [path for path, shown in found.items() if not name or shown[1] == 2]
        if name:
            return [b"", *known][pick % (len(known) + 1)] + b"/" + name
        return known[pick % len(known)] if known else b"a"

    @rule(target=handles, at=choice, spot=paths, exclusive=st.booleans(), write=st.booleans())
    def create(self, at: int, spot: Spot, exclusive: bool, write: bool) -> Any:
        path = self.path(spot)
        start, place, number = self.at(at), None, None
        try:
            place = self.model.create(start, path, 0o640, exclusive)
        except Wrong as error:
            number = error.number
        request = meta.Create(start.inode, path, 0o640, new_request(), exclusive, write=write, client=CLIENT)
        reply = self.agree(CREATE, request, number)
        if reply is None:
            return multiple()
        if isinstance(place, File):
            assert reply.existed and reply.attributes.inode == place.inode
            file = place
        else:
            assert place is not None and not reply.existed
            file = place[0].children[place[1]] = File(reply.attributes.inode, 0o640)
        return self._opened(file, reply)

    def _opened(self, file: File, reply: meta.OpenReply) -> Any:
        if not reply.session:
            return multiple()
        file.sessions.add(reply.session)
        return file, reply.session, reply.attributes.truncate_version

    @rule(target=handles, at=choice, spot=paths)
    def open(self, at: int, spot: Spot) -> Any:
        path = self.path(spot)
        start, node, number = self.at(at), None, None
        try:
            node = self.model.walk(start, path)
            if isinstance(node, Directory):
                number = 21
        except Wrong as error:
            number = error.number
        reply = self.agree(OPEN, meta.Open(start.inode, path, True, CLIENT, new_request()), number)
        if reply is None:
            return multiple()
        assert isinstance(node, File)
        return self._opened(node, reply)

    def _settled(self, handle: tuple[File, bytes, int], end: int, exact: bool) -> int:
        """The length the rules give."""
        file, _, version = handle
        layout_end = max((index * CHUNK + length for index, length in self.w.chunks.of(file.inode).items()), default=0)
        if exact or (end > file.length and version < file.version):
            return max(file.length, layout_end)
        return max(file.length, end) if end > file.length else file.length

    @rule(handle=handles, end=lengths, writes=st.booleans(), exact=st.booleans())
    def fsync(self, handle: Any, end: int, writes: bool, exact: bool) -> None:
        file, session, version = handle
        if session not in file.sessions:
            return
        if writes:
            self.w.chunks.write(file.inode, ROOT_LAYOUT, end)
        hint = end if writes else -1
        file.length = self._settled(handle, hint, exact)
        reply = self.agree(FSYNC, meta.Fsync(file.inode, session, new_request(), hint, version, exact), None)
        assert reply.attributes.length == file.length

    @rule(handle=consumes(handles), end=lengths, exact=st.booleans())
    def close(self, handle: Any, end: int, exact: bool) -> None:
        file, session, version = handle
        number = None
        if session in file.sessions:
            self.w.chunks.write(file.inode, ROOT_LAYOUT, end)
            file.length = self._settled(handle, end, exact)
            self.model.close(file, session)
        else:
            number = 9
        self.agree(CLOSE, meta.Close(file.inode, session, new_request(), end, version, exact), number)

    @rule(at=choice, spot=paths, length=lengths)
    def truncate(self, at: int, spot: Spot, length: int) -> None:
        path = self.path(spot)
        try:
            node = self.model.walk(self.at(at), path)
        except Wrong:
            return
        request = meta.Truncate(node.inode, length, new_request())
        if not isinstance(node, File):
            self.agree(TRUNCATE, request, 21)
            return
        node.length, node.version = length, node.version + 1
        reply = self.agree(TRUNCATE, request, None)
        assert (reply.attributes.length, reply.attributes.truncate_version) == (length, node.version)

    @rule(at=choice, spot=paths, parents=st.booleans())
    def mkdir(self, at: int, spot: Spot, parents: bool) -> None:
        path = self.path(spot)
        start = self.at(at)
        request = meta.Mkdir(start.inode, path, 0o755, new_request(), parents)
        if parents:
            self._mkdir_parents(start, path, request)
            return
        number, place = None, None
        try:
            place = self.model.mkdir(start, path)
        except Wrong as error:
            number = error.number
        reply = self.agree(MKDIR, request, number)
        if place is not None:
            place[0].children[place[1]] = _new_directory(reply.attributes.inode, place[0])

    def _mkdir_parents(self, start: Directory, path: bytes, request: meta.Mkdir) -> None:
        """Succeeds exactly where the path is a directory afterwards; what was made is then looked up."""
        before = self._picture()
        outcome = self.send(MKDIR, request)
        if isinstance(outcome, int):
            assert outcome in (17, 20, 40) and self._picture() == before
            return
        self._adopt_directories()
        made = self.model.walk(start, path)
        assert isinstance(made, Directory) and made.inode == outcome.attributes.inode

    def _adopt_directories(self) -> None:
        """Add what exists and the model does not know: only empty-named directories may be new."""
        for directory in (found := [self.model.root]):
            for entry in self.run(self.w.readdir(directory.inode)).entries:
                if entry.name not in directory.children:
                    directory.children[entry.name] = _new_directory(entry.inode, directory)
                child = directory.children[entry.name]
                assert child.inode == entry.inode
                if isinstance(child, Directory):
                    found.append(child)

    @rule(at=choice, spot=paths, leads_to=paths)
    def symlink(self, at: int, spot: Spot, leads_to: Spot) -> None:
        path, target = self.path(spot), self.path(leads_to)
        start, place, number = self.at(at), None, None
        try:
            place = self.model.symlink(start, path)
        except Wrong as error:
            number = error.number
        reply = self.agree(SYMLINK, meta.Symlink(start.inode, path, target, new_request()), number)
        if place is not None:
            place[0].children[place[1]] = Link(reply.attributes.inode, target)

    @rule(at=choice, spot=paths, new_at=choice, new_spot=paths)
    def link(self, at: int, spot: Spot, new_at: int, new_spot: Spot) -> None:
        path, new_path = self.path(spot), self.path(new_spot)
        start, new_start, number = self.at(at), self.at(new_at), None
        try:
            self.model.link(start, path, new_start, new_path)
        except Wrong as error:
            number = error.number
        self.agree(LINK, meta.Link(start.inode, path, new_start.inode, new_path, new_request()), number)

    @rule(at=choice, spot=paths, how=st.sampled_from([UNLINK, UNLINK, RMDIR, REMOVE_TREE]))
    def remove(self, at: int, spot: Spot, how: Method) -> None:
        path = self.path(spot)
        start, number = self.at(at), None
        inode = start.inode
        try:
            {UNLINK: self.model.unlink, RMDIR: self.model.rmdir, REMOVE_TREE: self.model.remove_tree}[how](start, path)
        except Wrong as error:
            number = error.number
        self.agree(how, how.request(inode, path, new_request()), number)

    @rule(at=choice, spot=paths, new_at=choice, new_spot=paths, flags=st.sampled_from([0, 0, 1, 2]))
    def rename(self, at: int, spot: Spot, new_at: int, new_spot: Spot, flags: int) -> None:
        path, new_path = self.path(spot), self.path(new_spot)
        start, new_start, number = self.at(at), self.at(new_at), None
        try:
            self.model.rename(start, path, new_start, new_path, flags == 1, flags == 2)
        except Wrong as error:
            number = error.number
        request = meta.Rename(start.inode, path, new_start.inode, new_path, new_request(), flags)
        self.agree(RENAME, request, number)

    @rule(at=choice, spot=paths, mode=st.integers(0, 0o7777))
    def chmod(self, at: int, spot: Spot, mode: int) -> None:
        path = self.path(spot)
        start, number = self.at(at), None
        try:
            node = self.model.walk(start, path)
            assert not isinstance(node, Link)
            node.mode = mode
        except Wrong as error:
            number = error.number
        self.agree(SET_ATTR, meta.SetAttr(start.inode, path, new_request(), mode=mode), number)

    @rule(at=choice, spot=paths, follow=st.booleans())
    def look(self, at: int, spot: Spot, follow: bool) -> None:
        path = self.path(spot)
        start, node, number = self.at(at), None, None
        try:
            node = self.model.walk(start, path, follow)
        except Wrong as error:
            number = error.number
        try:
            seen = self.run(self._call(STAT, meta.Stat(start.inode, path, follow))).attributes
            assert number is None and node is not None
            _compare(node, seen)
        except EmberError as error:
            assert error.errno == number

    @rule()
    def collect(self) -> None:
        self.run(self.w.collect_all())
        self.model.collect()
        alive = self.run(self.w.inodes())
        assert {inode for inode, _ in self.w.chunks.lengths} <= alive
        named = {node.inode for directory in self.model.directories() for node in directory.children.values()}
        assert alive == {1} | named | {file.inode for file in self.model.nameless}
        assert self.w.context.inode_count.estimate == len(alive)

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
        if hasattr(self, "w"):
            assert self._picture() == _expected(self.model.root, b"")

    @invariant()
    def the_store_is_sound(self) -> None:
        if hasattr(self, "w"):
            assert not fsck.check(self.run(self.w.dump()))

    def _picture(self) -> dict[bytes, tuple[Any, ...]]:
        found: dict[bytes, tuple[Any, ...]] = {}
        pending = [(b"", 1)]
        while pending:
            path, inode = pending.pop()
            for entry in self.run(self.w.readdir(inode, with_attributes=True)).entries:
                assert entry.attributes is not None
                found[path + entry.name] = _shown(entry.attributes)
                if entry.type == 2:
                    pending.append((path + entry.name + b"/", entry.inode))
        return found


def _new_directory(inode: int, parent: Directory) -> Directory:
    return Directory(inode, 0o755 | parent.mode & stat.S_ISGID, parent)


def _shown(seen: Attributes) -> tuple[Any, ...]:
    return seen.inode, int(seen.type), seen.mode, seen.links, seen.length, seen.target


def _wanted(node: Node) -> tuple[Any, ...]:
    if isinstance(node, File):
        return node.inode, 1, node.mode, node.links, node.length, b""
    if isinstance(node, Directory):
        return node.inode, 2, node.mode, node.links, 0, b""
    return node.inode, 3, 0o777, node.links, len(node.target), node.target


def _compare(node: Node, seen: Attributes) -> None:
    assert _shown(seen) == _wanted(node)


def _expected(directory: Directory, path: bytes) -> dict[bytes, tuple[Any, ...]]:
    found = {}
    for name, child in directory.children.items():
        found[path + name] = _wanted(child)
        if isinstance(child, Directory):
            found |= _expected(child, path + name + b"/")
    return found


TestNamespace = Namespace.TestCase
TestNamespace.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.slow
def test_long_histories() -> None:
    run_state_machine_as_test(
        Namespace, settings=settings(max_examples=600, stateful_step_count=80, deadline=None, database=None)
    )
