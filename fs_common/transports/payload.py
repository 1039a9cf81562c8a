"""How the connections of a process carry payload: as they began, or by RDMA where both sides can.

One for each process and event loop, shared by its connection pools and its server. With a choice of TCP it does
nothing; nothing of RDMA is imported before the kernel has a device, and no device is opened before a connection needs
it.

A connection that cannot move stays on TCP (`auto`) or is refused (`rdma`), but for those to metadata servers, which
have no payload. Each that could have moved and did not is counted by its reason.

Concurrency: docs/concurrency/rdma.md.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fs_common.errors import Code, EmberError
from fs_common.rpc import Peer, Service
from fs_common.transports.choice import ONLY_TCP, RDMA, TCP, TransportChoice

if TYPE_CHECKING:
    from fs_common.metrics import Figures
    from fs_common.transports.rdma.process import Rdma
    from fs_common.transports.rdma.verbs import Binding

logger = logging.getLogger(__name__)

DEVICES: Final = "/sys/class/infiniband"
"""Where the kernel shows its RDMA devices."""
REASONS: Final = ("there", "between")
MOVE_TIMEOUT_S = 10.0
"""For the exchange in which a connection moves: its own round trips, and the tries of a device to get through."""
ANOTHER_TRY_S = 30.0
"""After which a connection that did not get through, and stays on TCP, is replaced by one that does, if it can be."""
LOOK_AGAIN_S = 10.0
"""How often a process without a usable device looks whether there is one."""


class Again(Exception):
    """The connection is closed, and the next one may fare better: it is to be made at once."""


class PayloadTransport:
    def __init__(self, choice: TransportChoice = ONLY_TCP, find_binding: "Callable[[], Binding] | None" = None) -> None:
        """`find_binding` raises `EmberError`, UNREACHABLE: RDMA cannot be used on this machine."""
        self.choice = choice
        self.fallbacks: Counter[str] = Counter()
        """Connections that stay on TCP though this side can RDMA, by reason: `there` (the other side does not),
        `between` (it did not get through)."""
        self.reasons: dict[str, str] = {}
        """By server: why it is not reached by RDMA, in words."""
        self._find_binding = find_binding or _binding
        self._rdma: Rdma | None = None
        self._why_not = ""
        self._looked_s = float("-inf")
        self._closed = False

    @property
    def offers(self) -> list[str]:
        """For a hello."""
        return [RDMA] if self._usable() is not None else []

    def check(self) -> None:
        """Raises `EmberError`, UNREACHABLE: RDMA is demanded, and this machine cannot."""
        if self.choice.transport == RDMA and self._usable() is None:
            raise EmberError(
                Code.UNREACHABLE, f"transport 'rdma' cannot be used: {self._why_not}; `emberfs doctor` says more"
            )

    def offer(self, service: Service) -> None:
        """Let callers of `service` move their connections, if this machine can. Raises as `check` does."""
        self.check()
        service.add_stats(lambda: _by_transport(service))
        if self._usable() is not None:
            from fs_common.transports.rdma.setup import offer

            offer(service, lambda end, caller: self._demanded().to_caller(end, caller))
        service.add_stats(self.stats)

    async def improve(self, peer: Peer, server: str) -> bool:
        """Move a greeted connection to `server`, on which no call is made yet, to RDMA, if that is wanted and can be.

        False: both sides can, and it did not get through: another connection may, later.

        Raises `Again`; `EmberError`, UNREACHABLE: RDMA is demanded, and cannot be. The connection is to be closed.
        """
        if not self.choice.may_be_rdma or peer.welcome.role == "meta":
            return True
        rdma = self._usable()
        if rdma is None:
            self._stay(server, "here", self._why_not)
            return True
        if peer.welcome.transport != RDMA:
            self._stay(server, "there", "the server does not offer it (`emberfs doctor` on its machine may say why)")
            return True
        from fs_common.transports.rdma.setup import Broken, upgrade

        reason = "it could not be reached just now"
        for way in rdma.to_server(server):
            try:
                await upgrade(peer, rdma.local(way), MOVE_TIMEOUT_S)
            except Broken as error:
                logger.debug("%s is not reached over %s: %s", server, way, error.message)
                rdma.unreached(way, server)
                raise Again from error
            except EmberError as error:
                logger.debug("%s is not reached over %s: %s", server, way, error.message)
                rdma.unreached(way, server)
                reason = error.message
            else:
                rdma.choice.worked(way, server)
                self.reasons.pop(server, None)
                return True
        self._stay(server, "between", reason)
        return False

    def stats(self) -> dict[str, int]:
        figures = {f"rdma_fallbacks_{reason}": count for reason, count in self.fallbacks.items()}
        return figures | (self._rdma.stats() if self._rdma is not None else {})

    def gather(self, figures: "Figures") -> None:
        """For Prometheus."""
        from fs_common import metric_families as families

        stats = self.stats()
        for family, name in (
            (families.RDMA_QUEUE_PAIRS, "rdma_queue_pairs"),
            (families.RDMA_REGIONS, "rdma_regions"),
            (families.RDMA_REGISTERED, "rdma_registered_bytes"),
            (families.RDMA_REFUSED, "rdma_registrations_refused"),
        ):
            figures.add(family, stats.get(name, 0))
        for label in ("sent", "received"):
            figures.add(families.RDMA_MESSAGES, stats.get(f"rdma_messages_{label}", 0), label)
        figures.add(families.RDMA_BYTES, stats.get("rdma_read_bytes", 0), "read")
        figures.add(families.RDMA_BYTES, stats.get("rdma_written_bytes", 0), "write")
        for reason in REASONS:
            figures.add(families.RDMA_FALLBACKS, self.fallbacks[reason], reason)

    def close(self) -> None:
        """After all connections. Idempotent."""
        self._closed = True
        rdma, self._rdma = self._rdma, None
        if rdma is not None:
            rdma.close()

    # Inside

    def _stay(self, server: str, reason: str, words: str) -> None:
        """The connection cannot move."""
        self.reasons[server] = words
        if self.choice.transport == RDMA:
            raise EmberError(Code.UNREACHABLE, f"{server} is not reached by RDMA: {words}")
        if reason != "here":
            self.fallbacks[reason] += 1
        logger.debug("data of %s goes over TCP: %s", server, words)

    def _demanded(self) -> "Rdma":
        rdma = self._usable()
        if rdma is None:
            raise EmberError(Code.UNREACHABLE, self._why_not)
        return rdma

    def _usable(self) -> "Rdma | None":
        """None: this machine cannot; `_why_not` says why."""
        if not self.choice.may_be_rdma or self._closed:
            self._why_not = "it is not wanted"
            return None
        if self._rdma is not None:
            return self._rdma
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._looked_s < LOOK_AGAIN_S:
            return None
        self._looked_s = now
        try:
            binding = self._find_binding()
        except EmberError as error:
            self._cannot(error.message)
            return None
        from fs_common.transports.rdma.process import Rdma

        rdma = Rdma(binding, self.choice, loop)
        obstacles = rdma.obstacles()
        if obstacles:
            self._cannot("; ".join(obstacles))
            return None
        self._rdma = rdma
        return rdma

    def _cannot(self, why: str) -> None:
        if why != self._why_not:
            self._why_not = why
            logger.debug("RDMA is not used: %s", why)


def _by_transport(service: Service) -> dict[str, int]:
    links = [session.connection.link for session in service.sessions if session.connection is not None]
    found = Counter(link.transport for link in links)
    return {f"connections_{transport}": found[transport] for transport in (TCP, RDMA)}


def _binding() -> "Binding":
    try:
        names = os.listdir(DEVICES)
    except OSError:
        names = []
    if not names:
        raise EmberError(Code.UNREACHABLE, "this machine has no RDMA device")
    from fs_common.transports.rdma import bindings
    from fs_common.transports.rdma.verbs import VerbsError

    try:
        return bindings.load()
    except VerbsError as error:
        raise EmberError(Code.UNREACHABLE, str(error)) from None
