"""The administration's messages and records: one conversion each way (`fs_common/control_records.py` has the nodes').

Called by: the manager's gRPC service, and the command line. It needs protobuf.
"""

from fs_common import control_pb2 as pb
from fs_common.control_records import (
    chain_message,
    chain_record,
    config_report_message,
    config_report_record,
    node_message,
    node_record,
    state_of,
    sync_message,
    sync_record,
)
from fs_common.records.chains import ChainView, ListChainsReply, RotateChainReply, Standing, TargetView
from fs_common.records.cluster_config import ConfigVersion, Setting
from fs_common.records.routing import NodeInfo, PublicState
from fs_common.records.scrubbing import ScrubStatus
from fs_common.records.targets import ListMovesReply, ListNodesReply, MovesReply, MoveView, NodeView

# --- nodes ------------------------------------------------------------------------------------------------------------


def node_view_message(view: NodeView) -> pb.NodeStatus:
    """Without what the node says of its targets."""
    info = NodeInfo(
        view.node, view.host, view.port, view.state, view.capacity_bytes, view.used_bytes, view.release, view.drained
    )
    return pb.NodeStatus(
        node=node_message(info),
        silent_ms=view.silent_ms,
        routing_version=view.routing_version,
        target_count=view.targets,
        joining=view.joining,
        leaving=view.leaving,
        config=config_report_message(view.config),
    )


def node_view_record(message: pb.NodeStatus) -> NodeView:
    info = node_record(message.node)
    return NodeView(
        info.node,
        info.host,
        info.port,
        info.state,
        info.drained,
        message.target_count,
        message.joining,
        message.leaving,
        info.capacity_bytes,
        info.used_bytes,
        info.release,
        message.silent_ms,
        message.routing_version,
        config_report_record(message.config),
    )


def list_nodes_message(reply: ListNodesReply) -> pb.ListNodesReply:
    return pb.ListNodesReply(
        nodes=[node_view_message(node) for node in reply.nodes],
        next=reply.next,
        replicas=reply.replicas,
        targets_per_node=reply.targets_per_node,
        config_version=reply.config_version,
    )


def list_nodes_record(message: pb.ListNodesReply) -> ListNodesReply:
    return ListNodesReply(
        [node_view_record(node) for node in message.nodes],
        message.next,
        message.replicas,
        message.targets_per_node,
        message.config_version,
    )


# --- chains -----------------------------------------------------------------------------------------------------------


def target_view_message(target: TargetView) -> pb.TargetView:
    return pb.TargetView(
        target=target.target,
        node=target.node,
        state=int(target.state),
        standing=int(target.standing),
        reason=target.reason,
        used_bytes=target.used_bytes,
        sync=None if target.sync is None else sync_message(target.sync),
    )


def target_view_record(message: pb.TargetView) -> TargetView:
    return TargetView(
        message.target,
        message.node,
        state_of(PublicState, message.state, "target state"),
        state_of(Standing, message.standing, "standing of a target"),
        message.reason,
        message.used_bytes,
        sync_record(message.sync) if message.HasField("sync") else None,
    )


def list_chains_message(reply: ListChainsReply) -> pb.ListChainsReply:
    return pb.ListChainsReply(
        routing_version=reply.routing_version,
        chains=[
            pb.ChainView(
                chain=chain.chain,
                version=chain.version,
                targets=[target_view_message(target) for target in chain.targets],
            )
            for chain in reply.chains
        ],
        resting=reply.resting,
        next=reply.next,
    )


def list_chains_record(message: pb.ListChainsReply) -> ListChainsReply:
    return ListChainsReply(
        message.routing_version,
        [
            ChainView(chain.chain, chain.version, [target_view_record(target) for target in chain.targets])
            for chain in message.chains
        ],
        message.resting,
        message.next,
    )


def rotate_chain_message(reply: RotateChainReply) -> pb.RotateChainReply:
    return pb.RotateChainReply(chain=chain_message(reply.chain), given_up=reply.given_up, loses=reply.loses)


def rotate_chain_record(message: pb.RotateChainReply) -> RotateChainReply:
    return RotateChainReply(chain_record(message.chain), list(message.given_up), message.loses)


# --- moves ------------------------------------------------------------------------------------------------------------


def move_message(move: MoveView) -> pb.MoveView:
    return pb.MoveView(
        move=move.move,
        chain=move.chain,
        joins=move.joins,
        node=move.node,
        leaves=move.leaves,
        source=move.source,
        cause=move.cause,
        state=move.state,
        doing=move.doing,
        sync=None if move.sync is None else sync_message(move.sync),
    )


def move_record(message: pb.MoveView) -> MoveView:
    return MoveView(
        message.move,
        message.chain,
        message.joins,
        message.node,
        message.leaves,
        message.source,
        message.cause,
        message.state,
        message.doing,
        sync_record(message.sync) if message.HasField("sync") else None,
    )


def list_moves_message(reply: ListMovesReply) -> pb.ListMovesReply:
    return pb.ListMovesReply(moves=[move_message(move) for move in reply.moves], next=reply.next)


def list_moves_record(message: pb.ListMovesReply) -> ListMovesReply:
    return ListMovesReply([move_record(move) for move in message.moves], message.next)


def moves_message(reply: MovesReply) -> pb.MovesReply:
    return pb.MovesReply(
        moves=[move_message(move) for move in reply.moves],
        new_chains=[pb.NewChain(nodes=nodes) for nodes in reply.new_chains],
        least_moves=reply.least_moves,
        spread_before=reply.spread_before,
        spread_after=reply.spread_after,
        spread_possible=reply.spread_possible,
    )


def moves_record(message: pb.MovesReply) -> MovesReply:
    return MovesReply(
        [move_record(move) for move in message.moves],
        [list(chain.nodes) for chain in message.new_chains],
        message.least_moves,
        message.spread_before,
        message.spread_after,
        message.spread_possible,
    )


# --- scrubs -----------------------------------------------------------------------------------------------------------


def scrub_message(node: int, status: ScrubStatus) -> pb.ScrubView:
    return pb.ScrubView(
        target=status.target,
        node=node,
        chain=status.chain,
        number=status.number,
        running=status.running,
        began_s=status.began_s,
        ended_s=status.ended_s,
        chunks=status.chunks,
        chunks_total=status.chunks_total,
        bytes=status.bytes,
        repaired=status.repaired,
        not_compared=status.not_compared,
        damaged=status.damaged,
        differing=status.differing,
    )


# --- configuration ----------------------------------------------------------------------------------------------------


def config_version_message(version: ConfigVersion) -> pb.ConfigVersion:
    return pb.ConfigVersion(
        kind=version.kind,
        version=version.version,
        text=version.text,
        comment=version.comment,
        set_ms=version.set_ms,
    )


def config_version_record(message: pb.ConfigVersion) -> ConfigVersion:
    return ConfigVersion(message.kind, message.version, message.text, message.comment, message.set_ms)


def setting_message(setting: Setting) -> pb.Setting:
    return pb.Setting(
        key=setting.key,
        value=setting.value,
        built_in=setting.built_in,
        origin=setting.origin,
        live=setting.live,
        waiting=setting.waiting,
    )


def setting_record(message: pb.Setting) -> Setting:
    return Setting(message.key, message.value, message.built_in, message.origin, message.live, message.waiting)
