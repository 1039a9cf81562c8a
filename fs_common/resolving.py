"""Addresses of hosts. A name server that does not answer holds up whoever waits for it, and nobody else.

The loop's own lookups go into a queue of a few threads, stay there when nobody waits any more, and have to be over
before the loop can be closed. A host that is gone, whose name is asked for each second and answered after ten, makes
that queue longer all the time: then other names wait, too, and the process cannot end.

Invariants: one lookup of a name at a time, for all who ask; its thread is a daemon's, which the process does not wait
for; a lookup that nobody waits for any more ends unnoticed. An address that is a number is no lookup.

Called by: transports, and whoever connects by itself.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary


class Resolved(NamedTuple):
    family: int
    address: Any
    """As `connect` takes it."""


Lookup = asyncio.Future[list[Resolved]]
_lookups: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], Lookup]] = WeakKeyDictionary()
"""Those under way."""


async def resolve(host: str, port: int) -> list[Resolved]:
    """The addresses of `host:port` for TCP, best first. Raises `OSError` (`gaierror`) for a name that has none."""
    with contextlib.suppress(socket.gaierror):
        return _look_up(host, port, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    lookups = _lookups.setdefault(loop, {})
    lookup = lookups.get((host, port))
    if lookup is None:
        lookup = lookups[host, port] = loop.create_future()
        lookup.add_done_callback(lambda done: _over(lookups, host, port, done))
        thread = threading.Thread(target=_run, args=(loop, lookup, host, port), name=f"resolve {host}", daemon=True)
        thread.start()
    return await asyncio.shield(lookup)


def _over(lookups: dict[tuple[str, int], Lookup], host: str, port: int, lookup: Lookup) -> None:
    del lookups[host, port]
    if not lookup.cancelled():
        lookup.exception()  # it is told to those who wait, if there are any


def _run(loop: asyncio.AbstractEventLoop, lookup: Lookup, host: str, port: int) -> None:
    """In a thread."""
    found: list[Resolved] = []
    failure: Exception | None = None
    try:
        found = _look_up(host, port, 0)
    except Exception as error:  # of whatever kind: those who wait hear it
        failure = error

    def tell() -> None:
        if lookup.done():
            return
        if failure is None:
            lookup.set_result(found)
        else:
            lookup.set_exception(failure)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(tell)


def _look_up(host: str, port: int, flags: int) -> list[Resolved]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [Resolved(family, address) for family, _, _, _, address in found]
