"""Who a storage daemon lets in, what each may call, and what ends a session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.manager_client import Security
from fs_common.records.resync import FinishSync
from fs_common.records.session import Empty, Hello
from fs_common.records.storage import UpdateChunks, UpdateChunksReply
from fs_common.rpc import Call, Peer, Reply, Service
from fs_common.security.identity import CLIENT, META, STORAGE, Grants, Identity
from fs_common.security.keys import KeyRing
from fs_common.security.passes import make_pass
from fs_common.transports import tcp
from fs_storage.gate import FROM_NO_TARGET, Gate, of_its_own
from tests.support import run

ME = b"c" * 16
RING = KeyRing().rotated(b"a" * 32)
ADA = Identity(CLIENT, ME, "ada", token="00000001")
ADMIN = Identity(CLIENT, ME, "ops", grants=int(Grants.ADMIN), token="00000002")
NODE_3 = Identity(STORAGE, (3).to_bytes(16, "big"), node=3, token="00000003")
METADATA = Identity(META, ME)
TIMEOUT = 10


def hello_of(identity: Identity, ring: KeyRing = RING) -> Hello:
    return Hello([1], identity.role, identity.client, shown_pass=make_pass(ring.newest, identity))


def on(ring: KeyRing = RING, *revoked: str) -> Security:
    return Security(ring, frozenset(revoked), b"own pass")


class Guarded:
    def __init__(self, *, expected: bool = True) -> None:
        self.service = Service("storage", "", 7)
        self.gate = Gate(self.service, Hello([1], STORAGE, bytes(16)), expected=expected)
        for number, method in methods.BY_NUMBER.items():
            if 200 <= number < 300:
                self.service.register(method, _answer)
        self.peers: list[Peer] = []
        self.port = 0

    async def connect(self, hello: Hello) -> Peer:
        peer = await tcp.connect("127.0.0.1", self.port, hello, timeout=TIMEOUT)
        self.peers.append(peer)
        return peer

    async def refusal(self, hello: Hello) -> EmberError:
        with pytest.raises(EmberError) as refused:
            await self.connect(hello)
        return refused.value


def _answer(call: Call) -> Reply:
    raise EmberError(Code.INVALID, "reached")


@asynccontextmanager
async def guarded(guarded: Guarded) -> AsyncIterator[Guarded]:
    server = await tcp.serve(guarded.service, "127.0.0.1", 0)
    guarded.port = server.port
    try:
        yield guarded
    finally:
        for peer in guarded.peers:
            await peer.close()
        await server.close(grace_s=0)


def test_before_the_manager_has_spoken_nobody_is_let_in() -> None:
    async def main() -> None:
        async with guarded(Guarded()) as daemon:
            assert (await daemon.refusal(hello_of(ADA))).code is Code.CLUSTER_NOT_READY
            daemon.gate.adopt(None)
            await daemon.connect(Hello([1], CLIENT, ME))
        async with guarded(Guarded(expected=False)) as daemon:
            await daemon.connect(Hello([1], CLIENT, ME))

    run(main())


def test_a_pass_lets_in_whom_it_names() -> None:
    async def main() -> None:
        async with guarded(Guarded()) as daemon:
            daemon.gate.adopt(on())
            for identity in (ADA, ADMIN, NODE_3, METADATA):
                await daemon.connect(hello_of(identity))
            foreign = KeyRing().rotated(b"b" * 32)
            wrong = [
                Hello([1], CLIENT, ME),
                Hello([1], CLIENT, ME, token="ember.x.y"),
                hello_of(ADA, foreign),
                msgspec.structs.replace(hello_of(ADA), client=b"x" * 16),
                msgspec.structs.replace(hello_of(ADA), role=STORAGE),
                msgspec.structs.replace(hello_of(ADA), role=META),
                hello_of(msgspec.structs.replace(ADA, role="king")),
            ]
            for hello in wrong:
                assert (await daemon.refusal(hello)).code is Code.PASS_REFUSED
            assert all(session.identity is not None for session in daemon.service.sessions)

    run(main())


PLAIN = {
    "read_chunks",
    "update_chunks",
    "query_last_chunk",
    "list_chunks",
    "sync_chains",
    "suspect_chunks",
    "space_info",
}
ADMINISTRATION = {"list_held", "scrub", "remove_files", "refill_target"}
REPLICAS = {"committed_versions", "at_version", "list_remembered", "pull_version", "finish_sync"}


@pytest.mark.parametrize(
    ("identity", "may", "may_not"),
    [
        (ADA, PLAIN, ADMINISTRATION | REPLICAS | {"remove_chunks"}),
        (ADMIN, PLAIN | ADMINISTRATION, REPLICAS | {"remove_chunks"}),
        (METADATA, PLAIN | ADMINISTRATION | {"remove_chunks"}, REPLICAS),
        (NODE_3, REPLICAS | {"read_chunks", "update_chunks"}, {"scrub", "remove_files", "remove_chunks"}),
    ],
    ids=["plain", "admin", "meta", "storage"],
)
def test_what_each_may_call(identity: Identity, may: set[str], may_not: set[str]) -> None:
    async def main() -> None:
        async with guarded(Guarded()) as daemon:
            daemon.gate.adopt(on())
            peer = await daemon.connect(hello_of(identity))
            for method in methods.BY_NUMBER.values():
                if method.name not in may | may_not:
                    continue
                kind = method.request
                types = msgspec.structs.fields(kind)
                request = kind(
                    *({int: 1, bytes: b"", bool: False}.get(field.type, []) for field in types if field.required)
                )
                with pytest.raises(EmberError) as caught:
                    await peer.call(method, request, timeout=TIMEOUT)
                expected = Code.INVALID if method.name in may else Code.ACCESS_DENIED
                assert caught.value.code is expected, method.name

    run(main())


def test_a_session_ends_with_its_token_or_the_key_of_its_pass() -> None:
    async def main() -> None:
        async with guarded(Guarded()) as daemon:
            daemon.gate.adopt(on())
            ada, admin = await daemon.connect(hello_of(ADA)), await daemon.connect(hello_of(ADMIN))
            both = RING.rotated(b"b" * 32)
            daemon.gate.adopt(on(both))
            assert len(daemon.service.sessions) == 2, "a rotation leaves the key before"
            node = await daemon.connect(hello_of(NODE_3, both))

            later = both.rotated(b"c" * 32)
            daemon.gate.adopt(on(later))
            assert [session.identity for session in daemon.service.sessions] == [NODE_3]
            for gone in (ada, admin):
                with pytest.raises(EmberError):
                    await gone.call(methods.SPACE_INFO, methods.SPACE_INFO.request(), timeout=TIMEOUT)
            with pytest.raises(EmberError, match="reached"):
                await node.call(
                    methods.PULL_VERSION, methods.PULL_VERSION.request(1, 1, b"", 1, False), timeout=TIMEOUT
                )
            assert (await daemon.refusal(hello_of(ADA))).code is Code.PASS_REFUSED

            ada, admin = await daemon.connect(hello_of(ADA, later)), await daemon.connect(hello_of(ADMIN, later))
            daemon.gate.adopt(on(later, ADA.token))
            left = [session.identity for session in daemon.service.sessions]
            assert len(left) == 2 and NODE_3 in left and ADMIN in left
            with pytest.raises(EmberError, match="reached"):
                await admin.call(methods.SPACE_INFO, methods.SPACE_INFO.request(), timeout=TIMEOUT)
            refused = await daemon.refusal(hello_of(ADA, later))
            assert refused.code is Code.PASS_REFUSED and ADA.token in refused.message

    run(main())


def test_whoever_came_before_security_comes_again() -> None:
    async def main() -> None:
        async with guarded(Guarded(expected=False)) as daemon:
            await daemon.connect(Hello([1], CLIENT, ME))
            daemon.gate.adopt(on())
            assert not daemon.service.sessions

    run(main())


def test_the_daemon_shows_its_own_pass() -> None:
    gate = Guarded().gate
    assert gate.hello(("a", 1)).shown_pass == b""
    gate.adopt(on())
    assert gate.hello(("a", 1)).shown_pass == b"own pass"
    gate.adopt(None)
    assert gate.hello(("a", 1)).shown_pass == b""


@pytest.mark.parametrize(
    ("identity", "source", "taken"),
    [
        (NODE_3, 301, True),
        (NODE_3, 399, True),
        (NODE_3, 401, False),
        (NODE_3, 0, False),
        (ADA, 0, True),
        (ADA, 301, False),
        (ADMIN, 301, False),
        (METADATA, 0, True),
        (METADATA, 301, False),
    ],
)
def test_only_a_node_speaks_for_its_targets(identity: Identity, source: int, taken: bool) -> None:
    async def main() -> None:
        daemon = Guarded()
        for method, reply in ((methods.UPDATE_CHUNKS, UpdateChunksReply([], [])), (methods.FINISH_SYNC, Empty())):
            del daemon.service.registrations[method.number]
            otherwise = FROM_NO_TARGET if method is methods.UPDATE_CHUNKS else ()
            daemon.service.register(
                method, of_its_own(lambda call, reply=reply: Reply(reply), "source", otherwise=otherwise)
            )
        async with guarded(daemon):
            daemon.gate.adopt(on())
            peer = await daemon.connect(hello_of(identity))
            update = peer.call(methods.UPDATE_CHUNKS, UpdateChunks(b"x" * 16, [], source), timeout=TIMEOUT)
            if taken:
                await update
            else:
                with pytest.raises(EmberError, match="does not speak for target") as refused:
                    await update
                assert refused.value.code is Code.ACCESS_DENIED
            finish = peer.call(methods.FINISH_SYNC, FinishSync(1, 1, source, 1, 0), timeout=TIMEOUT)
            if taken and source:
                await finish
            else:
                with pytest.raises(EmberError) as refused:
                    await finish
                assert refused.value.code is Code.ACCESS_DENIED

    run(main())
