"""The control plane's messages and the data plane's records: one conversion each way.

The enums of both have the same numbers (checked at import), so a state converts by its value. A message is data
from outside: what is no valid record raises `EmberError` INVALID naming the field.

Called by: the manager's gRPC service and its client. A client that only reads and writes files imports
none of this (it needs protobuf).
"""

import enum
from typing import Any, TypeVar

from fs_common import control_pb2 as pb
from fs_common.checks import check
from fs_common.errors import Code, EmberError
from fs_common.records.chains import Standing, SyncProgress
from fs_common.records.cluster_config import ConfigReport, ConfigStatus, PushedConfig
from fs_common.records.routing import (
    Chain,
    ChainTable,
    ChainTarget,
    LocalState,
    NodeInfo,
    NodeState,
    PublicState,
    Routing,
    StoreVerdict,
)

CODE_METADATA_KEY = "ember-code"
"""Trailing metadata of a failed call: the number of its row of the error table."""
STORAGE_ROLE = "storage"
"""The only role that registers: metadata servers meet in their store."""

_State = TypeVar("_State", bound=enum.IntEnum)


def routing_message(routing: Routing) -> pb.Routing:
    return pb.Routing(
        version=routing.version,
        cluster=routing.cluster,
        nodes=[node_message(node) for node in routing.nodes],
        chains=[chain_message(chain) for chain in routing.chains],
        tables=[
            pb.ChainTable(table=table.table, version=table.version, chains=table.chains) for table in routing.tables
        ],
        replicas=routing.replicas,
    )


def chain_message(chain: Chain) -> pb.Chain:
    return pb.Chain(
        chain=chain.chain,
        version=chain.version,
        targets=[
            pb.ChainTarget(target=target.target, node=target.node, state=int(target.state)) for target in chain.targets
        ],
    )


def routing_record(message: pb.Routing) -> Routing:
    return Routing(
        version=message.version,
        cluster=message.cluster,
        nodes=[node_record(node) for node in message.nodes],
        chains=[chain_record(chain) for chain in message.chains],
        tables=[ChainTable(table.table, table.version, list(table.chains)) for table in message.tables],
        replicas=message.replicas,
    )


def node_message(node: NodeInfo) -> pb.Node:
    return pb.Node(
        node=node.node,
        host=node.host,
        port=node.port,
        state=int(node.state),
        capacity_bytes=node.capacity_bytes,
        used_bytes=node.used_bytes,
        release=node.release,
        drained=node.drained,
    )


def node_record(message: pb.Node) -> NodeInfo:
    return NodeInfo(
        node=message.node,
        host=message.host,
        port=message.port,
        state=state_of(NodeState, message.state, "node state"),
        capacity_bytes=message.capacity_bytes,
        used_bytes=message.used_bytes,
        release=message.release,
        drained=message.drained,
    )


def sync_message(progress: SyncProgress) -> pb.SyncProgress:
    return pb.SyncProgress(
        target=progress.target,
        chunks_done=progress.chunks_done,
        chunks_total=progress.chunks_total,
        chunks_sent=progress.chunks_sent,
        bytes_sent=progress.bytes_sent,
        began_ms=progress.began_ms,
    )


def sync_record(message: pb.SyncProgress) -> SyncProgress:
    return SyncProgress(
        message.target,
        message.chunks_done,
        message.chunks_total,
        message.chunks_sent,
        message.bytes_sent,
        message.began_ms,
    )


def chain_record(message: pb.Chain) -> Chain:
    return Chain(
        message.chain,
        message.version,
        [
            ChainTarget(target.target, target.node, state_of(PublicState, target.state, "target state"))
            for target in message.targets
        ],
    )


def config_report_message(report: ConfigReport) -> pb.ConfigReport:
    return pb.ConfigReport(
        version=report.version,
        status=int(report.status),
        reason=report.reason,
        waiting=report.waiting,
        own=report.own,
    )


def config_report_record(message: pb.ConfigReport) -> ConfigReport:
    """A node that says nothing of its configuration is UNKNOWN."""
    status = state_of(ConfigStatus, message.status or int(ConfigStatus.UNKNOWN), "status of a configuration")
    return ConfigReport(message.version, status, message.reason, list(message.waiting), message.own)


def pushed_config_message(pushed: PushedConfig) -> pb.PushedConfig:
    return pb.PushedConfig(version=pushed.version, text=pushed.text)


def pushed_config_record(message: pb.PushedConfig) -> PushedConfig:
    return PushedConfig(message.version, message.text)


def local_state(number: int) -> LocalState:
    return state_of(LocalState, number, "local state of a target")


def store_verdict(number: int) -> StoreVerdict:
    return state_of(StoreVerdict, number, "verdict on a store")


def state_of(kind: type[_State], number: int, field: str) -> _State:
    """The state of this number. Raises INVALID for one that is none."""
    try:
        return kind(number)
    except ValueError:
        raise EmberError(Code.INVALID, f"{field} {number} is none this release knows") from None


def _check_same_numbers(ours: type[enum.IntEnum], theirs: Any, prefix: str) -> None:
    expected = {prefix + "UNSPECIFIED": 0} | {prefix + member.name: int(member) for member in ours}
    check(dict(theirs.items()) == expected, "control.proto and the records number their states alike", prefix)


_check_same_numbers(NodeState, pb.NodeState, "NODE_STATE_")
_check_same_numbers(PublicState, pb.PublicState, "PUBLIC_STATE_")
_check_same_numbers(LocalState, pb.LocalState, "LOCAL_STATE_")
_check_same_numbers(Standing, pb.Standing, "STANDING_")
_check_same_numbers(ConfigStatus, pb.ConfigStatus, "CONFIG_STATUS_")
_check_same_numbers(StoreVerdict, pb.StoreVerdict, "STORE_VERDICT_")
