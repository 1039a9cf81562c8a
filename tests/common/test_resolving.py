"""A name server that does not answer: nobody else waits for it, and nothing is left of whoever gave up."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from fs_common.resolving import Resolved, resolve
from tests.support import run


class NameServer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.failure: Exception | None = None
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *, type: int, flags: int) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return self._real(host, port, type=type, flags=flags)
        self.asked.append(host)
        self.answers.wait(60)
        if self.failure is not None:
            raise self.failure
        return [(socket.AF_INET, type, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr("socket.getaddrinfo", server.getaddrinfo)
    yield server
    server.answers.set()


FOUND = [Resolved(socket.AF_INET, ("192.0.2.1", 9))]


def test_all_who_ask_share_one_lookup(names: NameServer) -> None:
    async def scenario() -> None:
        asking = [asyncio.create_task(resolve("storage-1", 9)) for _ in range(20)]
        await asyncio.sleep(0)
        names.answers.set()
        assert await asyncio.gather(*asking) == [FOUND] * 20
        assert names.asked == ["storage-1"]
        assert await resolve("storage-1", 9) == FOUND
        assert names.asked == ["storage-1"] * 2

    run(scenario())


def test_a_number_is_no_lookup_and_waits_for_none(names: NameServer) -> None:
    async def scenario() -> None:
        stuck = asyncio.create_task(resolve("gone", 9))
        await asyncio.sleep(0)
        assert await resolve("192.0.2.7", 9) == [Resolved(socket.AF_INET, ("192.0.2.7", 9))]
        assert await resolve("::1", 9) == [Resolved(socket.AF_INET6, ("::1", 9, 0, 0))]
        assert names.asked == ["gone"]
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck

    run(scenario())


def test_all_hear_that_a_name_has_no_address(names: NameServer) -> None:
    names.failure = socket.gaierror(socket.EAI_NONAME, "no such name")

    async def scenario() -> None:
        asking = [asyncio.create_task(resolve("gone", 9)) for _ in range(3)]
        await asyncio.sleep(0)
        names.answers.set()
        for each in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(each, socket.gaierror)

    run(scenario())


def test_a_loop_ends_while_a_name_server_is_silent(names: NameServer) -> None:
    """And says nothing of a lookup that nobody waited for to the end."""
    complaints: list[dict[str, Any]] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(resolve("gone", 9), 0.001)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert not names.answers.is_set()
    assert names.asked == ["gone"]
    assert complaints == []
