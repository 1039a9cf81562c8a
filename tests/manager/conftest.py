"""What gRPC keeps for itself, kept out of the search for leaks."""

import asyncio
import time
from collections.abc import Iterator

import grpc.aio
import pytest

from tests import leaks

SETTLE_S = 5.0
"""How long gRPC's own threads may take to close a socket that was let go; they answer to nobody."""


@pytest.fixture(scope="session", autouse=True)
def grpc_machinery() -> Iterator[None]:
    """The asyncio machinery up for all tests of the folder: its pair of sockets lives until the last user is gone.

    It asks for the thread's event loop, which an earlier `asyncio.run` may have taken away.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    grpc.aio.init_grpc_aio()
    yield
    asyncio.set_event_loop(loop)
    grpc.aio.shutdown_grpc_aio()
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture(autouse=True)
def grpc_settled(nothing_left_behind: None) -> Iterator[None]:
    """Each test ends when its sockets are closed, before anybody looks for leaks. What stays is a leak then."""
    before = leaks.holdings()
    yield
    deadline = time.monotonic() + SETTLE_S
    while leaks.describe_leaks(before, leaks.holdings()) and time.monotonic() < deadline:
        time.sleep(0.005)
