"""Every error that the description of the API knows, as callers meet it."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fs_common.errors import Code, EmberError
from fs_common.http_server import CALLS_MAX
from fs_meta.http.guard import BODY_BYTES_MAX
from fs_meta.http.problems import MEDIA_TYPE, STATUS_OF
from tests.http.world import World, world

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[World]:
    with world(security=True, bridge_timeout_s=5.0) as running:
        yield running


def send(running: World, method: str, path: str, *, token: str = "admin.token", **more: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        headers = {**more.pop("headers", {})}
        if token:
            headers["authorization"] = f"Bearer {running.tokens[token]}"
        transport = httpx.ASGITransport(running.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9702/api/v1") as client:
            return await client.request(method, path, headers=headers, **more)

    return asyncio.run(sent())


def breaks(running: World, monkeypatch: pytest.MonkeyPatch, error: Exception) -> httpx.Response:
    """The answer where the service fails with `error`."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(running.bench.manager, "list_chains", fail)
    return send(running, "GET", "/chains")


def test_each_status_is_met(guarded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = guarded
    met = {
        400: send(running, "PUT", "/config/storage", content=b"\xff", headers=JSON),
        401: send(running, "GET", "/cluster", token=""),
        403: send(running, "GET", "/cluster", token="storage.token"),
        404: send(running, "GET", "/nodes/9"),
        409: send(running, "DELETE", "/nodes/1"),
        413: send(running, "PUT", "/config/storage", content=bytes(BODY_BYTES_MAX + 1), headers=JSON),
        415: send(running, "PUT", "/config/storage", content=b"text = 1", headers={"content-type": "text/plain"}),
        422: send(running, "PUT", "/config/storage", json={"text": 1}),
        500: breaks(running, monkeypatch, ValueError("secret")),
        503: breaks(running, monkeypatch, EmberError(Code.NOT_MANAGER)),
        504: breaks(running, monkeypatch, EmberError(Code.TIMED_OUT)),
    }
    for status, answer in met.items():
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == MEDIA_TYPE
        problem = answer.json()
        row = Code[problem["name"]].value
        assert (problem["status"], problem["number"], problem["retry"]) == (status, row.number, row.retry.value)
        assert problem["title"] == row.advice and problem["type"] == f"/api/v1/errors/{row.name}"
        assert "secret" not in answer.text
    described = {
        int(status)
        for path in running.app.openapi()["paths"].values()
        for operation in path.values()
        for status in operation["responses"]
        if status >= "400"
    }
    assert described == set(met)


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_each_row_of_the_table_has_its_status(guarded: World, code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = breaks(guarded, monkeypatch, EmberError(code, "what happened"))
    problem = answer.json()
    assert answer.status_code == STATUS_OF.get(code, 500)
    assert (problem["name"], problem["detail"]) == (code.name, "what happened")
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


def test_more_questions_than_are_answered_at_once_are_told_to_come_again(guarded: World) -> None:
    async def crowd() -> list[httpx.Response]:
        token = guarded.tokens["admin.token"]
        return await asyncio.gather(*(guarded.asking("GET", "/space", token=token) for _ in range(3 * CALLS_MAX)))

    answers = asyncio.run(crowd())
    refusals = [answer for answer in answers if not answer.is_success]
    assert refusals and len(refusals) < len(answers)
    for answer in refusals:
        assert (answer.status_code, answer.json()["name"], answer.json()["retry"]) == (503, "BUSY", "safe")


def test_a_service_that_does_not_answer_is_not_waited_for() -> None:
    with world(nodes=0, bridge_timeout_s=0.01) as running:
        began, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            began.set()
            go_on.wait()

        running.loop.call_soon_threadsafe(hang)
        began.wait()
        try:
            answer = running.ask("GET", "/space")
        finally:
            go_on.set()
        assert (answer.status_code, answer.json()["name"]) == (504, "TIMED_OUT")


def test_daemons_that_do_not_answer_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fs_meta.http.asking.ask_all.__kwdefaults__", {"ask_timeout_s": 60.0, "all_timeout_s": 0.05})
    with world() as running:
        running.daemons[2].silent = asyncio.Event()
        found = running.get("/slow-operations")
        running.loop.call_soon_threadsafe(running.daemons[2].silent.set)
        assert found["silent_nodes"] == [2] and {each["daemon"] for each in found["operations"]} == {"node 1", "node 3"}
