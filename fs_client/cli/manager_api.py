"""The manager's API (gRPC, service Administration of `fs_common/control.proto`) as commands call it.

A command knows the data plane of the metadata servers; each of them is asked there for the port of its control plane.
Calls go to one server after another until the manager answers. A read is repeated whatever has gone wrong; an order
only where it certainly was not taken (SAFE in the table), because nobody wants his drain twice.

gRPC comes with the servers' extra and is imported when the first call is made: who has none of it hears so in one
line. `_channel` is the one place that knows by what means a control plane is reached; a call shows the client's token.

Called by: commands that administer, and the supervisor of `emberfs up`.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from fs_client.backoff import INTERNAL_TRIES_MAX, Attempts
from fs_client.cli.execute import require_module
from fs_client.cli.failure import Failure, Usage
from fs_client.options import Address, client_tls
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.security.bearer import bearer

if TYPE_CHECKING:
    from fs_client.aio import AsyncFileSystem

TIMEOUT_S = 30.0
PLAN_TIMEOUT_S = 60.0
"""A plan for hundreds of nodes takes seconds."""
CONNECT_TIMEOUT_S = 3.0
TRY_TIMEOUT_S = 10.0
"""Of a read at one server, before another one is asked."""
REPLY_BYTES_MAX = 64 << 20
_SILENT = frozenset({Code.UNREACHABLE, Code.TIMED_OUT, Code.PEER_GONE})


class ManagerApi:
    """`async with manager_of(fs) as api: await api.read("ListNodes", limit=10)`. All on one event loop."""

    def __init__(
        self,
        servers: Sequence[Address],
        control_of: Callable[[Address], Awaitable[Address]],
        read_token: Callable[[], str] = lambda: "",
        tls_ca: str = "",
    ) -> None:
        """`control_of`: the control plane of a metadata server that is known by its data plane; raises `EmberError`.
        `read_token`: what is shown; "": nothing. `tls_ca`: the cluster's authority; "": there is no TLS."""
        self._servers = servers
        self._control_of = control_of
        self._read_token = read_token
        self._tls_ca = tls_ca
        self._preferred = 0
        """Index of the server to ask first."""
        self._channels: dict[Address, tuple[Address, Any]] = {}
        """By data plane: control plane, and the channel to it."""

    async def read(self, method: str, *, timeout_s: float = TIMEOUT_S, **fields: Any) -> Any:
        """The answer to a call that changes nothing; `fields`: of its request.
        Raises `EmberError`, `Failure` (gRPC is not installed)."""
        return await self._call(method, fields, timeout_s, order=False)

    async def order(self, method: str, *, timeout_s: float = PLAN_TIMEOUT_S, **fields: Any) -> Any:
        """The answer to a call that changes something. Raises as `read`."""
        return await self._call(method, fields, timeout_s, order=True)

    async def pages(self, method: str, **fields: Any) -> AsyncIterator[Any]:
        """All pages of a list."""
        after = 0
        while True:
            reply = await self.read(method, after=after, **fields)
            yield reply
            after = reply.next
            if not after:
                return

    async def stream(self, method: str, **fields: Any) -> AsyncIterator[Any]:
        """The answers to a call that has many, and changes nothing; it is made once, of the first server that takes it.
        Raises as `read`."""
        _require_grpc()
        request = _request(method, fields)
        for number, server in enumerate(self._servers):
            begun = False
            try:
                stub = await self._stub(server)
                async for reply in _answers(getattr(stub, method), request, bearer(self._read_token())):
                    begun = True
                    yield reply
                return
            except EmberError as error:
                await self._drop(server)
                if begun or error.retry is Retry.FINAL or number + 1 == len(self._servers):
                    raise

    async def _call(self, method: str, fields: dict[str, Any], timeout_s: float, *, order: bool) -> Any:
        _require_grpc()
        request = _request(method, fields)
        attempts = Attempts(timeout_s)
        failed: dict[Address, EmberError] = {}
        reason: EmberError | None = None
        """The newest answer of a server that said why not: worth more than the silence of a later try."""
        while True:
            server = self._servers[self._preferred]
            limit_s = attempts.left_s() if order else TRY_TIMEOUT_S
            try:
                stub = await self._stub(server)
                metadata = bearer(self._read_token())
                return await _answer(getattr(stub, method), request, attempts.try_s(limit_s), metadata)
            except EmberError as error:
                await self._drop(server)
                if error.retry is Retry.FINAL:
                    raise
                if order and error.retry is Retry.MAYBE_APPLIED:
                    text = f"{error.message}; whether it was done is not known: look before you ask again"
                    raise EmberError(error.code, text) from None
                if error.code is Code.INTERNAL and attempts.count + 1 >= INTERNAL_TRIES_MAX:
                    raise
                failed[server] = error
                if error.code not in _SILENT:
                    reason = error
                self._preferred = (self._preferred + 1) % len(self._servers)
                everywhere = len(failed) == len(self._servers)
                if everywhere and all(each.code is Code.UNREACHABLE for each in failed.values()):
                    raise
                if not await attempts.again(error, at_once=not everywhere):
                    raise reason or error from None

    async def _stub(self, server: Address) -> Any:
        from fs_common.control_pb2_grpc import AdministrationStub

        known = self._channels.get(server)
        if known is None:
            control = await self._control_of(server)
            known = self._channels[server] = (control, _channel(control, self._tls_ca))
            await _connected(*known)
        return AdministrationStub(known[1])

    async def _drop(self, server: Address) -> None:
        known = self._channels.pop(server, None)
        if known is not None:
            await known[1].close()

    async def close(self) -> None:
        for server in list(self._channels):
            await self._drop(server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def manager_of(fs: "AsyncFileSystem") -> ManagerApi:
    """The manager of a cluster that is connected. `fs` stays open for as long as it is used."""
    from fs_common.methods import GET_CONTROL
    from fs_common.records.control import GetControl, GetControlReply

    async def control_of(server: Address) -> Address:
        reply: GetControlReply = await fs.pool.call(server, GET_CONTROL, GetControl(), timeout=CONNECT_TIMEOUT_S)
        return Address(server.host, reply.port)

    return ManagerApi(fs.options.addresses, control_of, fs.options.read_token, fs.options.tls_ca)


def manager_at(control: Address, tls_ca: str = "", token: str = "") -> ManagerApi:
    """The manager whose control plane is known."""

    async def control_of(server: Address) -> Address:
        return server

    return ManagerApi([control], control_of, lambda: token, tls_ca)


class Administered:
    """`async with Administered("host:port") as api:` connects to a cluster, for a command that asks its manager.

    Raises `Usage` for an address that is none, `OSError` where nobody answers.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._fs: AsyncFileSystem | None = None
        self._api: ManagerApi | None = None

    async def __aenter__(self) -> ManagerApi:
        from fs_client import aio

        _require_grpc()
        try:
            self._fs = await aio.connect(self._cluster)
        except ValueError as error:
            raise Usage(str(error)) from None
        self._api = manager_of(self._fs)
        return self._api

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._api is not None and self._fs is not None
        await self._api.close()
        await self._fs.close()
        if isinstance(error, EmberError):
            raise Failure(error.message) from None


def has_grpc() -> bool:
    import importlib.util

    return importlib.util.find_spec("grpc") is not None


def _request(method: str, fields: dict[str, Any]) -> Any:
    """Raises `Usage`: what somebody has typed is no such number or text."""
    from fs_common import control_pb2

    kind = getattr(control_pb2, f"{method}Request")
    try:
        return kind(**fields)
    except ValueError:
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except ValueError:
                what = "is out of range" if isinstance(value, int) else "cannot be sent"
                raise Usage(f"{name.replace('_', ' ')} {value!r} {what}") from None
        raise


def _require_grpc() -> None:
    require_module("grpc", "server")
    # Its own lines on stderr are for those who debug it; failures come as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _channel(control: Address, tls_ca: str) -> Any:
    from fs_common.tls.control_plane import open_channel

    options = [
        ("grpc.max_receive_message_length", REPLY_BYTES_MAX),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return open_channel(str(control), options, client_tls(tls_ca))


async def _connected(control: Address, channel: Any) -> None:
    """Until the control plane is reached; what is sent before that is certainly not taken. Raises UNREACHABLE."""
    import asyncio

    import grpc

    broken = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in broken:
                    raise TimeoutError
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise EmberError(
            Code.UNREACHABLE,
            f"the metadata server answers, but its control plane cannot be reached at {control} (gRPC): let this "
            "machine connect to that port",
        ) from None


async def _answer(call: Any, request: Any, timeout_s: float, metadata: tuple[tuple[str, str], ...]) -> Any:
    import grpc.aio

    try:
        return await call(request, timeout=timeout_s, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        raise _of_grpc(error, timeout_s) from None


async def _answers(call: Any, request: Any, metadata: tuple[tuple[str, str], ...]) -> AsyncIterator[Any]:
    """Of a stream: without a limit of time, as nobody knows how long it is."""
    import grpc.aio

    try:
        async for reply in call(request, metadata=metadata):
            yield reply
    except grpc.aio.AioRpcError as error:
        raise _of_grpc(error, 0) from None


def _of_grpc(error: Any, timeout_s: float) -> EmberError:
    import grpc

    from fs_common.control_records import CODE_METADATA_KEY

    details = error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == CODE_METADATA_KEY:
            return EmberError(code_of(int(value)), details)
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return EmberError(Code.UNKNOWN_METHOD, "the metadata server is of an older release")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return EmberError(Code.TIMED_OUT, f"the manager has not answered within {timeout_s:.0f} s")
        case grpc.StatusCode.UNAVAILABLE:
            return EmberError(Code.PEER_GONE, f"the manager has gone away: {details}")
        case _:
            return EmberError(Code.INTERNAL, f"the manager: {details}")
