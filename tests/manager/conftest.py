"""gRPC's asyncio machinery, up for all tests of the folder: its pair of sockets lives until the last user is gone."""

from collections.abc import Iterator

import grpc.aio
import pytest


@pytest.fixture(scope="session", autouse=True)
def grpc_machinery() -> Iterator[None]:
    grpc.aio.init_grpc_aio()
    yield
    grpc.aio.shutdown_grpc_aio()
