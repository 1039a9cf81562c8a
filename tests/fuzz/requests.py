"""Requests of the right types and the wrong values, to servers in this process: answered or refused, never INTERNAL.

A defect of a handler is an error line of the server's log and INTERNAL to the caller; both fail the run, with its seed.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fs_common.errors import Code, EmberError
from fs_common.methods import PING
from fs_common.records.session import Hello, Ping
from fs_common.rpc import Peer, Registration
from fs_common.transports import tcp
from tests.fuzz.values import CLIENT, Values

IN_FLIGHT = 8
CALL_S = 0.4
"""Some wait for what never comes, as they should."""
PAYLOADS = (0, 0, 1, 100, 4096, 70_000)


class Defects(logging.Handler):
    """What servers say of their own defects."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@asynccontextmanager
async def no_defects() -> AsyncIterator[Defects]:
    defects = Defects()
    logging.getLogger().addHandler(defects)
    try:
        yield defects
    finally:
        logging.getLogger().removeHandler(defects)
    assert not defects.lines, "\n".join(defects.lines)


async def ask(port: int, registrations: list[Registration], values: Values, count: int, **hello: Any) -> None:
    """`count` requests over one connection, some at a time; the server answers a ping at the end."""
    said = {"role": "client", "client": CLIENT, "cluster": ""} | hello
    peer = await tcp.connect("127.0.0.1", port, Hello([1], **said), timeout=10.0)
    try:
        for _ in range(0, count, IN_FLIGHT):
            await asyncio.gather(*(_one(peer, values.chance.choice(registrations), values) for _ in range(IN_FLIGHT)))
        assert await peer.call(PING, Ping(b"still"), timeout=10.0) == Ping(b"still")
    finally:
        await peer.close()


async def _one(peer: Peer, registration: Registration, values: Values) -> None:
    method = registration.method
    request = values.record(method.request)
    size = values.chance.choice(PAYLOADS) if registration.allocate is not None else 0
    send = [values.chance.randbytes(size)] if size else []
    into = [memoryview(bytearray(200_000))]
    try:
        values.learn(await peer.call(method, request, send=send, into=into, timeout=CALL_S))
    except (OverflowError, TypeError):
        # No record of its type: msgpack has no such integer.
        return
    except EmberError as error:
        if error.code is Code.INTERNAL and "do not fit" not in error.message:
            raise AssertionError(f"{method.name}({request}) failed: {error.message}") from None


async def fuzz_metadata(seed: int, count: int) -> None:
    """The namespace is whole at the end, too: `cluster` checks it."""
    from tests.meta.test_service import cluster

    values = Values(seed)
    with tempfile.TemporaryDirectory() as directory:
        async with no_defects():
            async with cluster(Path(directory), client_timeout_ms=600_000) as running:
                registrations = list(running.running.data_plane._service.registrations.values())
                await ask(running.running.port, registrations, values, count)


async def fuzz_storage(seed: int, count: int) -> None:
    """As clients and as another daemon; all replicas serve at the end."""
    from tests.storage.chain import chain_of

    values = Values(seed)
    values.known += [101, 102, 202, 201, 1 << 16]
    with tempfile.TemporaryDirectory() as directory:
        async with no_defects(), chain_of(Path(directory), nodes=2, replicas=2) as chain:
            for node, daemon in chain.daemons.items():
                registrations = list(daemon.service.registrations.values())
                for role in ("client", "storage"):
                    client = CLIENT if role == "client" else (3 - node).to_bytes(16, "big")
                    await ask(chain.ports[node], registrations, values, count // 4, role=role, client=client)
                assert not daemon.violation.done(), daemon.violation.result()
