"""The application is made with its first request, and a server without it says so."""

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from fs_common import heap
from fs_common.http_server import App
from fs_meta.http.later import MadeLater


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often objects were kept out of collections. Those of a process that tests are not."""
    calls: list[int] = []
    monkeypatch.setattr(heap, "keep", lambda: calls.append(1))
    return calls


async def get(app: App) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return await client.get("/")


def test_it_is_made_once_and_not_by_the_start_of_its_server(kept: list[int]) -> None:
    made = []

    def make() -> App:
        made.append(1)
        return PlainTextResponse("here")  # type: ignore[return-value]

    async def scenario() -> None:
        app = MadeLater(make)
        asked, told = asyncio.Queue[dict[str, str]](), list[dict[str, str]]()

        async def tell(message: dict[str, str]) -> None:
            told.append(message)

        for kind in ("startup", "shutdown"):
            asked.put_nowait({"type": f"lifespan.{kind}"})
        await app({"type": "lifespan"}, asked.get, tell)  # type: ignore[arg-type]
        assert [message["type"] for message in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert not made
        assert [answer.text for answer in await asyncio.gather(get(app), get(app))] == ["here", "here"]
        assert len(made) == len(kept) == 1

    asyncio.run(scenario())


def test_without_its_packages_requests_are_refused_and_the_server_goes_on() -> None:
    def make() -> App:
        raise ImportError("No module named 'fastapi'")

    async def scenario() -> None:
        app = MadeLater(make)
        for _ in range(2):
            answer = await get(app)
            assert (answer.status_code, "emberfs[server]" in answer.text) == (503, True)

    asyncio.run(scenario())
