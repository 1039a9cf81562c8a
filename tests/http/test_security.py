"""Who may do what over HTTP: every operation of the API, as every kind of caller."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import httpx
import pytest

from fs_common.ids import ROOT_INODE
from fs_common.records import meta
from fs_common.security.tokens import make_token, token_text
from fs_meta.http.problems import MEDIA_TYPE
from fs_meta.http.viewers import OF_ONE_MAX
from fs_meta.ops.create import create
from fs_meta.ops.mkdir import mkdir
from fs_meta.users.records import UserFlags
from tests.http.world import World, world
from tests.meta.world import new_request

ALICE = meta.User(1000, 1000)


@pytest.fixture(scope="module")
def guarded() -> Iterator[World]:
    """Security is on; alice is a user like any other, and carol administers without being root."""
    with world(security=True) as running:

        async def make() -> None:
            users = running.server.users
            await users.add("alice", 1000, 1000, [])
            await users.add("carol", 1001, 1001, [], UserFlags.ADMIN)
            await users.add("ruth", 1002, 1002, [], UserFlags.ROOT)
            for name in ("alice", "carol", "ruth"):
                running.tokens[name] = await users.issue(name, lasts_s=None)
            running.tokens["unknown"] = token_text(make_token(bytes(36)))
            context = running.server.context
            await mkdir(context, meta.Mkdir(ROOT_INODE, b"alice", 0o700, new_request(), user=meta.User()))
            await create(context, meta.Create(ROOT_INODE, b"alice/secret", 0o600, new_request()))

        running.do(make)
        yield running


def operations(running: World) -> list[tuple[str, str]]:
    """Method and a path with arguments of every operation."""
    values = {"node": "1", "chain": "1", "target": "1", "move": "1", "name": "nobody_here", "token": "00000000"}
    values["kind"] = "storage"
    return [
        (method.upper(), path.removeprefix("/api/v1").format(**values))
        for path, methods in running.app.openapi()["paths"].items()
        for method in methods
    ]


def status(running: World, method: str, path: str, token: str) -> int:
    json: Any = {} if method in ("POST", "PUT") else None
    answer = running.ask(method, path, json, token=token)
    if not answer.is_success:
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.json()["status"] == answer.status_code
    return answer.status_code


def test_nobody_gets_in_without_a_token_that_is_known(guarded: World) -> None:
    for method, path in operations(guarded):
        for token in ("", guarded.tokens["unknown"], "ember.0", "x" * 100):
            assert status(guarded, method, path, token) == 401, (method, path, token)


def test_a_daemons_token_is_for_the_daemon(guarded: World) -> None:
    for method, path in operations(guarded):
        assert status(guarded, method, path, guarded.tokens["storage.token"]) == 403, (method, path)


def test_users_look_and_administrators_change(guarded: World) -> None:
    open_to_all = []
    for method, path in operations(guarded):
        for name in ("alice", "ruth", "mount.token"):
            if status(guarded, method, path, guarded.tokens[name]) != 403:
                assert method == "GET", (method, path, name)
                open_to_all.append(path)
        assert status(guarded, method, path, guarded.tokens["carol"]) not in (401, 403), (method, path)
    assert "/cluster" in open_to_all and "/files" in open_to_all
    assert not [path for path in open_to_all if path.startswith(("/users", "/tokens"))]


def test_what_is_refused_says_how_one_is_let_in(guarded: World) -> None:
    answer = guarded.ask("GET", "/cluster")
    assert answer.headers["www-authenticate"] == "Bearer" and answer.json()["name"] == "UNAUTHENTICATED"


def test_a_caller_is_told_who_he_is(guarded: World) -> None:
    found = guarded.get("/caller", token=guarded.tokens["carol"])
    assert (found["name"], found["uid"], found["admin"], found["security"]) == ("carol", 1001, True, True)
    assert not guarded.get("/caller", token=guarded.tokens["alice"])["admin"]


def test_names_are_seen_with_the_rights_of_the_caller(guarded: World) -> None:
    for name, expected in (("alice", 403), ("carol", 403), ("mount.token", 200), ("ruth", 200), ("admin.token", 200)):
        for path in ("/files?path=/alice", "/files?path=/alice/secret", "/layout?path=/alice/secret"):
            assert status(guarded, "GET", path, guarded.tokens[name]) == expected, (name, path)
    assert guarded.get("/files?path=/", token=guarded.tokens["alice"])["entries"]


def test_a_user_has_some_feeds_of_the_console_and_leaves_others_theirs(guarded: World) -> None:
    async def looks(address: str) -> None:
        async with AsyncExitStack() as open_ones:
            client = await open_ones.enter_async_context(httpx.AsyncClient(base_url=address, timeout=30))

            async def look(user: str) -> httpx.Response:
                headers = {"authorization": f"Bearer {guarded.tokens[user]}"}
                return await open_ones.enter_async_context(client.stream("GET", "/api/v1/live", headers=headers))

            feeds = [(await look("alice")).aiter_text() for _ in range(OF_ONE_MAX)]  # kept: one that is not, is closed
            for feed in feeds:
                assert (await anext(feed)).startswith("event: hello")
            refused = await look("alice")
            await refused.aread()
            assert (refused.status_code, refused.headers["content-type"]) == (503, MEDIA_TYPE)
            assert "retry-after" in refused.headers and "user 'alice' has" in refused.json()["detail"]
            assert (await look("carol")).status_code == 200

    with guarded.served() as address:
        asyncio.run(looks(address))


def test_users_and_tokens_come_and_go() -> None:
    with world(security=True) as running:
        admin = running.tokens["admin.token"]

        def ask(method: str, path: str, json: Any = None) -> Any:
            answer = running.ask(method, path, json, token=admin)
            assert answer.is_success, answer.text
            return answer.json()

        made = ask("POST", "/users", {"name": "bob", "uid": 7, "gid": 8, "groups": [9], "admin": True})
        assert made == ask("GET", "/users/bob") and (made["uid"], made["admin"], made["tokens"]) == (7, True, 0)
        assert running.ask("POST", "/users", {"name": "bob", "uid": 1, "gid": 1}, token=admin).status_code == 409
        assert [user["name"] for user in ask("GET", "/users?limit=1")["users"]] == ["admin"]
        assert [user["name"] for user in ask("GET", "/users?after=admin")["users"]] == ["bob"]

        issued = ask("POST", "/users/bob/tokens", {"lasts_s": 3600})
        assert running.get("/caller", token=issued["text"])["name"] == "bob"
        [shown] = ask("GET", "/tokens?user=bob")["tokens"]
        assert shown["token"] == issued["token"] and shown["kind"] == "plain" and shown["expires"]
        assert issued["text"] not in str(ask("GET", "/tokens"))

        rotated = ask("POST", f"/tokens/{issued['token']}/rotation", {"grace_s": 0})
        assert running.ask("GET", "/caller", token=issued["text"]).status_code == 401
        assert running.get("/caller", token=rotated["text"])["name"] == "bob"
        ask("DELETE", f"/tokens/{rotated['token']}")
        assert running.ask("GET", "/caller", token=rotated["text"]).status_code == 401

        mount = ask("POST", "/users/bob/tokens", {"kind": "squashing mount"})
        daemon = ask("POST", "/tokens", {"node": 3})
        kinds = {each["token"]: (each["kind"], each["node"]) for each in ask("GET", "/tokens")["tokens"]}
        assert kinds[mount["token"]] == ("squashing mount", None) and kinds[daemon["token"]] == ("storage", 3)
        assert mount["token"] in ask("DELETE", "/users/bob")["tokens"]
        assert running.ask("GET", "/caller", token=mount["text"]).status_code == 401
        assert running.ask("DELETE", "/users/bob", token=admin).status_code == 404
        assert ask("POST", "/keys/rotation")["key"] == 2


def test_without_security_everybody_administers_and_no_key_is_rotated() -> None:
    with world(nodes=0) as running:
        assert running.get("/caller") == running.get("/caller", token="anything")
        assert not running.get("/caller")["security"]
        assert running.ask("POST", "/keys/rotation").status_code == 409


def test_names_in_slow_operations_are_for_administrators(guarded: World) -> None:
    guarded.do(partial(guarded.server.slow_operations.note, "create", 10**10, trace=1, about="'secret'"))
    for name, about in (("alice", ""), ("carol", "'secret'")):
        [slow] = guarded.get("/slow-operations?node=0", token=guarded.tokens[name])["operations"]
        assert slow["about"] == about
