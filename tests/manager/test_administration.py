"""The administration over gRPC: pages, errors, reflection, and the commands' side of it."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from fs_client.aio import AsyncFileSystem
from fs_client.backoff import Attempts
from fs_client.cli.failure import Failure, Usage
from fs_client.cli.manager_api import ManagerApi, manager_at, manager_of
from fs_client.options import Address, make_options
from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.control_records import CODE_METADATA_KEY
from fs_common.errors import Code, EmberError
from fs_common.methods import GET_CONTROL, SCRUB
from fs_common.peers import PeerPool
from fs_common.records.control import GetControlReply
from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeInfo, NodeState, PublicState, Routing
from fs_common.records.scrubbing import ScrubReply, ScrubStatus
from fs_common.records.session import Hello
from fs_common.rpc import Call, Reply, Service
from fs_common.transports import tcp
from fs_meta.kv.interface import Transaction
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.manager.records import Node
from fs_meta.manager.routing_state import save
from fs_meta.manager.service import start_manager
from fs_meta.manager.views import PAGE_MAX, page_of
from fs_meta.scrubs import Scrubs
from fs_meta.users.users import Users
from tests.certificates import certificates, daemon_files
from tests.manager.cluster import Config
from tests.support import run

ROOT = Path(__file__).parents[2]
CHAINS = 2 * PAGE_MAX + 7


@pytest.mark.parametrize(
    ("count", "after", "limit", "expected"),
    [
        (0, 0, 0, (0, 0, 0)),
        (3, 0, 0, (0, 3, 0)),
        (3, 0, 2, (0, 2, 2)),
        (3, 2, 2, (2, 3, 0)),
        (3, 1, 2, (1, 3, 0)),
        (3, 9, 0, (3, 3, 0)),
        (PAGE_MAX + 1, 0, PAGE_MAX + 1, (0, PAGE_MAX, PAGE_MAX)),
    ],
)
def test_a_page_follows_an_id(count: int, after: int, limit: int, expected: tuple[int, int, int]) -> None:
    assert page_of(list(range(1, count + 1)), after, limit) == expected


def test_a_page_goes_on_where_an_id_has_gone() -> None:
    assert page_of([1, 5, 9], 4, 1) == (1, 2, 5)


async def large_store() -> MemoryStore:
    """Many chains, each on one of two nodes that do not run."""
    kv = MemoryStore()
    chains = [
        Chain(number, 1, [ChainTarget(number + 100, 1 + number % 2, PublicState.SERVING)])
        for number in range(1, CHAINS + 1)
    ]
    new = Routing(1, "test", [], chains, [ChainTable(1, 1, [chain.chain for chain in chains])], 1)
    nodes = [Node(node, "127.0.0.1", 9, NodeState.LEFT, 5, 1000, "0.1.0") for node in (1, 2)]

    async def put(txn: Transaction) -> None:
        save(txn, Routing(0, "test", [], [], [], 1), new, nodes, ())

    await kv.transact(put)
    return kv


def test_long_lists_come_in_pages() -> None:
    async def scenario() -> None:
        running = await start_manager(await large_store(), Config(replicas=1, storage_nodes=1))
        try:
            async with manager_at(Address("127.0.0.1", running.port)) as api:
                pages = [page async for page in api.pages("ListChains")]
                assert [len(page.chains) for page in pages] == [PAGE_MAX, PAGE_MAX, 7]
                ids = [chain.chain for page in pages for chain in page.chains]
                assert ids == list(range(1, CHAINS + 1))
                on_two = [t async for page in api.pages("ListTargets", node=2) for t in page.targets]
                assert {target.target.node for target in on_two} == {2} and len(on_two) == CHAINS // 2 + 1
                few = await api.read("ListChains", chains=[9, 3, 7, 5000], limit=2)
                assert [chain.chain for chain in few.chains] == [3, 7] and few.next == 7
                nodes = [page async for page in api.pages("ListNodes", limit=1)]
                assert [page.nodes[0].target_count for page in nodes] == [CHAINS // 2, CHAINS // 2 + 1]
                assert (await api.read("GetNode", node=2)).node.node == 2
                with pytest.raises(EmberError, match="there is no node 3") as refused:
                    await api.read("GetNode", node=3)
                assert refused.value.code is Code.INVALID
                await api.order("ForgetNode", node=1)
        finally:
            await running.close()

    with pytest.raises(EmberError, match="node 1 has targets on"):
        run(scenario())


def test_a_page_looks_at_no_more_chains_than_it_may_have() -> None:
    """One that looked at all of them would hold up the heartbeats."""

    async def scenario() -> None:
        running = await start_manager(await large_store(), Config(replicas=1, storage_nodes=1))
        standings = running.manager._chains.standings
        seen = []
        see = standings.see
        standings.see = lambda chain, *rest: seen.append(chain.chain) or see(chain, *rest)  # type: ignore[func-returns-value, method-assign]
        try:
            async with manager_at(Address("127.0.0.1", running.port)) as api:
                await api.read("ListChains", degraded=True)
                assert len(seen) == PAGE_MAX
        finally:
            await running.close()

    run(scenario())


def test_the_examples_of_the_documentation_run() -> None:
    """By the generated code, and by reflection alone."""
    text = (ROOT / "docs" / "MANAGER_API.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2

    async def scenario() -> list[str]:
        running = await start_manager(await large_store(), Config(replicas=1, storage_nodes=1))
        try:
            said = []
            for example in examples:
                code = example.replace("9701", str(running.port))
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", code, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
                out, err = await process.communicate()
                assert process.returncode == 0, err.decode()
                said.append(out.decode())
            return said
        finally:
            await running.close()

    by_stubs, by_reflection = run(scenario())
    assert by_stubs == "1 NODE_STATE_LEFT 0 ms silent\n2 NODE_STATE_LEFT 0 ms silent\n"
    assert by_reflection.splitlines()[:2] == ["chain 1 is degraded", "chain 2 is degraded"]


# --- the commands' side -------------------------------------------------------------------------------------------


class Fake(control_pb2_grpc.AdministrationServicer):  # type: ignore[misc]
    """Answers each call with the next of `answers`: an error, or None."""

    def __init__(self, *answers: EmberError | grpc.StatusCode | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def Rest(self, request: Any, context: Any) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, EmberError):
            number = str(answer.code.value.number)
            await context.abort(grpc.StatusCode.UNAVAILABLE, answer.message, ((CODE_METADATA_KEY, number),))
        if answer is not None:
            await context.abort(answer, "as it is")
        return pb.RestReply()


@asynccontextmanager
async def serving(*fakes: Fake) -> AsyncIterator[ManagerApi]:
    servers = []
    addresses = []
    for fake in fakes:
        server = grpc.aio.server()
        control_pb2_grpc.add_AdministrationServicer_to_server(fake, server)
        addresses.append(Address("127.0.0.1", server.add_insecure_port("127.0.0.1:0")))
        await server.start()
        servers.append(server)

    async def control_of(server: Address) -> Address:
        return server

    api = ManagerApi(addresses, control_of)
    try:
        yield api
    finally:
        await api.close()
        for server in servers:
            await server.stop(None)


def with_api(scenario: Callable[[ManagerApi], Awaitable[None]], *fakes: Fake) -> None:
    async def opened() -> None:
        async with serving(*fakes) as api:
            await scenario(api)

    run(opened())


NOT_MANAGER = EmberError(Code.NOT_MANAGER)


def test_the_server_that_is_the_manager_is_found_and_kept() -> None:
    async def scenario(api: ManagerApi) -> None:
        await api.order("Rest")
        await api.order("Rest")

    other, manager = Fake(NOT_MANAGER, NOT_MANAGER), Fake()
    with_api(scenario, other, manager)
    assert (other.asked, manager.asked) == (1, 2)


def test_an_order_that_may_have_been_taken_is_not_repeated() -> None:
    async def scenario(api: ManagerApi) -> None:
        with pytest.raises(EmberError, match="whether it was done is not known") as left_open:
            await api.order("Rest")
        assert left_open.value.code is Code.PEER_GONE
        await api.read("Rest")

    fake = Fake(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
    with_api(scenario, fake)
    assert fake.asked == 3, "a read is repeated"


def test_who_gives_up_says_why_no_manager_has_answered() -> None:
    """Whatever the last try ended with."""

    async def scenario(api: ManagerApi) -> None:
        with pytest.raises(EmberError) as refused:
            await api.read("Rest")
        assert refused.value.code is Code.NOT_MANAGER

    class Ended(Attempts):
        async def again(self, error: EmberError, *, at_once: bool = False) -> bool:
            self.count += 1
            return self.count < 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fs_client.cli.manager_api.Attempts", Ended)
        with_api(scenario, Fake(NOT_MANAGER, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE))


def test_a_server_of_an_older_release_is_named_as_such() -> None:
    async def scenario(api: ManagerApi) -> None:
        with pytest.raises(EmberError, match="older release") as refused:
            await api.read("ListNodes")
        assert refused.value.code is Code.UNKNOWN_METHOD

    with_api(scenario, Fake())


def test_a_control_plane_behind_a_firewall_is_one_clear_line() -> None:
    async def scenario() -> None:
        async with serving(Fake()) as api:
            gone = api._servers[0]
        async with manager_at(gone) as api:
            with pytest.raises(EmberError, match=f"cannot be reached at {gone}") as refused:
                await api.read("ListNodes")
            assert refused.value.code is Code.UNREACHABLE and "\n" not in str(refused.value)

    run(scenario())


def test_without_grpc_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    async def scenario() -> None:
        async with manager_at(Address("127.0.0.1", 1)) as api:
            await api.read("ListNodes")

    with pytest.raises(Failure, match=r"the package grpc is not installed; install emberfs\[server\]"):
        run(scenario())


def test_a_defect_is_told_as_one_and_its_words_stay_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        running = await start_manager(MemoryStore(), Config())

        def broken(*arguments: Any) -> Any:
            raise RuntimeError("with a secret")

        running.growth.nodes = broken  # type: ignore[method-assign]
        try:
            async with manager_at(Address("127.0.0.1", running.port)) as api:
                await api.read("ListNodes")
        finally:
            await running.close()

    with pytest.raises(EmberError) as told:
        run(scenario())
    assert told.value.code is Code.INTERNAL and "secret" not in str(told.value)
    assert "with a secret" in caplog.text


def test_scrubs_are_shown_and_begun_through_the_manager() -> None:
    asked: list[tuple[bool, list[int], int]] = []

    async def scenario() -> None:
        service = Service("storage", "test", 1)

        def scrub(call: Call) -> Reply:
            asked.append((call.request.start, call.request.chains, call.request.bytes_per_s))
            status = ScrubStatus(101, 1, 2, True, 10.0, 0.0, 5, 7, 50, 1, ["chunk 3"], [], 4)
            return Reply(ScrubReply([status], 30.0))

        service.register(SCRUB, scrub)
        daemon = await tcp.serve(service, "127.0.0.1", 0)
        running = await start_manager(MemoryStore(), Config(replicas=1, storage_nodes=1))
        pool = PeerPool(Hello([1], "meta", bytes(16), "test"))
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError, match="is being started") as early:
                    await control_pb2_grpc.AdministrationStub(channel).ListScrubs(pb.ListScrubsRequest())
                code = dict(early.value.trailing_metadata())[CODE_METADATA_KEY]
                assert code == str(Code.CLUSTER_NOT_READY.value.number)
            async with manager_at(Address("127.0.0.1", running.port)) as api:
                up = NodeInfo(1, daemon.host, daemon.port, NodeState.UP)
                nodes = [up, NodeInfo(2, "127.0.0.1", 9, NodeState.FAILED), NodeInfo(3, "h", 9, NodeState.LEFT)]
                chain = Chain(1, 1, [ChainTarget(101, 1, PublicState.SERVING)])
                running.reach(Scrubs(pool, lambda: Routing(1, "test", nodes, [chain], [])))
                reply = await api.read("ListScrubs")
                (one,) = reply.scrubs
                assert (one.target, one.node, one.chain, one.number, one.running) == (101, 1, 1, 2, True)
                assert (one.chunks, one.chunks_total, one.bytes, one.repaired, one.not_compared) == (5, 7, 50, 1, 4)
                assert list(one.damaged) == ["chunk 3"] and list(reply.silent_nodes) == [2]
                pages = [page async for page in api.pages("ListScrubs", limit=1)]
                assert [(len(page.scrubs), list(page.silent_nodes)) for page in pages] == [(1, []), (0, [2])]
                asked.clear()
                await api.order("BeginScrub", chains=[1], bytes_per_s=9)
                assert asked == [(True, [1], 9)]
                with pytest.raises(EmberError, match="there is no chain 7"):
                    await api.order("BeginScrub", chains=[1, 7])
                assert len(asked) == 1
        finally:
            await running.close()
            await pool.close()
            await daemon.close(0)

    run(scenario())


def test_the_api_is_reached_over_tls_by_who_has_the_authority_and_a_token() -> None:
    async def scenario() -> None:
        kv = MemoryStore()
        users = Users(kv, time.time_ns, enabled=True)
        await users.load()
        tokens: dict[str, str] = {}
        await users.begin(tokens.update)
        running = await start_manager(kv, Config(), tls=daemon_files("meta"), users=users)
        control = Address("127.0.0.1", running.port)
        authority = str(certificates() / "client" / "ca.pem")
        try:
            async with manager_at(control, authority, tokens["admin.token"]) as api:
                assert list((await api.read("ListNodes")).nodes) == []
                await api.order("Rest")
            for token, code in (("", Code.UNAUTHENTICATED), (tokens["mount.token"], Code.ACCESS_DENIED)):
                async with manager_at(control, authority, token) as api:
                    with pytest.raises(EmberError) as refused:
                        await api.order("Rest")
                    assert refused.value.code is code
            async with manager_at(control, "", tokens["admin.token"]) as api:
                with pytest.raises(EmberError) as refused:
                    await api.read("ListNodes")
                assert refused.value.code is Code.UNREACHABLE
        finally:
            await running.close()

    run(scenario())


def test_a_command_that_knows_the_data_plane_finds_the_manager() -> None:
    """Two metadata servers: one that is not the manager, and the one that is."""

    async def scenario() -> None:
        fakes = (Fake(NOT_MANAGER), Fake())
        async with serving(*fakes) as api:
            controls = api._servers
            services = []
            for number, control in enumerate(controls):
                service = Service("meta", "test", 0)
                reply = GetControlReply(control.port, bool(number))
                service.register(GET_CONTROL, lambda call, reply=reply: Reply(reply))
                services.append(await tcp.serve(service, "127.0.0.1", 0))
            addresses = ",".join(f"127.0.0.1:{server.port}" for server in services)
            fs = AsyncFileSystem(make_options(addresses, None, "auto", 10.0))
            try:
                async with manager_of(fs) as found:
                    await found.order("Rest")
            finally:
                await fs.close()
                for server in services:
                    await server.close(0)
        assert [fake.asked for fake in fakes] == [1, 1]

    run(scenario())


@pytest.mark.parametrize(
    ("method", "fields", "words"),
    [
        ("AddUser", {"name": "ada", "uid": 2**40}, "uid 1099511627776 is out of range"),
        ("ListNodes", {"after": -1}, "after -1 is out of range"),
        ("GetConfig", {"kind": "\udcff"}, "cannot be sent"),
    ],
)
def test_what_no_message_holds_is_named(method: str, fields: dict[str, Any], words: str) -> None:
    async def control_of(address: Address) -> Address:
        raise AssertionError("nobody is asked")

    async def main() -> None:
        api = ManagerApi([Address("127.0.0.1", 1)], control_of)
        with pytest.raises(Usage, match=words):
            await api.order(method, **fields)

    run(main())
