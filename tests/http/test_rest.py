"""The REST administration: what each resource shows, what changes do, and how they are refused."""

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from fs_common.ids import ROOT_INODE
from fs_common.layout import stripe_chains
from fs_common.records import meta
from fs_common.records.storage import TargetTrouble
from fs_meta.http.problems import MEDIA_TYPE
from fs_meta.ops.close import close
from fs_meta.ops.create import create
from fs_meta.ops.mkdir import mkdir
from fs_meta.ops.open import open_
from fs_meta.ops.set_attr import set_attr
from fs_meta.ops.symlink import symlink
from tests.http.world import World, world
from tests.meta.world import CLIENT, new_request


@pytest.fixture(scope="module")
def three() -> Iterator[World]:
    """Three nodes that serve, on which tests change nothing but names."""
    with world() as running:
        yield running


def refused(running: World, method: str, path: str, json: Any = None) -> tuple[int, str, str]:
    """Status, name and text of the problem that is answered."""
    answer = running.ask(method, path, json)
    assert answer.headers["content-type"] == MEDIA_TYPE, answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["instance"] == path.partition("?")[0].join(("/api/v1", ""))
    return problem["status"], problem["name"], problem["detail"]


# --- the cluster ------------------------------------------------------------------------------------------------------


def test_a_cluster_that_is_well_says_so(three: World) -> None:
    found = three.get("/cluster")
    assert found["healthy"] and found["health"] == "the cluster is healthy"
    assert found["nodes"] == {"total": 3, "up": 3, "failed": 0, "left": 0}
    assert found["chains"] == {"total": 3, "serving": 3, "degraded": 0, "offline": 0}
    assert not found["missing"] and not found["healing"] and not found["helps"] and found["manager"]


def test_what_is_missing_is_said_with_what_is_done_about_it_and_what_helps() -> None:
    with world() as running:
        running.die(3)
        found = running.get("/cluster")
        assert not found["healthy"]
        assert found["health"].startswith("the cluster is degraded: node 3 is failed, chain 1 is degraded")
        assert found["nodes"]["failed"] == 1 and found["chains"]["degraded"] == 3
        assert [each["chain"] for each in found["healing"]] == [1, 2, 3]
        assert all("is missing: node 3 has failed" in each["what"][0] for each in found["healing"])
        assert found["helps"] == ["bring back node 3: node 3 has failed"]


def test_a_target_that_does_not_serve_is_named_with_the_reason() -> None:
    with world() as running:
        target = running.bench.manager.routing.chains[0].targets[0]
        running.daemons[target.node].troubles = [TargetTrouble(target.target, "its disk has failed")]
        found = running.get("/cluster")
        assert found["troubles"] == [{"target": target.target, "node": target.node, "reason": "its disk has failed"}]
        assert f"target {target.target} does not serve" in found["missing"] and found["chains"]["degraded"] == 1


def test_space_is_logical(three: World) -> None:
    found = three.get("/space")
    assert found["replicas"] == 3
    assert found["capacity_bytes"] == 1000 and found["used_bytes"] + found["free_bytes"] == 1000


# --- nodes, chains, targets -------------------------------------------------------------------------------------------


def test_nodes_come_in_pages(three: World) -> None:
    found = three.get("/nodes?limit=2")
    assert [node["node"] for node in found["nodes"]] == [1, 2] and found["next"] == 2
    rest = three.get("/nodes?limit=2&after=2")
    assert [node["node"] for node in rest["nodes"]] == [3] and rest["next"] is None
    node = rest["nodes"][0]
    assert node == three.get("/nodes/3")
    assert (node["state"], node["targets"], node["port"]) == ("up", 3, three.daemons[3].port)
    assert three.get("/nodes?state=failed&state=left")["nodes"] == []


def test_chains_come_in_pages_with_their_targets(three: World) -> None:
    seen, after = [], 0
    while after is not None:
        page = three.get(f"/chains?limit=1&after={after}")
        seen += page["chains"]
        after = page["next"]
    assert [chain["chain"] for chain in seen] == [1, 2, 3]
    for chain, known in zip(seen, three.bench.manager.routing.chains, strict=True):
        assert chain["state"] == "serving" and not chain["what"]
        assert [(each["target"], each["node"]) for each in chain["targets"]] == [
            (member.target, member.node) for member in known.targets
        ]
    assert three.get("/chains/2") == seen[1]
    assert three.get("/chains?degraded=true")["chains"] == []


def test_targets_of_a_node(three: World) -> None:
    found = three.get("/targets?node=2")["targets"]
    assert [(target["chain"], target["node"], target["state"]) for target in found] == [
        (chain, 2, "serving") for chain in (1, 2, 3)
    ]
    assert len(three.get("/targets")["targets"]) == 9


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/nodes/9", "NODE_UNKNOWN"),
        ("/chains/9", "NOT_FOUND"),
        ("/moves/9", "NOT_FOUND"),
        ("/errors/X", "NOT_FOUND"),
        ("/users/nobody", "NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_not_found(three: World, path: str, name: str) -> None:
    status, found, _ = refused(three, "GET", path)
    assert (status, found) == (404, name)


@pytest.mark.parametrize(
    "path",
    [
        "/nodes?limit=0",
        "/chains?after=-1",
        "/nodes/0",
        "/moves?active=maybe",
        "/chains/x",
        "/clients?limit=0",
        "/scrub?after=-1",
        "/users/-x",
        "/files?follow=maybe",
    ],
)
def test_arguments_that_are_wrong_are_named(three: World, path: str) -> None:
    status, name, detail = refused(three, "GET", path)
    assert (status, name) == (422, "INVALID") and ("query." in detail or "path." in detail)


def test_paths_and_methods_that_are_none_are_problems(three: World) -> None:
    assert refused(three, "GET", "/nothing")[:2] == (404, "UNKNOWN_METHOD")
    assert refused(three, "PUT", "/files")[:2] == (405, "UNKNOWN_METHOD")
    assert refused(three, "GET", "/files/")[:2] == (404, "UNKNOWN_METHOD")


def test_every_error_of_the_table_is_described(three: World) -> None:
    rows = three.get("/errors")["errors"]
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    for row in rows:
        assert three.get(f"/errors/{row['name']}") == row


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_node_is_filled_drained_and_forgotten() -> None:
    with world() as running:
        running.join(4)
        assert running.get("/nodes/4")["note"] == "not used yet: `emberfs rebalance` gives it targets"
        plan = running.ask("POST", "/nodes/4/targets", {"dry_run": True}).json()
        assert plan["dry_run"] and all(move["move"] is None and move["node"] == 4 for move in plan["moves"])
        assert running.get("/moves")["moves"] == []

        ordered = running.ask("POST", "/nodes/4/targets", {}).json()
        assert len(ordered["moves"]) == len(plan["moves"]) > 0
        active = running.get("/moves?active=true")["moves"]
        assert [move["cause"] for move in active] == ["operator"] * len(plan["moves"])
        running.settle()
        assert {move["state"] for move in running.get("/moves")["moves"]} == {"done"}
        assert running.get("/nodes/4")["targets"] == len(plan["moves"])

        assert running.ask("POST", "/nodes/4/drain", {}).status_code == 200
        running.settle()
        node = running.get("/nodes/4")
        assert node["drained"] and node["note"] == "drained: it can be stopped"
        assert refused(running, "DELETE", "/nodes/4")[:2] == (409, "INVALID")
        running.die(4)
        assert running.ask("DELETE", "/nodes/4").json() == {"node": 4}
        assert refused(running, "GET", "/nodes/4")[1] == "NODE_UNKNOWN"


def test_a_drain_is_undone() -> None:
    with world() as running:
        running.join(4)
        running.ask("POST", "/nodes/4/drain", {})
        assert running.get("/nodes/4")["drained"]
        running.ask("POST", "/nodes/4/drain", {"undo": True})
        assert not running.get("/nodes/4")["drained"]


def test_a_cluster_that_grew_is_rebalanced_and_moves_are_cancelled() -> None:
    with world() as running:
        running.join(4)
        plan = running.ask("POST", "/rebalance", {}).json()
        assert plan["moves"] and len(plan["new_chains"]) == 1
        number = plan["moves"][0]["move"]
        assert running.get(f"/moves/{number}")["cause"] == "rebalance"
        cancelled = running.ask("POST", "/moves/cancellation", {"moves": [number]}).json()
        assert [move["move"] for move in cancelled["moves"]] == [number]
        assert refused(running, "POST", "/moves/cancellation", {"moves": [99]})[:2] == (409, "INVALID")
        running.settle()
        assert running.get("/moves?active=true")["moves"] == []
        assert len(running.get("/chains")["chains"]) == 4


def test_a_target_is_moved_and_one_that_is_lost_replaced() -> None:
    with world() as running:
        running.join(4)
        target = running.get("/targets?node=1")["targets"][0]["target"]
        assert refused(running, "POST", "/targets/999/drain", {})[:2] == (409, "INVALID")
        moved = running.ask("POST", f"/targets/{target}/drain", {}).json()["moves"][0]
        assert (moved["leaves"], moved["node"]) == (target, 4)
        running.settle()
        running.die(2)
        lost = running.get("/targets?node=2&degraded=true")["targets"][0]["target"]
        chains = {each["target"]: each["chain"] for each in running.get("/targets")["targets"]}
        replaced = running.ask("POST", f"/targets/{lost}/replacement", {"dry_run": True})
        # Chain 1 has all other nodes already.
        assert replaced.status_code == 200 or chains[lost] == 1


def test_a_chain_is_given_up_only_by_word() -> None:
    with world() as running:
        assert refused(running, "POST", "/chains/1/rotation", {"accept_loss": True})[:2] == (409, "INVALID")
        head = running.bench.manager.routing.chains[0].targets[0].node
        others = [node for node in (1, 2, 3) if node != head]
        for node in others:
            running.die(node)
        running.die(head)
        running.do(lambda: revive(running, others[0]))
        shown = running.ask("POST", "/chains/1/rotation", {}).json()
        assert not shown["changed"] and "lost" in shown["loses"]
        assert running.get("/chains/1")["state"] == "offline"
        done = running.ask("POST", "/chains/1/rotation", {"accept_loss": True}).json()
        assert done["changed"] and done["given_up"] == shown["given_up"]
        serving = [target["node"] for target in running.get("/chains/1")["targets"] if target["state"] == "serving"]
        assert serving == [others[0]]
        assert refused(running, "POST", "/chains/9/rotation", {})[:2] == (404, "NOT_FOUND")


async def revive(running: World, node: int) -> None:
    await running.daemons[node].start()
    running.cluster.nodes[node].port = running.daemons[node].port
    running.cluster.nodes[node].start()
    await running.cluster.settle(3)


def test_the_scrub_is_asked_of_all_daemons_and_begun_on_all() -> None:
    with world() as running:
        found = running.get("/scrub?limit=2")
        assert [target["target"] for target in found["targets"]] == [101, 201] and found["next"] == 2
        assert [target["target"] for target in running.get("/scrub?after=2")["targets"]] == [301]
        for daemon in running.daemons.values():
            daemon.scrubs.clear()
        begun = running.ask("POST", "/scrub", {"chains": [1], "bytes_per_s": 7}).json()
        assert [target["number"] for target in begun["targets"]] == [1, 1, 1]
        for daemon in running.daemons.values():
            assert [(asked.start, asked.chains, asked.bytes_per_s) for asked in daemon.scrubs if asked.start] == [
                (True, [1], 7)
            ]
        running.die(3)
        assert running.get("/scrub")["silent_nodes"] == [3]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(three: World) -> World:
    context = three.server.context

    async def make() -> None:
        await mkdir(context, meta.Mkdir(ROOT_INODE, b"d", 0o755, new_request()))
        for name in (b"a", b"b", b"\xff \xc3\xa9&+%", b"z"):
            await create(context, meta.Create(ROOT_INODE, b"d/" + name, 0o640, new_request()))
        await symlink(context, meta.Symlink(ROOT_INODE, b"link", b"d/a", new_request()))
        await create(context, meta.Create(ROOT_INODE, b"open", 0o600, new_request(), write=True, client=CLIENT))
        await mkdir(context, meta.Mkdir(ROOT_INODE, b"private", 0o700, new_request()))

    three.do(make)
    return three


def test_a_directory_is_listed_in_pages_by_exact_names(named: World) -> None:
    names, after = [], ""
    while after is not None:
        page = named.get(f"/files?path=/d&limit=1&after={after}")
        names += page["entries"]
        after = page["next"]
    assert [entry["name"] for entry in names] == ["a", "b", "z", "\\xff é&+%"]
    for entry in names:
        found = named.get(entry["href"].removeprefix("/api/v1"))
        assert found["attributes"]["inode"] == entry["inode"] and found["entries"] is None
        assert entry["attributes"] == found["attributes"]
    attributes = names[0]["attributes"]
    assert (attributes["type"], attributes["mode"], attributes["length"]) == ("file", "0640", 0)
    assert attributes["layout"] == {"chunk_size_bytes": 1 << 20, "stripe": 2, "durability": "disk"}
    assert attributes["modified"].endswith("Z") and len(attributes["modified"]) == 30


def test_symbolic_links_are_followed_or_shown(named: World) -> None:
    assert named.get("/files?path=/link")["attributes"]["type"] == "file"
    shown = named.get("/files?path=/link&follow=false")["attributes"]
    assert (shown["type"], shown["target"]) == ("symlink", "d/a")


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/files?path=/gone", 404, "NOT_FOUND"),
        ("/files?path=/d/a/x", 409, "NOT_DIRECTORY"),
        ("/files?path=d", 422, "INVALID"),
        ("/files?path=/%00", 422, "INVALID"),
        ("/files?path=/" + "x" * 256, 404, "NAME_TOO_LONG"),
        ("/layout?path=/d", 409, "IS_DIRECTORY"),
        ("/layout?path=/gone", 404, "NOT_FOUND"),
    ],
)
def test_paths_that_name_nothing(named: World, path: str, status: int, name: str) -> None:
    assert refused(named, "GET", path)[:2] == (status, name)


def test_a_layout_tells_chunk_by_chunk_where_a_file_is(named: World) -> None:
    found = named.do(lambda: set_length(named, b"d/a", 5 * (1 << 20) + 7))
    assert found.layout is not None
    chains = stripe_chains(found.layout, named.bench.manager.routing.tables[-1].chains)
    first = named.get("/layout?path=/d/a&limit=4")
    rest = named.get(f"/layout?path=/d/a&first={first['next']}")
    chunks = first["chunks"] + rest["chunks"]
    assert (first["chunks_total"], rest["next"]) == (6, None)
    assert [chunk["chain"] for chunk in chunks] == [chains[index % len(chains)] for index in range(6)]
    assert [chunk["offset"] for chunk in chunks] == [index << 20 for index in range(6)]
    assert [chunk["length"] for chunk in chunks] == [1 << 20] * 5 + [7]
    known = {chain.chain: chain for chain in named.bench.manager.routing.chains}
    for chain in first["chains"]:
        assert [(each["target"], each["node"], each["state"]) for each in chain["targets"]] == [
            (member.target, member.node, member.state.name.lower()) for member in known[chain["chain"]].targets
        ]
        assert chain["targets"][0]["address"] == f"127.0.0.1:{named.daemons[chain['targets'][0]['node']].port}"


async def set_length(running: World, path: bytes, length: int) -> meta.Attributes:
    """As a client that wrote does: its session ends with how far it wrote."""
    context = running.server.context
    opened = await open_(context, meta.Open(ROOT_INODE, path, write=True, client=CLIENT, request=new_request()))
    closing = meta.Close(opened.attributes.inode, opened.session, new_request(), written_end=length)
    return (await close(context, closing, CLIENT)).attributes


def test_opens_are_listed_in_pages_and_by_client(named: World) -> None:
    others = [os.urandom(16) for _ in range(3)]

    async def open_more() -> None:
        for client in others:
            await create(
                named.server.context,
                meta.Create(ROOT_INODE, b"shared", 0o600, new_request(), False, write=True, client=client),
            )

    named.do(open_more)
    whole = named.get("/sessions")["sessions"]
    assert len(whole) == 4 and whole == sorted(whole, key=lambda session: session["inode"])
    seen, after = [], ""
    while after is not None:
        page = named.get(f"/sessions?limit=1&after={after}")
        seen += page["sessions"]
        after = page["next"]
    assert seen == whole
    mine = named.get(f"/sessions?client={others[0][:4].hex()}")["sessions"]
    assert [session["client"] for session in mine] == [others[0][:4].hex()]
    assert not any(client.hex() in str(whole) for client in others)


def test_rights_of_names_do_not_matter_without_security(named: World) -> None:
    async def close_it() -> None:
        await set_attr(named.server.context, meta.SetAttr(ROOT_INODE, b"private", new_request(), mode=0, uid=7))

    named.do(close_it)
    assert named.get("/files?path=/private")["entries"] == []


# --- configuration ----------------------------------------------------------------------------------------------------


def test_configuration_has_versions_and_is_refused_where_it_is_wrong() -> None:
    with world(nodes=0) as running:
        assert running.get("/config/storage")["version"] == 0
        dry = running.ask("PUT", "/config/storage", {"text": 'log_level = "debug"', "dry_run": True})
        assert dry.is_success and running.get("/config/storage")["version"] == 0
        first = running.ask("PUT", "/config/storage", {"text": 'log_level = "debug"', "comment": "look", "expected": 0})
        assert first.json() == running.get("/config/storage") and first.json()["version"] == 1
        for wrong in ({"text": "no_such_key = 1"}, {"text": "="}, {"text": "", "expected": 0}):
            assert refused(running, "PUT", "/config/storage", wrong)[:2] == (409, "INVALID")
        running.ask("PUT", "/config/storage", {"text": ""})
        assert running.get("/config/storage?version=1")["text"] == 'log_level = "debug"'
        assert refused(running, "GET", "/config/storage?version=9")[:2] == (409, "INVALID")
        page = running.get("/config/storage/versions?limit=1")
        assert [each["version"] for each in page["versions"]] == [2] and page["next"] == 2
        rest = running.get("/config/storage/versions?after=2")
        assert [each["comment"] for each in rest["versions"]] == ["look"] and rest["next"] is None
        assert refused(running, "GET", "/config/client")[0] == 422


def test_settings_say_where_their_values_come_from() -> None:
    with world() as running:
        running.ask("PUT", "/config/storage", {"text": 'log_level = "debug"'})
        found = {each["key"]: each for each in running.get("/config/storage/settings?node=1")["settings"]}
        assert (found["log_level"]["value"], found["log_level"]["origin"]) == ('"debug"', "cluster")
        assert (found["log_json"]["value"], found["log_json"]["origin"]) == ("false", "built-in")
        assert refused(running, "GET", "/config/storage/settings?node=9")[:2] == (404, "NODE_UNKNOWN")
        assert refused(running, "GET", "/config/meta/settings?node=1")[:2] == (409, "INVALID")


# --- what took long ---------------------------------------------------------------------------------------------------


def test_what_took_long_is_listed_the_newest_first(three: World) -> None:
    slow = three.server.slow_operations
    for number in (1, 2):
        times_ns = {"disk": 5 * 10**8}
        three.do(partial(slow.note, "create", number * 10**9, trace=number, about="'secret'", times_ns=times_ns))
    found = three.get("/slow-operations?node=0")["operations"]
    assert [each["took_ms"] for each in found] == [2000, 1000]
    assert (found[0]["trace"], found[0]["about"], found[0]["times_ms"]) == ("00000002", "'secret'", {"disk": 500})
    assert three.get("/slow-operations?limit=1")["operations"] == found[:1]
    everywhere = three.get("/slow-operations")["operations"]
    assert everywhere[:2] == found
    assert {(each["daemon"], each["took_ms"]) for each in everywhere[2:]} == {
        (f"node {node}", 1000 * node) for node in (1, 2, 3)
    }
    assert three.get("/slow-operations?node=2")["operations"] == [
        each for each in everywhere if each["daemon"] == "node 2"
    ]
    assert refused(three, "GET", "/slow-operations?node=9")[1] == "NODE_UNKNOWN"


# --- several at once --------------------------------------------------------------------------------------------------


def test_two_administrators_who_change_the_same_thing_do_not_undo_each_other() -> None:
    with world() as running:
        running.join(4)

        async def both() -> list[Any]:
            drains = [running.asking("POST", f"/nodes/{node}/drain", {}) for node in (1, 2)]
            changes = [
                running.asking("PUT", "/config/storage", {"text": f"# {number}", "expected": 0}) for number in (1, 2)
            ]
            return await asyncio.gather(*drains, *changes)

        *drained, first, second = asyncio.run(both())
        # Three replicas on four nodes: one may go.
        assert sorted(answer.status_code for answer in drained) in ([200, 409], [200, 503])
        assert [node["drained"] for node in running.get("/nodes")["nodes"]].count(True) == 1
        assert sorted((first.status_code, second.status_code)) in ([200, 409], [200, 503])
        assert running.get("/config/storage")["version"] == 1
