"""One connection to each server, made on first use and made anew when it is lost.

Invariant: at most one connection or one attempt for each address. A pool belongs to the process and the loop it was
first used in.

Concurrency: docs/concurrency/rpc.md.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from fs_common.records.session import Hello, Welcome
from fs_common.rpc import Part, Peer, Ticket
from fs_common.transports import tcp
from fs_common.transports.payload import ANOTHER_TRY_S, Again, PayloadTransport

if TYPE_CHECKING:
    from fs_common.tls.files import TlsFiles

Address = tuple[str, int]


class Introduction(Protocol):
    """What is said to whom, where not everybody is told the same."""

    def hello(self, address: Address) -> Hello:
        """To the server at `address`, now."""

    def greeted(self, address: Address, welcome: Welcome) -> None:
        """It has answered."""

    async def renew(self, address: Address) -> bool:
        """It wants a new pass (PASS_REFUSED). True: there is one, to be shown at once. Raises `EmberError`."""


class _Same:
    """The same to everybody."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello

    def hello(self, address: Address) -> Hello:
        return self._hello

    def greeted(self, address: Address, welcome: Welcome) -> None:
        pass

    async def renew(self, address: Address) -> bool:
        return False


class PeerPool:
    def __init__(
        self,
        hello: Hello | Introduction,
        *,
        connect_timeout_s: float = 1.0,
        tls: "TlsFiles | None" = None,
        transport: PayloadTransport | None = None,
    ) -> None:
        """`tls`: every connection is over TLS, with daemons of the cluster that these files are of. `transport`: what
        payload may go over beside TCP; its owner closes it after this pool."""
        self._transport = transport or PayloadTransport()
        self._tls = tls
        self._introduction: Introduction = _Same(hello) if isinstance(hello, Hello) else hello
        self.connect_timeout_s = connect_timeout_s
        self._peers: dict[Address, Peer] = {}
        self._retired: list[Peer] = []
        """Told goodbye by their servers, or replaced; their last calls may still be in work."""
        self._connecting: dict[Address, asyncio.Task[Peer]] = {}
        self._another_try: dict[Address, asyncio.TimerHandle] = {}
        """Of connections that might be better."""
        self._process = os.getpid()
        self._closed = False

    async def call(
        self,
        address: Address,
        method: Method,
        request: msgspec.Struct,
        *,
        send: Sequence[Part] = (),
        into: Sequence[memoryview] = (),
        timeout: float,
        ticket: Ticket | None = None,
        trace: int = 0,
    ) -> Any:
        """`Peer.call` on the connection to `address`. Raises also UNREACHABLE, naming the address."""
        peer = self._peers.get(address)
        if peer is None or peer.closed or peer.closing or self._process != os.getpid():
            peer = await self.peer(address, ticket)
        return await peer.call(method, request, send=send, into=into, timeout=timeout, ticket=ticket, trace=trace)

    def received(self, address: Address) -> int:
        """How many bytes have come on the connection to `address`; 0: there is none."""
        peer = self._peers.get(address)
        return 0 if peer is None or peer.closed else peer.received()

    def transports(self) -> dict[Address, str]:
        """How payload travels to the servers that it is connected with: "tcp" or "rdma"."""
        return {address: peer.link.transport for address, peer in self._peers.items() if not peer.closed}

    def certificate_ends(self) -> dict[Address, float]:
        """Of the servers that it is connected with over TLS: when their certificates end, in seconds since 1970."""
        ends = {address: peer.certificate_ends_s for address, peer in self._peers.items()}
        return {address: end_s for address, end_s in ends.items() if end_s is not None}

    async def peer(self, address: Address, ticket: Ticket | None = None) -> Peer:
        """The connection to `address`, made if there is none. Raises `EmberError` as `tcp.connect` does, and what the
        ticket is abandoned with."""
        if self._process != os.getpid():
            raise EmberError(
                Code.INVALID, "a connection pool was made before fork and used after it; make a new one in the child"
            )
        if self._closed:
            raise EmberError(Code.CLOSING, "the connection pool is closed")
        peer = self._peers.get(address)
        if peer is not None and not peer.closed and not peer.closing:
            return peer
        task = self._connecting.get(address)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._connect(address))
            task.add_done_callback(_looked_at)
            self._connecting[address] = task
        try:
            if ticket is not None:
                await _ended(task, ticket)
                return task.result()
            # Shielded: one caller that gives up does not fail the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and current is not None and not current.cancelling():
                raise EmberError(Code.CLOSING, "the connection pool was closed") from None
            raise

    async def end(self, address: Address) -> None:
        """Close the connection to `address`, if there is one: its server is known to be gone. Calls in flight fail with
        PEER_GONE; the next call connects anew."""
        peer = self._peers.pop(address, None)
        if peer is not None:
            await peer.close()

    def descriptors(self) -> list[int]:
        """File descriptors of all connections. A forked child closes them, so that they end with the parent's."""
        return [peer.descriptor for peer in [*self._peers.values(), *self._retired] if peer.descriptor is not None]

    async def close(self) -> None:
        """Close all connections. Calls in flight fail with PEER_GONE."""
        self._closed = True
        for timer in self._another_try.values():
            timer.cancel()
        self._another_try.clear()
        for task in list(self._connecting.values()):
            task.cancel()
        await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        self._connecting.clear()
        peers = [*self._peers.values(), *self._retired]
        self._peers.clear()
        self._retired.clear()
        for peer in peers:
            await peer.close()

    async def _connect(self, address: Address) -> Peer:
        try:
            peer = await self._made(address)
        finally:
            self._connecting.pop(address, None)
        self._retired = [old for old in self._retired if not old.closed]
        if (old := self._peers.get(address)) is not None and not old.closed:
            self._retired.append(old)
            old.retire()
        self._peers[address] = peer
        return peer

    def _book_another_try(self, address: Address) -> None:
        if (timer := self._another_try.pop(address, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._another_try[address] = loop.call_later(ANOTHER_TRY_S, self._try_again, address)

    def _try_again(self, address: Address) -> None:
        """Make a connection in the place of the one that might be better. Calls go over that until it is there."""
        self._another_try.pop(address, None)
        peer = self._peers.get(address)
        if peer is not None and not peer.closed and not peer.closing and address not in self._connecting:
            task = asyncio.get_running_loop().create_task(self._connect(address))
            task.add_done_callback(partial(self._tried_again, address))
            self._connecting[address] = task

    def _tried_again(self, address: Address, task: asyncio.Task[Peer]) -> None:
        if not task.cancelled() and task.exception() is not None and not self._closed:
            self._book_another_try(address)

    async def _made(self, address: Address) -> Peer:
        """A greeted connection that carries payload in the best way there is."""
        while True:
            peer = await self._greeted(address)
            try:
                if not await self._transport.improve(peer, f"{address[0]}:{address[1]}"):
                    self._book_another_try(address)
            except Again:
                # Each time with one way less, at last over TCP alone.
                await peer.close()
            except BaseException:
                await peer.close()
                raise
            else:
                return peer

    async def _greeted(self, address: Address) -> Peer:
        introduction = self._introduction
        try:
            peer = await self._connected(address)
        except EmberError as error:
            if error.code is not Code.PASS_REFUSED or not await introduction.renew(address):
                raise
            peer = await self._connected(address)
        introduction.greeted(address, peer.welcome)
        return peer

    async def _connected(self, address: Address) -> Peer:
        hello = self._introduction.hello(address)
        if offers := self._transport.offers:
            hello = msgspec.structs.replace(hello, transports=offers)
        return await tcp.connect(*address, hello, timeout=self.connect_timeout_s, tls=self._tls)


MakePool = Callable[[], PeerPool]
"""Makes a pool that says who this process is."""


async def _ended(task: asyncio.Task[Peer], ticket: Ticket) -> None:
    """Wait for the task's end, in a way that the ticket can end."""
    waits_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waits_for.done():
            waits_for.set_result(None)

    ticket.wait_for(waits_for)
    task.add_done_callback(wake)
    try:
        await waits_for
    finally:
        task.remove_done_callback(wake)


def _looked_at(task: asyncio.Task[Peer]) -> None:
    """Those who waited may all have given up: a failure that nobody wants is no defect."""
    if not task.cancelled():
        task.exception()
