"""A metadata server with security on, over real sockets: who is let in, as whom he acts, and when he is put out."""

import os
import time
import typing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.records import meta
from fs_common.records.locks import Lock, LockKind, LockType
from fs_common.records.meta import FileType, User
from fs_common.records.session import Empty, Hello
from fs_common.rpc import Peer
from fs_common.security.passes import check_pass
from fs_common.security.tokens import make_token, parse_token, token_text
from fs_common.transports import tcp
from fs_meta import server
from fs_meta.config import MetaConfig
from fs_meta.format import prepare_store
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.ops.context import Context
from fs_meta.service import OF_CALLERS, OPERATIONS
from fs_meta.users.users import Users
from tests.meta.test_service import FakeManager
from tests.support import run

ADA = User(1000, 1000, [50])
BOB = User(2000, 2000, [])
ROOT = User(0, 0, [])
TIMEOUT = 10


class Secured:
    def __init__(self, running: server.MetaServer, users: Users, written: dict[str, str]) -> None:
        self.running = running
        self.users = users
        self.written = written
        self.peers: list[Peer] = []

    async def connect(self, token: str, role: str = "client", client: bytes | None = None) -> Peer:
        hello = Hello([1], role, os.urandom(16) if client is None else client, "test", token)
        peer = await tcp.connect("127.0.0.1", self.running.port, hello, timeout=TIMEOUT)
        self.peers.append(peer)
        return peer

    async def plain(self, user: User = ADA, name: str = "ada") -> tuple[Peer, str]:
        await self.users.add(name, user.uid, user.gid, user.groups)
        token = await self.users.issue(name, lasts_s=None)
        return await self.connect(token), token

    async def mount(self, *, squash_root: bool = False) -> Peer:
        name = f"host{squash_root}"
        await self.users.add(name, 3000, 3000)
        return await self.connect(await self.users.issue(name, lasts_s=None, mount=True, squash_root=squash_root))


@asynccontextmanager
async def secured(directory: Path, *, enabled: bool = True) -> AsyncIterator[Secured]:
    config = MetaConfig(cluster="test", directory=str(directory), port=0)
    kv = MemoryStore()
    await prepare_store(kv, "test", config.root_layout, 0, 0, 1)
    users = Users(kv, time.time_ns, enabled=enabled)
    written: dict[str, str] = {}
    await users.begin(written.update)
    manager = FakeManager(None)
    running = await server.start(config, kv, manager, None, users)
    secured = Secured(running, users, written)
    try:
        yield secured
    finally:
        for peer in secured.peers:
            await peer.close()
        await running.close(0)


async def mkdir(peer: Peer, path: bytes, user: User, mode: int = 0o755) -> meta.Attributes:
    request = meta.Mkdir(ROOT_INODE, path, mode, os.urandom(16), user=user)
    reply: meta.AttributesReply = await peer.call(methods.MKDIR, request, timeout=TIMEOUT)
    return reply.attributes


def test_nobody_passes_for_the_service_itself(tmp_path: Path) -> None:
    """To operations an empty client id is the service's own, which any session obeys."""

    async def main() -> None:
        async with secured(tmp_path) as cluster:
            for client in (b"", b"short", bytes(17)):
                with pytest.raises(EmberError, match="a client id of") as refused:
                    await cluster.connect(cluster.written["mount.token"], client=client)
                assert refused.value.code is Code.INVALID

    run(main())


def test_a_lock_in_nobodys_name_goes_with_who_took_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            mount = await cluster.mount()
            request = Lock(ROOT_INODE, b"", 1, LockKind.FLOCK, LockType.EXCLUSIVE, os.urandom(16))
            await mount.call(methods.LOCK, request, timeout=TIMEOUT)
            assert [client.holds for client in cluster.running.clients.listed()] == [True]

    run(main())


def test_the_path_of_a_directory_is_told_to_who_can_walk_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            admin = await cluster.connect(cluster.written["admin.token"])
            await mkdir(admin, b"closed", ROOT, 0o700)
            secret = await mkdir(admin, b"closed/secret", ROOT, 0o777)
            known = await mkdir(admin, b"known", ROOT, 0o700)
            ada, _ = await cluster.plain()
            with pytest.raises(EmberError) as refused:
                await ada.call(methods.REAL_PATH, meta.RealPath(secret.inode, ROOT), timeout=TIMEOUT)
            assert refused.value.code is Code.ACCESS_DENIED
            for peer, inode, path in ((admin, secret.inode, b"/closed/secret"), (ada, known.inode, b"/known")):
                reply = await peer.call(methods.REAL_PATH, meta.RealPath(inode), timeout=TIMEOUT)
                assert reply.path == path

    run(main())


@pytest.mark.parametrize("role", ["client", "storage", "meta"])
def test_who_has_no_token_or_another_clusters_stays_outside(tmp_path: Path, role: str) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            for token, words in (
                ("", "no token came"),
                ("secret", "this is no token"),
                (token_text(make_token(os.urandom(36))), "nobody knows this token"),
            ):
                with pytest.raises(EmberError, match=words) as refused:
                    await cluster.connect(token, role)
                assert refused.value.code is Code.UNAUTHENTICATED
                assert not token or token not in str(refused.value)

    run(main())


def test_a_token_is_good_for_its_own_role(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            for name, role in (("admin.token", "storage"), ("admin.token", "meta"), ("storage.token", "client")):
                with pytest.raises(EmberError, match="which its token is not for") as refused:
                    await cluster.connect(cluster.written[name], role)
                assert refused.value.code is Code.ACCESS_DENIED
            daemon = await cluster.connect(cluster.written["storage.token"], "storage")
            with pytest.raises(EmberError, match="may not call stat "):
                await daemon.call(methods.STAT, meta.Stat(ROOT_INODE, b""), timeout=TIMEOUT)

    run(main())


def test_a_plain_user_acts_as_himself_whatever_he_asks_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            admin = await cluster.connect(cluster.written["admin.token"])
            await mkdir(admin, b"open", ROOT, 0o1777)
            await mkdir(admin, b"open/bobs", BOB, 0o700)
            ada, _ = await cluster.plain()
            for number, claimed in enumerate((BOB, ROOT, ADA, User())):
                made = await mkdir(ada, b"open/%d" % number, claimed)
                assert (made.uid, made.gid) == (1000, 1000)
                with pytest.raises(EmberError, match=r"ACCESS_DENIED|NOT_PERMITTED"):
                    await mkdir(ada, b"open/bobs/mine", claimed)
                with pytest.raises(EmberError) as refused:
                    await ada.call(
                        methods.SET_ATTR,
                        meta.SetAttr(ROOT_INODE, b"open/bobs", os.urandom(16), uid=1000, user=claimed),
                        timeout=TIMEOUT,
                    )
                assert refused.value.code in (Code.NOT_PERMITTED, Code.ACCESS_DENIED)

    run(main())


def test_no_operation_forgets_who_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method whose request names a user is carried out as the session's."""
    seen: list[User] = []

    async def see(context: Context, request: Any, caller: object = None) -> msgspec.Struct:
        seen.append(request.user)
        raise EmberError(Code.INVALID, "seen")

    named = [method for method in OPERATIONS if "user" in method.request.__struct_fields__]
    assert len(named) > 20
    for method in named:
        monkeypatch.setitem(OPERATIONS if method not in OF_CALLERS else OF_CALLERS, method, see)

    async def main() -> None:
        async with secured(tmp_path) as cluster:
            ada, _ = await cluster.plain()
            for method in named:
                seen.clear()
                with pytest.raises(EmberError, match="seen"):
                    await ada.call(method, _any_request(method, ROOT), timeout=TIMEOUT)
                assert seen == [ADA], method.name

    run(main())


def _any_request(method: methods.Method, user: User) -> msgspec.Struct:
    """A request of this kind with something in each field that has to be there."""
    kind = method.request
    values: dict[str, Any] = {int: 1, bytes: b"", list[bytes]: [], FileType: FileType.FILE}
    types = typing.get_type_hints(kind)
    needed = len(kind.__struct_fields__) - len(kind.__struct_defaults__)
    fields = {name: values[types[name]] for name in kind.__struct_fields__[:needed]}
    return kind(**fields, user=user)


def test_mounts_act_for_whom_their_kernel_names_and_root_may_be_squashed(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            admin = await cluster.connect(cluster.written["admin.token"])
            await mkdir(admin, b"open", ROOT, 0o1777)
            trusted, squashed = await cluster.mount(), await cluster.mount(squash_root=True)
            for peer, asked, owner in (
                (trusted, BOB, 2000),
                (trusted, ROOT, 0),
                (squashed, BOB, 2000),
                (squashed, ROOT, 65534),
            ):
                made = await mkdir(peer, b"open/%s" % os.urandom(4).hex().encode(), asked)
                assert (made.uid, made.gid) == (owner, owner)
            await mkdir(trusted, b"roots", ROOT, 0o700)
            with pytest.raises(EmberError) as refused:
                await mkdir(squashed, b"roots/mine", ROOT)
            assert refused.value.code is Code.ACCESS_DENIED

    run(main())


def test_what_took_long_of_everybody_is_told_to_administrators(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            admin = await cluster.connect(cluster.written["admin.token"])
            await admin.call(methods.SLOW_OPERATIONS, Empty(), timeout=TIMEOUT)
            ada, _ = await cluster.plain()
            for peer in (ada, await cluster.connect(cluster.written["mount.token"])):
                with pytest.raises(EmberError, match="may not call slow_operations") as refused:
                    await peer.call(methods.SLOW_OPERATIONS, Empty(), timeout=TIMEOUT)
                assert refused.value.code is Code.ACCESS_DENIED

    run(main())


def test_a_revoked_token_ends_what_is_connected(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            ada, token = await cluster.plain()
            bob, _ = await cluster.plain(BOB, "bob")
            await cluster.users.revoke(parse_token(token).id)
            with pytest.raises(EmberError) as refused:
                while True:
                    await ada.call(methods.STAT, meta.Stat(ROOT_INODE, b""), timeout=TIMEOUT)
            assert refused.value.code in (Code.PEER_GONE, Code.UNREACHABLE)
            await bob.call(methods.STAT, meta.Stat(ROOT_INODE, b""), timeout=TIMEOUT)
            with pytest.raises(EmberError) as refused:
                await cluster.connect(token)
            assert refused.value.code is Code.UNAUTHENTICATED

    run(main())


def test_a_pass_names_its_client_and_is_given_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path) as cluster:
            ada, _ = await cluster.plain()
            vouching = cluster.users.vouching
            identity = check_pass(vouching.record.ring, ada.welcome.given_pass)
            assert (identity.role, identity.name, identity.user) == ("client", "ada", ADA)
            await cluster.users.rotate_keys(0)
            await cluster.users.rotate_keys(0)
            with pytest.raises(EmberError, match="not in use"):
                check_pass(vouching.record.ring, ada.welcome.given_pass)
            again = await ada.call(methods.GET_PASS, Empty(), timeout=TIMEOUT)
            assert check_pass(vouching.record.ring, again.given_pass) == identity

    run(main())


def test_without_security_a_token_is_taken_and_not_looked_at(tmp_path: Path) -> None:
    async def main() -> None:
        async with secured(tmp_path, enabled=False) as cluster:
            for token in ("", token_text(make_token(bytes(36)))):
                peer = await cluster.connect(token)
                assert peer.welcome.given_pass == b""
                assert (await mkdir(peer, b"d%d" % len(token), ROOT)).type is FileType.DIRECTORY
                assert (await peer.call(methods.GET_PASS, Empty(), timeout=TIMEOUT)).given_pass == b""

    run(main())
