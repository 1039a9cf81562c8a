"""A node's side of the control plane: its heartbeat, its lease, the routing it follows.

Owns: two tasks (heartbeats, routing watch), each with a channel of its own that is made anew after a failure.

Invariants:

* `lease_valid()` is true only within `lease_ms` of the moment a heartbeat was SENT that the manager has answered. The
  clock is this machine's own and counts time asleep, so a machine that was suspended finds its lease over.
* The routing only goes forward.

A refused node (NODE_TAKEN: its id is in use; WRONG_CLUSTER; INVALID) keeps asking, more slowly, because what is in
the way may go; `wait_acknowledged` tells the reason at once where waiting cannot help.

Called by: storage daemons. Only servers import this module (it needs grpc). Page: `docs/concurrency/manager.md`.
"""

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import grpc.aio

from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.clocks import boottime_s
from fs_common.control_records import (
    CODE_METADATA_KEY,
    STORAGE_ROLE,
    config_report_message,
    pushed_config_record,
    routing_record,
    store_verdict,
    sync_message,
)
from fs_common.endless import keep
from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.limits import MIB
from fs_common.records.chains import SyncProgress
from fs_common.records.cluster_config import NO_REPORT, ConfigReport, PushedConfig
from fs_common.records.routing import LocalState, NodeState, Routing, StoreVerdict
from fs_common.release import RELEASE
from fs_common.security.bearer import bearer
from fs_common.security.keys import Key, KeyRing
from fs_common.tls.control_plane import open_channel
from fs_common.tls.files import TlsFiles

_log = logging.getLogger(__name__)

BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 1.0
"""Between two tries to reach a manager; halved at random, so that nodes do not come all at once."""
FIRST_LEASE_S = 5.0
"""How long an answer may take before the manager has told its lease."""
ROUTING_BYTES_MAX = 64 * MIB


class TargetStatus(NamedTuple):
    """What one target says of itself."""

    target: int
    state: LocalState
    used_bytes: int
    chain_version: int = 0
    """Of its chain as the target knows it."""
    store: bytes = b""
    """uuid of its store; b"": it is not open."""
    opening: int = 0
    incarnation: int = 0
    no_store: bool = False
    """Its directory is empty or not there."""
    position: int = 0
    """How far the store's log has come."""
    recovered: int = 0
    """The position with which it was opened."""
    whole: bool = True
    """Its store has everything that it ever acknowledged."""
    trouble: str = ""
    """One line: why it does not serve, and will not by itself."""
    sync: SyncProgress | None = None
    """Of its successor, which it fills up."""


class TargetVerdict(NamedTuple):
    """What is to become of a target's store."""

    target: int
    verdict: StoreVerdict
    opening: int
    """Of the report that is judged."""
    known_opening: int
    known_incarnation: int
    reason: str
    remove: bool = False
    """With RETIRE: the target is on no chain any more, and its id is not used again; its store is not needed."""


class Security(NamedTuple):
    """By what this node knows others, and is known by them."""

    ring: KeyRing
    revoked: frozenset[str]
    """Ids of tokens whose passes are void."""
    given_pass: bytes
    """The node's own."""

    def __repr__(self) -> str:
        return f"<security with {self.ring}, {len(self.revoked)} revoked tokens>"


class NodeStatus(NamedTuple):
    capacity_bytes: int
    used_bytes: int
    targets: Sequence[TargetStatus] = ()


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Which node of which cluster this process is."""

    cluster: str
    node: int
    host: str
    """Of the data plane, as other machines reach it."""
    port: int
    """Of the data plane; bound before the client starts."""
    cluster_uuid: bytes = b""
    """Of the cluster that the node's directory belongs to; b"": it has met no manager yet."""


class ManagerClient:
    """`start`, then `lease_valid`, `routing`; `leave` and `close` at the end. All on one event loop.

    `addresses`: control planes of the metadata servers, "host:port[,host:port...]", asked in turn.
    `status` is called for each heartbeat, on the loop. Where it raises there is no heartbeat, so no lease.
    """

    def __init__(
        self,
        addresses: str,
        who: NodeAddress,
        status: Callable[[], NodeStatus],
        clock: Callable[[], float] = boottime_s,
        keep_cluster: Callable[[bytes], None] = lambda uuid: None,
        tls: TlsFiles | None = None,
        token: Callable[[], str] = lambda: "",
    ) -> None:
        """`token`: what the node is known by; asked for each conversation. "": by nothing. Raises `EmberError`.

        `keep_cluster`: called once, with the uuid of the cluster of the first manager met: the node belongs to it,
        durably on return. Raises `OSError`."""
        self._addresses = [address.strip() for address in addresses.split(",") if address.strip()]
        if not self._addresses:
            raise EmberError(Code.INVALID, "manager: no address; expected host:port")
        self._identity = pb.NodeIdentity(
            cluster=who.cluster,
            node=who.node,
            role=STORAGE_ROLE,
            host=who.host,
            port=who.port,
            release=RELEASE,
            incarnation=int.from_bytes(os.urandom(8), "big") | 1,
            cluster_uuid=who.cluster_uuid,
        )
        self._keep_cluster = keep_cluster
        self._tls = tls
        self._token = token
        self._security_version = 0
        """Of what the manager has told; 0 until it has, on each stream."""
        self._status = status
        self._clock = clock
        self._lease_until_s = float("-inf")
        self._lease_s = 0.0
        """The lease's length, as the manager said last; 0 before it has."""
        self._interval_s = BACKOFF_S_MAX
        self._routing: Routing | None = None
        self._callbacks: list[Callable[[Routing], None]] = []
        self._judge: Callable[[list[TargetVerdict]], None] = lambda verdicts: None
        self._config_report: Callable[[], ConfigReport] = lambda: NO_REPORT
        self._take_config: Callable[[PushedConfig], None] = lambda pushed: None
        self._secure: Callable[[Security | None], None] = lambda security: None
        self._failure: EmberError | None = None
        """Why the last try failed; None while heartbeats are answered."""
        self.beats_answered = 0
        self.beats_failed = 0
        """Tries that ended without an answer."""
        self._turned = asyncio.Event()
        """Set, and replaced, when a heartbeat was answered or failed."""
        self._nudged = asyncio.Event()
        self.dismissed = asyncio.Event()
        """Set when the manager says that this process has left, though it lives: it serves nothing any more, and should
        end, so that it is started anew."""
        self._tasks: list[asyncio.Task[None]] = []

    # --- what the node asks ----------------------------------------------------------------------------------

    def lease_valid(self) -> bool:
        """Whether this node's targets may serve now."""
        return self._clock() < self._lease_until_s

    @property
    def lease_left_s(self) -> float:
        """Seconds the lease has left; 0 when it is over."""
        return max(0.0, self._lease_until_s - self._clock())

    @property
    def heartbeat_age_s(self) -> float:
        """Since the last heartbeat was sent that was answered; infinity: none was."""
        return self._clock() - (self._lease_until_s - self._lease_s)

    @property
    def incarnation(self) -> int:
        return int(self._identity.incarnation)

    @property
    def routing(self) -> Routing | None:
        """The newest known; None before the first answer."""
        return self._routing

    def on_routing(self, callback: Callable[[Routing], None]) -> None:
        """Call `callback` for each newer routing, on the loop, and now if there is one. It must not raise."""
        self._callbacks.append(callback)
        if self._routing is not None:
            callback(self._routing)

    def on_verdicts(self, callback: Callable[[list[TargetVerdict]], None]) -> None:
        """Call `callback` with the verdicts on the stores of each heartbeat, on the loop. It must not raise."""
        self._judge = callback

    def follow_config(self, report: Callable[[], ConfigReport], take: Callable[[PushedConfig], None]) -> None:
        """Say with each heartbeat what `report` says, and call `take`, on the loop, with a version of the cluster's
        configuration that is another than that. Neither may raise; the next report is of that version."""
        self._config_report, self._take_config = report, take

    def on_security(self, callback: Callable[[Security | None], None]) -> None:
        """Call `callback` with what the manager says of security, when that changes, on the loop, before anything else
        that it says; None: it is off. It must not raise."""
        self._secure = callback

    def nudge(self) -> None:
        """Send a heartbeat now: the node's status has changed."""
        self._nudged.set()

    async def wait_acknowledged(self, timeout_s: float) -> None:
        """Until the node is registered and holds a lease.

        Raises what stands in the way: at once if it is final (WRONG_CLUSTER, INVALID, ...), else after `timeout_s`
        (NODE_TAKEN, UNREACHABLE, ...).
        """
        deadline_s = self._clock() + timeout_s
        while not self.lease_valid():
            if self._failure is not None and self._failure.retry is Retry.FINAL:
                raise self._failure
            try:
                async with asyncio.timeout(max(deadline_s - self._clock(), 0)):
                    await self._turned.wait()
            except TimeoutError:
                raise self._failure or EmberError(
                    Code.TIMED_OUT, f"no manager has answered at {','.join(self._addresses)}"
                ) from None

    # --- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send heartbeats and to follow the routing."""
        self._tasks = [
            keep(lambda: self._converse(self._heartbeats, "heartbeats"), "manager heartbeats", end_on=()),
            keep(lambda: self._converse(self._watch, "routing watch"), "manager routing watch", end_on=()),
        ]

    async def leave(self, timeout_s: float = 2.0) -> None:
        """Stop, and say goodbye; the lease is over from here on. A manager that cannot be reached is not waited for."""
        await self.close()
        for address in self._addresses:
            async with _channel(address, self._tls) as channel:
                try:
                    metadata = bearer(self._token())
                except EmberError:
                    return
                call = control_pb2_grpc.ManagerStub(channel).Heartbeat(timeout=timeout_s, metadata=metadata)
                goodbye = pb.HeartbeatRequest(identity=self._identity, sequence=1, leaving=True)
                try:
                    await call.write(goodbye)
                    if await call.read() is not grpc.aio.EOF:
                        return
                    error = await _status_of(call, address)
                except grpc.aio.AioRpcError as failure:
                    error = _as_ember_error(failure, address)
                except asyncio.InvalidStateError:  # it was over before the write
                    error = await _status_of(call, address)
                finally:
                    call.cancel()
                _log.warning("the manager did not take the goodbye: %s", error)

    async def close(self) -> None:
        """Stop without a word: the manager sees the node as failed. Gives the lease up."""
        self._lease_until_s = float("-inf")
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- the tasks -------------------------------------------------------------------------------------------

    async def _converse(self, conversation: Callable[[str], Any], what: str) -> None:
        """Hold a conversation with one manager after another, until cancelled."""
        backoff_s = BACKOFF_S_MIN
        turn = 0
        told: Code | None = None
        while True:
            address = self._addresses[turn % len(self._addresses)]
            turn += 1
            answered = False
            try:
                answered = await conversation(address)
                told = None
            except EmberError as error:
                if error.code is not told:  # one line for a manager that is away, not one for each try
                    _log.warning("%s: %s", what, str(error))
                told = error.code
            backoff_s = BACKOFF_S_MIN if answered else min(backoff_s * 2, BACKOFF_S_MAX)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))

    async def _heartbeats(self, address: str) -> bool:
        """One stream of heartbeats, each sent once the one before is answered. Ends by an error only."""
        sequence = 0
        self._security_version = 0
        try:
            async with _channel(address, self._tls) as channel:
                call = control_pb2_grpc.ManagerStub(channel).Heartbeat(metadata=bearer(self._token()))
                try:
                    while True:
                        sequence += 1
                        self._nudged.clear()
                        await self._beat(call, sequence, address)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(self._interval_s):
                                await self._nudged.wait()
                finally:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            failure = _as_ember_error(error, address)
        except EmberError as error:
            failure = error
        if failure.code is Code.NODE_UNKNOWN:
            self.dismissed.set()
        self._failure = failure
        self.beats_failed += 1
        self._turn()
        if sequence > 1:
            _log.warning("heartbeats: %s", str(failure))
            return True
        raise failure

    async def _beat(self, call: Any, sequence: int, address: str) -> None:
        """One heartbeat and its answer."""
        status = self._status()
        sent_s = self._clock()  # before it is made: the lease must not count from later than it was sent
        request = pb.HeartbeatRequest(
            identity=self._identity,
            sequence=sequence,
            sent_ms=int(sent_s * 1000),
            capacity_bytes=status.capacity_bytes,
            used_bytes=status.used_bytes,
            targets=[
                pb.TargetReport(
                    target=target.target,
                    state=int(target.state),
                    used_bytes=target.used_bytes,
                    chain_version=target.chain_version,
                    store=target.store,
                    opening=target.opening,
                    incarnation=target.incarnation,
                    no_store=target.no_store,
                    position=target.position,
                    recovered=target.recovered,
                    not_whole=not target.whole,
                    trouble=target.trouble,
                    sync=None if target.sync is None else sync_message(target.sync),
                )
                for target in status.targets
            ],
            routing_version=self._routing.version if self._routing is not None else 0,
            config=None if (report := self._config_report()) is NO_REPORT else config_report_message(report),
            security_version=self._security_version,
        )
        try:
            # An answer later than the lease is worth nothing; half of it leaves time for another manager.
            async with asyncio.timeout(self._lease_s / 2 or FIRST_LEASE_S):
                await call.write(request)
                reply = await call.read()
        except TimeoutError:
            raise EmberError(Code.TIMED_OUT, f"manager {address} does not answer heartbeats") from None
        except asyncio.InvalidStateError:
            reply = grpc.aio.EOF  # the call was over before the write: its status says why
        if reply is grpc.aio.EOF:
            raise await _status_of(call, address)
        if reply.sequence != sequence:
            raise EmberError(Code.BAD_BODY, f"manager {address} answered heartbeat {reply.sequence}, not {sequence}")
        if reply.cluster_uuid != self._identity.cluster_uuid:
            self._meet(reply.cluster_uuid, address)
        if reply.security_version != self._security_version or sequence == 1:
            self._secure(_security(reply))
            self._security_version = reply.security_version
        self._lease_s = reply.lease_ms / 1000
        self._interval_s = reply.heartbeat_interval_ms / 1000
        self._lease_until_s = max(self._lease_until_s, sent_s + self._lease_s)
        self._failure = None
        self.beats_answered += 1
        if reply.HasField("routing"):
            self._learn(routing_record(reply.routing))
        if reply.verdicts:
            self._judge([_verdict(message) for message in reply.verdicts])
        if reply.HasField("config"):
            self._take_config(pushed_config_record(reply.config))
            self.nudge()
        self._turn()

    def _meet(self, cluster_uuid: bytes, address: str) -> None:
        """The manager is of a cluster that this node does not belong to, or not yet."""
        ours = self._identity.cluster_uuid
        if ours:
            raise EmberError(
                Code.WRONG_CLUSTER,
                f"manager {address} is of another cluster ({cluster_uuid.hex() or 'without a uuid'}) than this node's "
                f"data ({ours.hex()}): name the right manager, or restore its metadata store",
            )
        try:
            self._keep_cluster(cluster_uuid)
        except OSError as error:
            raise EmberError(
                Code.DISK_FAILED, f"the node's directory cannot be written: {error.strerror or error}"
            ) from error
        self._identity.cluster_uuid = cluster_uuid

    async def _watch(self, address: str) -> bool:
        """One stream of routing. Ends when the manager ends it."""
        answered = False
        try:
            async with _channel(address, self._tls) as channel:
                known = self._routing.version if self._routing is not None else 0
                call = control_pb2_grpc.ManagerStub(channel).WatchRouting(
                    pb.WatchRoutingRequest(known_version=known, cluster=self._identity.cluster),
                    metadata=bearer(self._token()),
                )
                try:
                    async for message in call:
                        answered = True
                        self._learn(routing_record(message))
                finally:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            if not answered:
                raise _as_ember_error(error, address) from error
        return answered

    def _learn(self, routing: Routing) -> None:
        if self._routing is None or routing.version > self._routing.version:
            if self._routing is not None and _somebody_is_gone(self._routing, routing):
                self.nudge()  # chains go on with those only that are heard after that
            self._routing = routing
            for callback in self._callbacks:
                callback(routing)

    def _turn(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()


async def pull_config(
    addresses: str,
    cluster: str,
    kind: str,
    timeout_s: float,
    tls: TlsFiles | None = None,
    token: Callable[[], str] = lambda: "",
) -> PushedConfig | None:
    """The cluster's configuration for daemons of a kind, before one of them starts; None: no manager has told it."""
    try:
        metadata = bearer(token())
        async with asyncio.timeout(timeout_s):
            for address in addresses.split(","):
                async with _channel(address.strip(), tls) as channel:
                    try:
                        request = pb.PullConfigRequest(cluster=cluster, kind=kind)
                        stub = control_pb2_grpc.ManagerStub(channel)
                        return pushed_config_record(await stub.PullConfig(request, metadata=metadata))
                    except grpc.aio.AioRpcError as error:
                        _log.debug("the configuration is not known of %s: %s", address, error.details())
    except EmberError as error:
        _log.debug("the configuration is not known: %s", error.message)
    except TimeoutError:
        _log.debug("the configuration is not known: no manager has answered within %s s", timeout_s)
    return None


def _somebody_is_gone(old: Routing, new: Routing) -> bool:
    """Whether a node has failed or left in between."""
    up = {node.node for node in old.nodes if node.state is NodeState.UP}
    return any(node.node in up and node.state is not NodeState.UP for node in new.nodes)


def _security(reply: Any) -> Security | None:
    """Raises BAD_BODY."""
    if not reply.security_version:
        return None
    told = reply.security
    try:
        ring = KeyRing([Key(key.id, key.secret) for key in told.keys])
    except ValueError as error:
        raise EmberError(Code.BAD_BODY, f"the manager's keys are none: {error}") from None
    if not ring.keys:
        raise EmberError(Code.BAD_BODY, "the manager says that security is on, and tells no key")
    return Security(ring, frozenset(told.revoked), told.given_pass)


def _verdict(message: Any) -> TargetVerdict:
    return TargetVerdict(
        message.target,
        store_verdict(message.verdict),
        message.opening,
        message.known_opening,
        message.known_incarnation,
        message.reason,
        message.remove,
    )


def _channel(address: str, tls: TlsFiles | None) -> Any:
    """A channel that fails at once instead of waiting: the caller has its own backoff and its own next address."""
    options = [
        ("grpc.max_receive_message_length", ROUTING_BYTES_MAX),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # a new channel tries now, whatever the one before has seen
    ]
    return open_channel(address, options, tls)


async def _status_of(call: Any, address: str) -> EmberError:
    """Why a stream that gives no more answers has ended."""
    code = await call.code()
    metadata = await call.trailing_metadata()
    return _ember_error(code, await call.details(), metadata, address)


def _as_ember_error(error: Any, address: str) -> EmberError:
    return _ember_error(error.code(), error.details(), error.trailing_metadata(), address)


def _ember_error(status: Any, details: str | None, metadata: Any, address: str) -> EmberError:
    for key, value in metadata or ():
        if key == CODE_METADATA_KEY:
            return EmberError(code_of(int(value)), f"manager {address}: {details}")
    if status is grpc.StatusCode.OK:
        return EmberError(Code.CLOSING, f"manager {address} ended the stream")
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return EmberError(Code.TIMED_OUT, f"manager {address} does not answer")
    return EmberError(Code.UNREACHABLE, f"manager {address} cannot be reached: {details}")
