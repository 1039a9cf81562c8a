"""What is let through to the handlers, and how a request that is not is answered."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from fs_meta.http import problems
from fs_meta.http.guard import BODY_BYTES_MAX, Guard

JSON = {"content-type": "application/json"}


def application(*, tokens: bool) -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.get("/thing")
    async def show() -> str:
        return "shown"

    @app.post("/thing")
    async def change(request: Request) -> int:
        return len(await request.body())

    app.add_middleware(Guard, names=("meta1",), tokens=tokens)
    return app


def send(method: str, headers: dict[str, str], content: Any = None, *, tokens: bool = False) -> httpx.Response:
    async def body() -> httpx.Response:
        transport = httpx.ASGITransport(application(tokens=tokens))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9702") as client:
            return await client.request(method, "/thing", headers=headers, content=content)

    return asyncio.run(body())


@pytest.mark.parametrize(
    "host", ["localhost:9702", "127.0.0.1", "[::1]:9702", "192.0.2.7:9702", "meta1:9702", "a.localhost"]
)
def test_addresses_and_own_names_are_let_through(host: str) -> None:
    assert send("GET", {"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9702", "", "[::", "127.0.0.1.evil.example"])
def test_a_page_whose_name_points_here_gets_nothing(host: str) -> None:
    answer = send("GET", {"host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert answer.json()["name"] == "NOT_PERMITTED"
    # It has no token: then it may have any name.
    assert send("GET", {"host": host}, tokens=True).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://[::"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_page_changes_nothing(headers: dict[str, str]) -> None:
    assert send("POST", {**JSON, **headers}, b"{}").status_code == 403
    assert send("POST", headers).status_code == 403
    assert send("GET", headers).status_code == 200


def test_our_own_page_and_programs_may_change_something() -> None:
    assert send("POST", {**JSON, "origin": "http://127.0.0.1:9702", "sec-fetch-site": "same-origin"}, b"{}").is_success
    assert send("POST", JSON, b"{}").json() == 2
    assert send("POST", {}).json() == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_a_form_can_send_is_refused(kind: str) -> None:
    answer = send("POST", {"content-type": kind}, b"{}")
    assert (answer.status_code, answer.json()["name"]) == (415, "BAD_BODY")


def test_a_body_is_bounded() -> None:
    async def chunks() -> Any:
        for _ in range(BODY_BYTES_MAX // 65_536 + 1):
            yield bytes(65_536)

    assert send("POST", JSON, bytes(BODY_BYTES_MAX)).status_code == 200
    for content in (bytes(BODY_BYTES_MAX + 1), chunks()):
        answer = send("POST", JSON, content)
        assert (answer.status_code, answer.json()["name"]) == (413, "TOO_LARGE")


def test_answers_cannot_be_framed_or_guessed_at() -> None:
    for answer in (send("GET", {}), send("GET", {"host": "evil.example"})):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
