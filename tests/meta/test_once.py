"""Every mutating operation under one request id: applied once, answered the same, whatever happens in between."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.layout import Layout
from fs_common.records import meta
from fs_common.records.locks import Lock, ReleaseLocks
from fs_meta import schema
from fs_meta.kv.interface import TransactionFunction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.service import OPERATIONS
from tests.meta.world import CLIENT, ROOT, World, world
from tests.support import run

_T = TypeVar("_T")
Prepare = Callable[[World], Awaitable[Any]]


async def _tree(w: World) -> dict[str, Any]:
    """What the requests below speak of."""
    await w.mkdir(b"d")
    await w.mkdir(b"empty")
    await w.create(b"d/f")
    await w.create(b"g")
    await w.set_xattr((await w.stat(b"g")).inode, b"user.a")
    await w.lock((await w.stat(b"g")).inode, 1, start=0, end=9)
    opened = await w.create_open(b"open")
    await w.fsync(opened.attributes.inode, opened.session, 100)
    return {
        "inode": opened.attributes.inode,
        "session": opened.session,
        "g": (await w.stat(b"g")).inode,
        "unnamed": (await w.create_unnamed()).attributes.inode,
    }


R = b"r" * 16
REQUESTS: dict[str, tuple[methods.Method, Callable[[dict[str, Any]], Any]]] = {
    "create": (methods.CREATE, lambda t: meta.Create(ROOT, b"new", 0o644, R)),
    "create_open": (methods.CREATE, lambda t: meta.Create(ROOT, b"new", 0o644, R, write=True, client=CLIENT)),
    "create_existing": (methods.CREATE, lambda t: meta.Create(ROOT, b"g", 0o644, R, False, write=True, client=CLIENT)),
    "batch_create": (methods.BATCH_CREATE, lambda t: meta.BatchCreate(ROOT, [b"g", b"new", b"new2"], 0o644, R)),
    "open": (methods.OPEN, lambda t: meta.Open(ROOT, b"g", True, CLIENT, R)),
    "close": (methods.CLOSE, lambda t: meta.Close(t["inode"], t["session"], R, 200)),
    "close_exact": (methods.CLOSE, lambda t: meta.Close(t["inode"], t["session"], R, exact=True)),
    "fsync": (methods.FSYNC, lambda t: meta.Fsync(t["inode"], t["session"], R, 200)),
    "mkdir": (methods.MKDIR, lambda t: meta.Mkdir(ROOT, b"new", 0o755, R)),
    "mkdir_parents": (methods.MKDIR, lambda t: meta.Mkdir(ROOT, b"new/a/b", 0o755, R, parents=True)),
    "unlink": (methods.UNLINK, lambda t: meta.Unlink(ROOT, b"g", R)),
    "rmdir": (methods.RMDIR, lambda t: meta.Rmdir(ROOT, b"empty", R)),
    "remove_tree": (methods.REMOVE_TREE, lambda t: meta.RemoveTree(ROOT, b"d", R)),
    "rename": (methods.RENAME, lambda t: meta.Rename(ROOT, b"g", ROOT, b"new", R)),
    "rename_replace": (methods.RENAME, lambda t: meta.Rename(ROOT, b"g", ROOT, b"d/f", R)),
    "rename_exchange": (methods.RENAME, lambda t: meta.Rename(ROOT, b"g", ROOT, b"d", R, 2)),
    "symlink": (methods.SYMLINK, lambda t: meta.Symlink(ROOT, b"new", b"x", R)),
    "mknod": (methods.MKNOD, lambda t: meta.Mknod(ROOT, b"new", meta.FileType.FIFO, 0o600, R)),
    "link": (methods.LINK, lambda t: meta.Link(ROOT, b"g", ROOT, b"new", R)),
    "set_attr": (methods.SET_ATTR, lambda t: meta.SetAttr(ROOT, b"g", R, mode=0o600, uid=5)),
    "set_attr_flags": (methods.SET_ATTR, lambda t: meta.SetAttr(ROOT, b"g", R, flags=0x40, mtime_now=True)),
    "set_attr_layout": (methods.SET_ATTR, lambda t: meta.SetAttr(ROOT, b"d", R, layout=Layout(1 << 20))),
    "truncate_session": (methods.TRUNCATE, lambda t: meta.Truncate(t["inode"], 100, R, session=t["session"])),
    "truncate": (methods.TRUNCATE, lambda t: meta.Truncate(t["inode"], 10, R)),
    "open_hold": (methods.OPEN, lambda t: meta.Open(ROOT, b"g", False, CLIENT, R, hold=True)),
    "create_unnamed": (methods.CREATE_UNNAMED, lambda t: meta.CreateUnnamed(ROOT, 0o600, R, CLIENT)),
    "link_unnamed": (methods.LINK, lambda t: meta.Link(t["unnamed"], b"", ROOT, b"new", R)),
    "set_xattr": (methods.SET_XATTR, lambda t: meta.SetXattr(t["g"], b"user.b", b"v", R, 1)),
    "remove_xattr": (methods.REMOVE_XATTR, lambda t: meta.RemoveXattr(t["g"], b"user.a", R)),
    "lock": (methods.LOCK, lambda t: Lock(t["g"], CLIENT, 2, 2, 2, R, 20, 30)),
    "lock_flock": (methods.LOCK, lambda t: Lock(t["g"], CLIENT, 2, 1, 1, R)),
    "lock_append": (methods.LOCK, lambda t: Lock(t["g"], CLIENT, 2, 3, 2, R)),
    "unlock": (methods.LOCK, lambda t: Lock(t["g"], CLIENT, 1, 2, 0, R, 5, 5)),
    "release_locks": (methods.RELEASE_LOCKS, lambda t: ReleaseLocks(t["g"], CLIENT, 1, 2, R)),
    # The same for answers that are errors.
    "create_error": (methods.CREATE, lambda t: meta.Create(ROOT, b"g", 0o644, R)),
    "open_error": (methods.OPEN, lambda t: meta.Open(ROOT, b"d", True, CLIENT, R)),
    "close_error": (methods.CLOSE, lambda t: meta.Close(t["inode"], b"x" * 16, R)),
    "mkdir_error": (methods.MKDIR, lambda t: meta.Mkdir(ROOT, b"d", 0o755, R)),
    "unlink_error": (methods.UNLINK, lambda t: meta.Unlink(ROOT, b"new", R)),
    "rmdir_error": (methods.RMDIR, lambda t: meta.Rmdir(ROOT, b"d", R)),
    "remove_tree_error": (methods.REMOVE_TREE, lambda t: meta.RemoveTree(ROOT, b"new", R)),
    "rename_error": (methods.RENAME, lambda t: meta.Rename(ROOT, b"new", ROOT, b"x", R)),
    "mknod_error": (methods.MKNOD, lambda t: meta.Mknod(ROOT, b"g", meta.FileType.FIFO, 0o600, R)),
    "unlink_denied_error": (methods.UNLINK, lambda t: meta.Unlink(ROOT, b"d/f", R, meta.User(7))),
    "truncate_denied_error": (methods.TRUNCATE, lambda t: meta.Truncate(t["inode"], 10, R, meta.User(7))),
    "link_error": (methods.LINK, lambda t: meta.Link(ROOT, b"new", ROOT, b"x", R)),
    "symlink_error": (methods.SYMLINK, lambda t: meta.Symlink(ROOT, b"g", b"x", R)),
    "set_attr_error": (methods.SET_ATTR, lambda t: meta.SetAttr(ROOT, b"new", R, mode=0)),
    "batch_create_error": (methods.BATCH_CREATE, lambda t: meta.BatchCreate(t["g"], [b"x"], 0o644, R)),
    "truncate_error": (methods.TRUNCATE, lambda t: meta.Truncate(ROOT, 10, R)),
    "create_unnamed_error": (methods.CREATE_UNNAMED, lambda t: meta.CreateUnnamed(t["g"], 0o600, R, CLIENT)),
    "lock_error": (methods.LOCK, lambda t: Lock(t["g"], CLIENT, 2, 2, 1, R, 5, 5)),
    "set_xattr_error": (methods.SET_XATTR, lambda t: meta.SetXattr(t["g"], b"user.b", b"v", R, 2)),
    "remove_xattr_error": (methods.REMOVE_XATTR, lambda t: meta.RemoveXattr(t["g"], b"user.b", R)),
    "fsync_error": (methods.FSYNC, lambda t: meta.Fsync(t["inode"], b"x" * 16, R)),
}


async def _outcome(w: World, method: methods.Method, request: Any) -> Any:
    try:
        return await OPERATIONS[method](w.context, request)
    except EmberError as error:
        return error.code, error.message


def test_every_mutating_method_is_tested_here() -> None:
    mutating = {method for method in OPERATIONS if "request" in method.request.__struct_fields__}
    assert {method for method, _ in REQUESTS.values()} == mutating


class _Recording(MemoryStore):
    """Remembers which transactions were relaxed."""

    def __init__(self) -> None:
        super().__init__()
        self.relaxed: list[bool] = []

    async def transact(self, fn: TransactionFunction[_T], *, relaxed: bool = False) -> _T:
        self.relaxed.append(relaxed)
        return await super().transact(fn, relaxed=relaxed)


@pytest.mark.parametrize("relaxed", [False, True], ids=["durable", "relaxed"])
@pytest.mark.parametrize("name", REQUESTS)
def test_a_relaxed_request_is_a_relaxed_transaction_and_its_error_too(name: str, relaxed: bool) -> None:
    async def body() -> None:
        kv = _Recording()
        async with world(kv) as w:
            tree = await _tree(w)
            await w.context.inode_ids.take()  # there are ids: taking a block of them is never relaxed
            method, make = REQUESTS[name]
            kv.relaxed.clear()
            request, expected = make(tree), relaxed
            if isinstance(request, Lock | ReleaseLocks):
                expected = True  # locks are never durable
            else:
                request = msgspec.structs.replace(request, relaxed=relaxed)
            await _outcome(w, method, request)
            assert kv.relaxed and set(kv.relaxed) == {expected}

    run(body())


@pytest.mark.parametrize("name", REQUESTS)
def test_a_replay_changes_nothing_and_is_answered_the_same(name: str) -> None:
    async def body() -> None:
        async with world() as w:
            tree = await _tree(w)
            method, make = REQUESTS[name]
            request = make(tree)
            first = await _outcome(w, method, request)
            assert isinstance(first, tuple) == name.endswith("_error"), first
            after, estimate, cuts = await w.dump(), w.context.inode_count.estimate, list(w.chunks.cuts)
            for _ in range(3):
                assert await _outcome(w, method, request) == first
                assert await w.dump() == after
            assert w.context.inode_count.estimate == estimate
            assert w.chunks.cuts == cuts
            # Another process, on the same store, knows as well (it may take a block of inode ids).
            before, w.context = w.context, w.new_context()
            assert await _outcome(w, method, request) == first
            assert [pair for pair in await w.dump() if pair[0] != b"N"] == [pair for pair in after if pair[0] != b"N"]
            await before.inode_ids.close()

    run(body())


async def _turn_everything_round(w: World, tree: dict[str, Any]) -> None:
    """Afterwards the same request, run anew, would succeed where it failed and fail where it succeeded."""
    names = set(await w.names())
    for name in (b"new", b"new2", b"g", b"empty", b"d"):
        if name in names:
            await w.remove_tree(name)
        else:
            await w.create(name)
    await w.collect_all()


@pytest.mark.parametrize("name", REQUESTS)
def test_a_replay_after_other_changes_is_still_answered_the_same(name: str) -> None:
    async def body() -> None:
        async with world() as w:
            tree = await _tree(w)
            method, make = REQUESTS[name]
            request = make(tree)
            first = await _outcome(w, method, request)
            for _ in range(2):
                await _turn_everything_round(w, tree)
                after = await w.dump()
                assert await _outcome(w, method, request) == first
                assert await w.dump() == after

    run(body())


@pytest.mark.parametrize("name", [name for name in REQUESTS if not name.endswith("_error")])
def test_copies_of_a_request_at_the_same_time_are_applied_once(name: str) -> None:
    async def body() -> None:
        async with world() as w:
            tree = await _tree(w)
            method, make = REQUESTS[name]
            request = make(tree)
            outcomes = await asyncio.gather(*[_outcome(w, method, request) for _ in range(4)])
            assert outcomes == [outcomes[0]] * 4
            assert not isinstance(outcomes[0], tuple)

    run(body())


def test_a_late_copy_of_a_truncate_cuts_nothing() -> None:
    """The copy comes while the first one cuts, and is slow. A writer has written since: its data must stay."""

    async def body() -> None:
        async with world() as w:
            inode = (await _tree(w))["inode"]
            layout = (await w.stat(b"open")).layout
            assert layout is not None
            request = meta.Truncate(inode, 10, R)
            late: list[asyncio.Task[Any]] = []
            slow = asyncio.Event()
            cut = w.chunks.cut

            async def cut_and_meet_a_copy(inode: int, layout: Layout, length: int) -> None:
                if late:
                    await slow.wait()
                    await cut(inode, layout, length)
                    return
                await cut(inode, layout, length)
                late.append(asyncio.create_task(_outcome(w, methods.TRUNCATE, request)))
                await asyncio.sleep(0)

            w.chunks.cut = cut_and_meet_a_copy  # type: ignore[method-assign]
            w.chunks.write(inode, layout, 100)
            first = await _outcome(w, methods.TRUNCATE, request)
            w.chunks.write(inode, layout, 500)
            slow.set()
            assert await late[0] == first
            assert w.chunks.of(inode) == {0: 500}

    run(body())


@pytest.mark.parametrize("request_id", [b"", b"r" * 15, b"r" * 17])
def test_a_request_id_has_16_bytes(request_id: bytes) -> None:
    async def body() -> None:
        async with world() as w:
            outcome = await _outcome(w, methods.MKDIR, meta.Mkdir(ROOT, b"d", 0o755, request_id))
            assert outcome[0] is Code.INVALID
            outcome = await _outcome(w, methods.OPEN, meta.Open(ROOT, b"/", True, CLIENT, request_id))
            assert outcome[0] is Code.INVALID

    run(body())


def test_a_request_id_belongs_to_one_operation() -> None:
    async def body() -> None:
        async with world() as w:
            await _outcome(w, methods.MKDIR, meta.Mkdir(ROOT, b"d", 0o755, R))
            code, message = await _outcome(w, methods.RMDIR, meta.Rmdir(ROOT, b"d", R))
            assert code is Code.INVALID and "another operation" in message
            assert await w.names() == [b"d"]

    run(body())


def test_errors_that_may_pass_are_not_remembered() -> None:
    async def body() -> None:
        async with world() as w:
            tree = await _tree(w)
            request = meta.Truncate(tree["inode"], 10, R)
            w.chunks.unreachable = True
            assert (await _outcome(w, methods.TRUNCATE, request))[0] is Code.UNREACHABLE
            w.chunks.unreachable = False
            assert (await _outcome(w, methods.TRUNCATE, request)).attributes.length == 10

    run(body())


def test_an_error_is_remembered_with_its_errno() -> None:
    async def body() -> None:
        async with world() as w:
            await _outcome(w, methods.UNLINK, meta.Unlink(ROOT, b"x", R))
            await w.create(b"x")
            with pytest.raises(EmberError) as caught:
                await OPERATIONS[methods.UNLINK](w.context, meta.Unlink(ROOT, b"x", R))
            assert caught.value.errno == errno.ENOENT
            assert await w.names() == [b"x"]

    run(body())


def test_answers_are_forgotten_by_age() -> None:
    from fs_meta.forget import STEP, forget_answers

    async def body() -> None:
        async with world() as w:
            for number in range(STEP + 10):
                await w.create(b"%d" % number)
            border = w.service_time.now_ns()
            late = meta.Mkdir(ROOT, b"late", 0o755, R)
            await _outcome(w, methods.MKDIR, late)
            assert await forget_answers(w.kv, border) == STEP + 10
            assert [schema.split_answer_key(key) for key, _ in await w.table(b"R")] == [R]
            assert len(await w.table(b"X")) == 1
            before = await w.dump()
            await _outcome(w, methods.MKDIR, late)
            assert await w.dump() == before
            assert await forget_answers(w.kv, border) == 0

    run(body())
