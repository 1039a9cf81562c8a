"""Calls to the metadata service: any of its servers, with retries under the error table.

A mutating request carries its own id, so it may be sent again to any server whatever became of the try before.
One server is preferred until it fails. Many calls in flight share its connection.
"""

import logging
from collections.abc import Sequence
from typing import Any

from fs_client.backoff import INTERNAL_TRIES_MAX, Attempts
from fs_client.options import CLUSTER_VARIABLE, Address
from fs_common.errors import Code, EmberError, Retry
from fs_common.methods import Method
from fs_common.peers import PeerPool
from fs_common.tracing import current, new_trace

logger = logging.getLogger(__name__)

TRY_TIMEOUT_S = 10.0
"""One try; a server that hangs costs this much before another is asked."""
_GONE = frozenset({Code.PEER_GONE, Code.UNREACHABLE, Code.TIMED_OUT, Code.CLOSING, Code.INTERNAL})
"""Errors after which another server is asked."""


class MetaClient:
    """Holds no state but which server it prefers."""

    def __init__(self, addresses: Sequence[Address], pool: PeerPool, timeout_s: float) -> None:
        self._addresses = tuple(addresses)
        self._pool = pool
        self._timeout_s = timeout_s
        self._preferred = 0
        """Index of the server to ask first."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        return self._addresses

    async def call(
        self, method: Method, request: Any, *, one_round: bool = False, timeout_s: float | None = None
    ) -> Any:
        """The response, from the first server that gives one. `timeout_s`: instead of the client's.

        `one_round`: give up as soon as every server was found unreachable once, instead of trying until the deadline.
        Raises `EmberError`: what the service answered; UNREACHABLE naming every address if no server was reached.
        """
        trace = current() or new_trace()
        attempts = Attempts(self._timeout_s if timeout_s is None else timeout_s)
        failed: dict[Address, EmberError] = {}
        reason: EmberError | None = None
        """The newest answer of a server that said why it could not: worth more than the silence of a later try."""
        while True:
            address = self._addresses[self._preferred]
            try:
                return await self._pool.call(
                    address, method, request, timeout=attempts.try_s(TRY_TIMEOUT_S), trace=trace
                )
            except EmberError as error:
                if error.retry is Retry.FINAL:
                    raise
                failed[address] = error
                if error.code not in _GONE or error.code is Code.INTERNAL:
                    reason = error
                if error.code in _GONE:
                    self._preferred = (self._preferred + 1) % len(self._addresses)
                if error.code is Code.INTERNAL and attempts.count + 1 >= INTERNAL_TRIES_MAX:
                    raise
                everywhere = len(failed) == len(self._addresses)
                if one_round and everywhere and all(e.code is Code.UNREACHABLE for e in failed.values()):
                    raise self._unreachable(failed) from error
                if not await attempts.again(error, at_once=not everywhere):
                    raise self._gave_up(failed, reason, attempts) from error
                logger.debug("%s at %s: %s; trying again", method.name, address, error)

    def _gave_up(self, failed: dict[Address, EmberError], reason: EmberError | None, attempts: Attempts) -> EmberError:
        if reason is None:
            return self._unreachable(failed)
        advice = reason.code.value.advice
        why = reason.message if advice in reason.message else f"{reason.message} ({advice})"
        return EmberError(reason.code, f"gave up after {round(attempts.timeout_s, 1):g} s: {why}")

    def _unreachable(self, failed: dict[Address, EmberError]) -> EmberError:
        timed_out = any(error.code is Code.TIMED_OUT for error in failed.values())
        tried = ", ".join(
            f"{address} ({failed[address].message.removeprefix(f'{address} ')})"
            for address in self._addresses
            if address in failed
        )
        return EmberError(
            Code.TIMED_OUT if timed_out else Code.UNREACHABLE,
            f"cannot reach the EmberFS cluster: tried {tried}; check the address ({CLUSTER_VARIABLE} or connect()) and "
            "that the metadata server runs (emberfs up, or emberfs meta)",
        )
