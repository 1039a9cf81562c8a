"""Which clients are alive, told by their connections. Pure: times come in.

A client is alive while a connection of it is open, and for `timeout_s` after the last one was lost; a process or
machine that vanishes silently loses its connections by TCP keepalive after about 10 s (`fs_common.transports.tcp`). It
may have several connections at once and make new ones at any time.

A client that is known from the store alone (sessions, locks: this process has just started) or from a request has not
been seen, and gets `timeout_s` from then.

A client that is not alive stays `overdue` until it connects again or is forgotten by whoever has cleared up after it.
"""

from typing import NamedTuple

from fs_common.records.session import MOUNT, PROGRAM_LENGTH_MAX


class Connected(NamedTuple):
    """A client that is connected, as operators are shown it."""

    client: bytes
    host: str
    """As it says itself."""
    pid: int
    program: str
    """As it says itself: a program's name, or `session.MOUNT` and where."""
    since_s: float
    """Its first connection of those that followed each other without a break; on the caller's clock."""
    connections: int
    holds: bool
    """It may have sessions or locks."""

    @property
    def mount(self) -> bool:
        return self.program.startswith(MOUNT)


class Clients:
    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connections: dict[bytes, int] = {}
        """Open connections of each client, >= 1."""
        self._who: dict[bytes, tuple[str, int, str, float]] = {}
        """Of those: host, process, program, and since when."""
        self._absent_since: dict[bytes, float] = {}
        """Clients without a connection that are not forgotten, and since when."""
        self._holding: set[bytes] = set()
        """Those that may have sessions or locks: the others leave nothing behind."""

    def __len__(self) -> int:
        """Connected clients."""
        return len(self._connections)

    def listed(self) -> list[Connected]:
        """Those that are connected, the longest first."""
        found = [
            Connected(client, *self._who[client], count, client in self._holding)
            for client, count in self._connections.items()
        ]
        return sorted(found, key=lambda client: client.since_s)

    def connected(self, client: bytes, host: str = "", pid: int = 0, program: str = "", now: float = 0.0) -> None:
        self._absent_since.pop(client, None)
        self._who.setdefault(client, (host, pid, program[:PROGRAM_LENGTH_MAX], now))
        self._connections[client] = self._connections.get(client, 0) + 1

    def disconnected(self, client: bytes, now: float) -> None:
        left = self._connections[client] - 1
        if left:
            self._connections[client] = left
            return
        del self._connections[client]
        del self._who[client]
        self._absent_since[client] = now

    def holds(self, client: bytes, now: float) -> None:
        """It has, or is about to have, a session or a lock."""
        self._holding.add(client)
        if client not in self._connections:
            self._absent_since.setdefault(client, now)

    def is_overdue(self, client: bytes, now: float) -> bool:
        """Whether what it has may be taken from it."""
        since = self._absent_since.get(client)
        return since is not None and now >= since + self._timeout_s

    def overdue(self, now: float) -> set[bytes]:
        """Clients that are not alive any more and may have left something. Those that have not are forgotten."""
        found = set()
        for client in [client for client in self._absent_since if self.is_overdue(client, now)]:
            if client in self._holding:
                found.add(client)
            else:
                del self._absent_since[client]
        return found

    def forget(self, client: bytes) -> None:
        """It has left nothing, unless it has connected since."""
        if self._absent_since.pop(client, None) is not None:
            self._holding.discard(client)
