from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_UP: _ClassVar[NodeState]
    NODE_STATE_FAILED: _ClassVar[NodeState]
    NODE_STATE_LEFT: _ClassVar[NodeState]

class PublicState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUBLIC_STATE_UNSPECIFIED: _ClassVar[PublicState]
    PUBLIC_STATE_SERVING: _ClassVar[PublicState]
    PUBLIC_STATE_LASTSRV: _ClassVar[PublicState]
    PUBLIC_STATE_SYNCING: _ClassVar[PublicState]
    PUBLIC_STATE_WAITING: _ClassVar[PublicState]
    PUBLIC_STATE_OFFLINE: _ClassVar[PublicState]

class LocalState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOCAL_STATE_UNSPECIFIED: _ClassVar[LocalState]
    LOCAL_STATE_UPTODATE: _ClassVar[LocalState]
    LOCAL_STATE_ONLINE: _ClassVar[LocalState]
    LOCAL_STATE_OFFLINE: _ClassVar[LocalState]
    LOCAL_STATE_OPENING: _ClassVar[LocalState]

class StoreVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STORE_VERDICT_UNSPECIFIED: _ClassVar[StoreVerdict]
    STORE_VERDICT_FORMAT: _ClassVar[StoreVerdict]
    STORE_VERDICT_SERVE: _ClassVar[StoreVerdict]
    STORE_VERDICT_FOREIGN: _ClassVar[StoreVerdict]
    STORE_VERDICT_ROLLED_BACK: _ClassVar[StoreVerdict]
    STORE_VERDICT_RETIRE: _ClassVar[StoreVerdict]

class Standing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STANDING_UNSPECIFIED: _ClassVar[Standing]
    STANDING_ABLE: _ClassVar[Standing]
    STANDING_LACKING: _ClassVar[Standing]
    STANDING_HELD: _ClassVar[Standing]
    STANDING_DEAD: _ClassVar[Standing]

class ConfigStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFIG_STATUS_UNSPECIFIED: _ClassVar[ConfigStatus]
    CONFIG_STATUS_NORMAL: _ClassVar[ConfigStatus]
    CONFIG_STATUS_DIRTY: _ClassVar[ConfigStatus]
    CONFIG_STATUS_FAILED: _ClassVar[ConfigStatus]
    CONFIG_STATUS_STALE: _ClassVar[ConfigStatus]
    CONFIG_STATUS_UNKNOWN: _ClassVar[ConfigStatus]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_UP: NodeState
NODE_STATE_FAILED: NodeState
NODE_STATE_LEFT: NodeState
PUBLIC_STATE_UNSPECIFIED: PublicState
PUBLIC_STATE_SERVING: PublicState
PUBLIC_STATE_LASTSRV: PublicState
PUBLIC_STATE_SYNCING: PublicState
PUBLIC_STATE_WAITING: PublicState
PUBLIC_STATE_OFFLINE: PublicState
LOCAL_STATE_UNSPECIFIED: LocalState
LOCAL_STATE_UPTODATE: LocalState
LOCAL_STATE_ONLINE: LocalState
LOCAL_STATE_OFFLINE: LocalState
LOCAL_STATE_OPENING: LocalState
STORE_VERDICT_UNSPECIFIED: StoreVerdict
STORE_VERDICT_FORMAT: StoreVerdict
STORE_VERDICT_SERVE: StoreVerdict
STORE_VERDICT_FOREIGN: StoreVerdict
STORE_VERDICT_ROLLED_BACK: StoreVerdict
STORE_VERDICT_RETIRE: StoreVerdict
STANDING_UNSPECIFIED: Standing
STANDING_ABLE: Standing
STANDING_LACKING: Standing
STANDING_HELD: Standing
STANDING_DEAD: Standing
CONFIG_STATUS_UNSPECIFIED: ConfigStatus
CONFIG_STATUS_NORMAL: ConfigStatus
CONFIG_STATUS_DIRTY: ConfigStatus
CONFIG_STATUS_FAILED: ConfigStatus
CONFIG_STATUS_STALE: ConfigStatus
CONFIG_STATUS_UNKNOWN: ConfigStatus

class NodeIdentity(_message.Message):
    __slots__ = ("cluster", "node", "role", "host", "port", "release", "incarnation", "cluster_uuid")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_UUID_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    node: int
    role: str
    host: str
    port: int
    release: str
    incarnation: int
    cluster_uuid: bytes
    def __init__(self, cluster: _Optional[str] = ..., node: _Optional[int] = ..., role: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., release: _Optional[str] = ..., incarnation: _Optional[int] = ..., cluster_uuid: _Optional[bytes] = ...) -> None: ...

class TargetReport(_message.Message):
    __slots__ = ("target", "state", "used_bytes", "chain_version", "store", "opening", "incarnation", "no_store", "position", "recovered", "not_whole", "sync", "trouble")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NO_STORE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    NOT_WHOLE_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    target: int
    state: LocalState
    used_bytes: int
    chain_version: int
    store: bytes
    opening: int
    incarnation: int
    no_store: bool
    position: int
    recovered: int
    not_whole: bool
    sync: SyncProgress
    trouble: str
    def __init__(self, target: _Optional[int] = ..., state: _Optional[_Union[LocalState, str]] = ..., used_bytes: _Optional[int] = ..., chain_version: _Optional[int] = ..., store: _Optional[bytes] = ..., opening: _Optional[int] = ..., incarnation: _Optional[int] = ..., no_store: bool = ..., position: _Optional[int] = ..., recovered: _Optional[int] = ..., not_whole: bool = ..., sync: _Optional[_Union[SyncProgress, _Mapping]] = ..., trouble: _Optional[str] = ...) -> None: ...

class SyncProgress(_message.Message):
    __slots__ = ("target", "chunks_done", "chunks_total", "chunks_sent", "bytes_sent", "began_ms")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_DONE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    BEGAN_MS_FIELD_NUMBER: _ClassVar[int]
    target: int
    chunks_done: int
    chunks_total: int
    chunks_sent: int
    bytes_sent: int
    began_ms: int
    def __init__(self, target: _Optional[int] = ..., chunks_done: _Optional[int] = ..., chunks_total: _Optional[int] = ..., chunks_sent: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., began_ms: _Optional[int] = ...) -> None: ...

class TargetVerdict(_message.Message):
    __slots__ = ("target", "verdict", "opening", "known_opening", "known_incarnation", "reason", "remove")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    KNOWN_OPENING_FIELD_NUMBER: _ClassVar[int]
    KNOWN_INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    target: int
    verdict: StoreVerdict
    opening: int
    known_opening: int
    known_incarnation: int
    reason: str
    remove: bool
    def __init__(self, target: _Optional[int] = ..., verdict: _Optional[_Union[StoreVerdict, str]] = ..., opening: _Optional[int] = ..., known_opening: _Optional[int] = ..., known_incarnation: _Optional[int] = ..., reason: _Optional[str] = ..., remove: bool = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("identity", "sequence", "sent_ms", "capacity_bytes", "used_bytes", "targets", "routing_version", "leaving", "config", "security_version")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SECURITY_VERSION_FIELD_NUMBER: _ClassVar[int]
    identity: NodeIdentity
    sequence: int
    sent_ms: int
    capacity_bytes: int
    used_bytes: int
    targets: _containers.RepeatedCompositeFieldContainer[TargetReport]
    routing_version: int
    leaving: bool
    config: ConfigReport
    security_version: int
    def __init__(self, identity: _Optional[_Union[NodeIdentity, _Mapping]] = ..., sequence: _Optional[int] = ..., sent_ms: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[TargetReport, _Mapping]]] = ..., routing_version: _Optional[int] = ..., leaving: bool = ..., config: _Optional[_Union[ConfigReport, _Mapping]] = ..., security_version: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("sequence", "sent_ms", "lease_ms", "heartbeat_interval_ms", "routing", "config", "verdicts", "cluster_uuid", "security_version", "security")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_UUID_FIELD_NUMBER: _ClassVar[int]
    SECURITY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SECURITY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    sent_ms: int
    lease_ms: int
    heartbeat_interval_ms: int
    routing: Routing
    config: PushedConfig
    verdicts: _containers.RepeatedCompositeFieldContainer[TargetVerdict]
    cluster_uuid: bytes
    security_version: int
    security: Security
    def __init__(self, sequence: _Optional[int] = ..., sent_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ..., heartbeat_interval_ms: _Optional[int] = ..., routing: _Optional[_Union[Routing, _Mapping]] = ..., config: _Optional[_Union[PushedConfig, _Mapping]] = ..., verdicts: _Optional[_Iterable[_Union[TargetVerdict, _Mapping]]] = ..., cluster_uuid: _Optional[bytes] = ..., security_version: _Optional[int] = ..., security: _Optional[_Union[Security, _Mapping]] = ...) -> None: ...

class Security(_message.Message):
    __slots__ = ("keys", "revoked", "given_pass")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    GIVEN_PASS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[PassKey]
    revoked: _containers.RepeatedScalarFieldContainer[str]
    given_pass: bytes
    def __init__(self, keys: _Optional[_Iterable[_Union[PassKey, _Mapping]]] = ..., revoked: _Optional[_Iterable[str]] = ..., given_pass: _Optional[bytes] = ...) -> None: ...

class PassKey(_message.Message):
    __slots__ = ("id", "secret")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    id: int
    secret: bytes
    def __init__(self, id: _Optional[int] = ..., secret: _Optional[bytes] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node", "host", "port", "state", "capacity_bytes", "used_bytes", "release", "drained")
    NODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    node: int
    host: str
    port: int
    state: NodeState
    capacity_bytes: int
    used_bytes: int
    release: str
    drained: bool
    def __init__(self, node: _Optional[int] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., state: _Optional[_Union[NodeState, str]] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., release: _Optional[str] = ..., drained: bool = ...) -> None: ...

class ChainTarget(_message.Message):
    __slots__ = ("target", "node", "state")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    target: int
    node: int
    state: PublicState
    def __init__(self, target: _Optional[int] = ..., node: _Optional[int] = ..., state: _Optional[_Union[PublicState, str]] = ...) -> None: ...

class Chain(_message.Message):
    __slots__ = ("chain", "version", "targets")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    chain: int
    version: int
    targets: _containers.RepeatedCompositeFieldContainer[ChainTarget]
    def __init__(self, chain: _Optional[int] = ..., version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[ChainTarget, _Mapping]]] = ...) -> None: ...

class ChainTable(_message.Message):
    __slots__ = ("table", "version", "chains")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    table: int
    version: int
    chains: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, table: _Optional[int] = ..., version: _Optional[int] = ..., chains: _Optional[_Iterable[int]] = ...) -> None: ...

class Routing(_message.Message):
    __slots__ = ("version", "cluster", "nodes", "chains", "tables", "replicas")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    version: int
    cluster: str
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    chains: _containers.RepeatedCompositeFieldContainer[Chain]
    tables: _containers.RepeatedCompositeFieldContainer[ChainTable]
    replicas: int
    def __init__(self, version: _Optional[int] = ..., cluster: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., chains: _Optional[_Iterable[_Union[Chain, _Mapping]]] = ..., tables: _Optional[_Iterable[_Union[ChainTable, _Mapping]]] = ..., replicas: _Optional[int] = ...) -> None: ...

class WatchRoutingRequest(_message.Message):
    __slots__ = ("known_version", "cluster")
    KNOWN_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    known_version: int
    cluster: str
    def __init__(self, known_version: _Optional[int] = ..., cluster: _Optional[str] = ...) -> None: ...

class GetRoutingRequest(_message.Message):
    __slots__ = ("known_version",)
    KNOWN_VERSION_FIELD_NUMBER: _ClassVar[int]
    known_version: int
    def __init__(self, known_version: _Optional[int] = ...) -> None: ...

class GetRoutingReply(_message.Message):
    __slots__ = ("routing",)
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    routing: Routing
    def __init__(self, routing: _Optional[_Union[Routing, _Mapping]] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("after", "limit", "reports")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    reports: bool
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ..., reports: bool = ...) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("nodes", "next", "replicas", "targets_per_node", "config_version")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    next: int
    replicas: int
    targets_per_node: int
    config_version: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., next: _Optional[int] = ..., replicas: _Optional[int] = ..., targets_per_node: _Optional[int] = ..., config_version: _Optional[int] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: int
    def __init__(self, node: _Optional[int] = ...) -> None: ...

class ForgetNodeRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: int
    def __init__(self, node: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "silent_ms", "routing_version", "targets", "target_count", "joining", "leaving", "config")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    TARGET_COUNT_FIELD_NUMBER: _ClassVar[int]
    JOINING_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    node: Node
    silent_ms: int
    routing_version: int
    targets: _containers.RepeatedCompositeFieldContainer[TargetReport]
    target_count: int
    joining: int
    leaving: int
    config: ConfigReport
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., silent_ms: _Optional[int] = ..., routing_version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[TargetReport, _Mapping]]] = ..., target_count: _Optional[int] = ..., joining: _Optional[int] = ..., leaving: _Optional[int] = ..., config: _Optional[_Union[ConfigReport, _Mapping]] = ...) -> None: ...

class TargetView(_message.Message):
    __slots__ = ("target", "node", "state", "standing", "reason", "used_bytes", "sync")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    target: int
    node: int
    state: PublicState
    standing: Standing
    reason: str
    used_bytes: int
    sync: SyncProgress
    def __init__(self, target: _Optional[int] = ..., node: _Optional[int] = ..., state: _Optional[_Union[PublicState, str]] = ..., standing: _Optional[_Union[Standing, str]] = ..., reason: _Optional[str] = ..., used_bytes: _Optional[int] = ..., sync: _Optional[_Union[SyncProgress, _Mapping]] = ...) -> None: ...

class ChainView(_message.Message):
    __slots__ = ("chain", "version", "targets")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    chain: int
    version: int
    targets: _containers.RepeatedCompositeFieldContainer[TargetView]
    def __init__(self, chain: _Optional[int] = ..., version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[TargetView, _Mapping]]] = ...) -> None: ...

class ListChainsRequest(_message.Message):
    __slots__ = ("chains", "degraded", "node", "after", "limit")
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    chains: _containers.RepeatedScalarFieldContainer[int]
    degraded: bool
    node: int
    after: int
    limit: int
    def __init__(self, chains: _Optional[_Iterable[int]] = ..., degraded: bool = ..., node: _Optional[int] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListChainsReply(_message.Message):
    __slots__ = ("routing_version", "chains", "resting", "next")
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    RESTING_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    routing_version: int
    chains: _containers.RepeatedCompositeFieldContainer[ChainView]
    resting: bool
    next: int
    def __init__(self, routing_version: _Optional[int] = ..., chains: _Optional[_Iterable[_Union[ChainView, _Mapping]]] = ..., resting: bool = ..., next: _Optional[int] = ...) -> None: ...

class ListTargetsRequest(_message.Message):
    __slots__ = ("node", "degraded", "after", "limit")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    node: int
    degraded: bool
    after: int
    limit: int
    def __init__(self, node: _Optional[int] = ..., degraded: bool = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ChainedTarget(_message.Message):
    __slots__ = ("chain", "target")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    chain: int
    target: TargetView
    def __init__(self, chain: _Optional[int] = ..., target: _Optional[_Union[TargetView, _Mapping]] = ...) -> None: ...

class ListTargetsReply(_message.Message):
    __slots__ = ("routing_version", "targets", "next")
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    routing_version: int
    targets: _containers.RepeatedCompositeFieldContainer[ChainedTarget]
    next: int
    def __init__(self, routing_version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[ChainedTarget, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class RotateChainRequest(_message.Message):
    __slots__ = ("chain", "accept_loss", "target")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_LOSS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    chain: int
    accept_loss: bool
    target: int
    def __init__(self, chain: _Optional[int] = ..., accept_loss: bool = ..., target: _Optional[int] = ...) -> None: ...

class RotateChainReply(_message.Message):
    __slots__ = ("chain", "given_up", "loses")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    LOSES_FIELD_NUMBER: _ClassVar[int]
    chain: Chain
    given_up: _containers.RepeatedScalarFieldContainer[int]
    loses: str
    def __init__(self, chain: _Optional[_Union[Chain, _Mapping]] = ..., given_up: _Optional[_Iterable[int]] = ..., loses: _Optional[str] = ...) -> None: ...

class RestRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BackupPart(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class MoveView(_message.Message):
    __slots__ = ("move", "chain", "joins", "node", "leaves", "source", "cause", "state", "doing", "sync")
    MOVE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    JOINS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    move: int
    chain: int
    joins: int
    node: int
    leaves: int
    source: int
    cause: str
    state: str
    doing: str
    sync: SyncProgress
    def __init__(self, move: _Optional[int] = ..., chain: _Optional[int] = ..., joins: _Optional[int] = ..., node: _Optional[int] = ..., leaves: _Optional[int] = ..., source: _Optional[int] = ..., cause: _Optional[str] = ..., state: _Optional[str] = ..., doing: _Optional[str] = ..., sync: _Optional[_Union[SyncProgress, _Mapping]] = ...) -> None: ...

class ListMovesRequest(_message.Message):
    __slots__ = ("after", "limit", "active")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    active: bool
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ..., active: bool = ...) -> None: ...

class ListMovesReply(_message.Message):
    __slots__ = ("moves", "next")
    MOVES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[MoveView]
    next: int
    def __init__(self, moves: _Optional[_Iterable[_Union[MoveView, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class RebalanceRequest(_message.Message):
    __slots__ = ("dry_run",)
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    def __init__(self, dry_run: bool = ...) -> None: ...

class AddTargetsRequest(_message.Message):
    __slots__ = ("node", "dry_run")
    NODE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    node: int
    dry_run: bool
    def __init__(self, node: _Optional[int] = ..., dry_run: bool = ...) -> None: ...

class ReplaceTargetRequest(_message.Message):
    __slots__ = ("target", "node", "dry_run")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    target: int
    node: int
    dry_run: bool
    def __init__(self, target: _Optional[int] = ..., node: _Optional[int] = ..., dry_run: bool = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("node", "target", "undo", "dry_run")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    node: int
    target: int
    undo: bool
    dry_run: bool
    def __init__(self, node: _Optional[int] = ..., target: _Optional[int] = ..., undo: bool = ..., dry_run: bool = ...) -> None: ...

class CancelMovesRequest(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, moves: _Optional[_Iterable[int]] = ...) -> None: ...

class NewChain(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, nodes: _Optional[_Iterable[int]] = ...) -> None: ...

class MovesReply(_message.Message):
    __slots__ = ("moves", "new_chains", "least_moves", "spread_before", "spread_after", "spread_possible")
    MOVES_FIELD_NUMBER: _ClassVar[int]
    NEW_CHAINS_FIELD_NUMBER: _ClassVar[int]
    LEAST_MOVES_FIELD_NUMBER: _ClassVar[int]
    SPREAD_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SPREAD_AFTER_FIELD_NUMBER: _ClassVar[int]
    SPREAD_POSSIBLE_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[MoveView]
    new_chains: _containers.RepeatedCompositeFieldContainer[NewChain]
    least_moves: int
    spread_before: float
    spread_after: float
    spread_possible: float
    def __init__(self, moves: _Optional[_Iterable[_Union[MoveView, _Mapping]]] = ..., new_chains: _Optional[_Iterable[_Union[NewChain, _Mapping]]] = ..., least_moves: _Optional[int] = ..., spread_before: _Optional[float] = ..., spread_after: _Optional[float] = ..., spread_possible: _Optional[float] = ...) -> None: ...

class ConfigReport(_message.Message):
    __slots__ = ("version", "status", "reason", "waiting", "own")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    version: int
    status: ConfigStatus
    reason: str
    waiting: _containers.RepeatedScalarFieldContainer[str]
    own: str
    def __init__(self, version: _Optional[int] = ..., status: _Optional[_Union[ConfigStatus, str]] = ..., reason: _Optional[str] = ..., waiting: _Optional[_Iterable[str]] = ..., own: _Optional[str] = ...) -> None: ...

class PullConfigRequest(_message.Message):
    __slots__ = ("cluster", "kind")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    kind: str
    def __init__(self, cluster: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class PushedConfig(_message.Message):
    __slots__ = ("version", "text")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    version: int
    text: str
    def __init__(self, version: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ("kind", "version")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    version: int
    def __init__(self, kind: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ConfigVersion(_message.Message):
    __slots__ = ("kind", "version", "text", "comment", "set_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    SET_MS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    version: int
    text: str
    comment: str
    set_ms: int
    def __init__(self, kind: _Optional[str] = ..., version: _Optional[int] = ..., text: _Optional[str] = ..., comment: _Optional[str] = ..., set_ms: _Optional[int] = ...) -> None: ...

class SetConfigRequest(_message.Message):
    __slots__ = ("kind", "text", "comment", "checked", "expected", "dry_run")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    comment: str
    checked: bool
    expected: int
    dry_run: bool
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ..., comment: _Optional[str] = ..., checked: bool = ..., expected: _Optional[int] = ..., dry_run: bool = ...) -> None: ...

class ListConfigVersionsRequest(_message.Message):
    __slots__ = ("kind", "after", "limit")
    KIND_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    after: int
    limit: int
    def __init__(self, kind: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListConfigVersionsReply(_message.Message):
    __slots__ = ("versions", "next")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ConfigVersion]
    next: int
    def __init__(self, versions: _Optional[_Iterable[_Union[ConfigVersion, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class ListSettingsRequest(_message.Message):
    __slots__ = ("kind", "node")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    node: int
    def __init__(self, kind: _Optional[str] = ..., node: _Optional[int] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("key", "value", "built_in", "origin", "live", "waiting")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    BUILT_IN_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    built_in: str
    origin: str
    live: bool
    waiting: bool
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., built_in: _Optional[str] = ..., origin: _Optional[str] = ..., live: bool = ..., waiting: bool = ...) -> None: ...

class ListSettingsReply(_message.Message):
    __slots__ = ("settings", "version", "report")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    version: int
    report: ConfigReport
    def __init__(self, settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., version: _Optional[int] = ..., report: _Optional[_Union[ConfigReport, _Mapping]] = ...) -> None: ...

class ListScrubsRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ScrubView(_message.Message):
    __slots__ = ("target", "node", "chain", "number", "running", "began_s", "ended_s", "chunks", "chunks_total", "bytes", "repaired", "not_compared", "damaged", "differing")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    BEGAN_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_S_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FIELD_NUMBER: _ClassVar[int]
    NOT_COMPARED_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELD_NUMBER: _ClassVar[int]
    target: int
    node: int
    chain: int
    number: int
    running: bool
    began_s: float
    ended_s: float
    chunks: int
    chunks_total: int
    bytes: int
    repaired: int
    not_compared: int
    damaged: _containers.RepeatedScalarFieldContainer[str]
    differing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, target: _Optional[int] = ..., node: _Optional[int] = ..., chain: _Optional[int] = ..., number: _Optional[int] = ..., running: bool = ..., began_s: _Optional[float] = ..., ended_s: _Optional[float] = ..., chunks: _Optional[int] = ..., chunks_total: _Optional[int] = ..., bytes: _Optional[int] = ..., repaired: _Optional[int] = ..., not_compared: _Optional[int] = ..., damaged: _Optional[_Iterable[str]] = ..., differing: _Optional[_Iterable[str]] = ...) -> None: ...

class ListScrubsReply(_message.Message):
    __slots__ = ("scrubs", "silent_nodes", "next")
    SCRUBS_FIELD_NUMBER: _ClassVar[int]
    SILENT_NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    scrubs: _containers.RepeatedCompositeFieldContainer[ScrubView]
    silent_nodes: _containers.RepeatedScalarFieldContainer[int]
    next: int
    def __init__(self, scrubs: _Optional[_Iterable[_Union[ScrubView, _Mapping]]] = ..., silent_nodes: _Optional[_Iterable[int]] = ..., next: _Optional[int] = ...) -> None: ...

class BeginScrubRequest(_message.Message):
    __slots__ = ("chains", "bytes_per_s")
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    chains: _containers.RepeatedScalarFieldContainer[int]
    bytes_per_s: int
    def __init__(self, chains: _Optional[_Iterable[int]] = ..., bytes_per_s: _Optional[int] = ...) -> None: ...

class BeginScrubReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UserView(_message.Message):
    __slots__ = ("name", "uid", "gid", "groups", "admin", "root", "created_ns", "tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: int
    gid: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    admin: bool
    root: bool
    created_ns: int
    tokens: int
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., admin: bool = ..., root: bool = ..., created_ns: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...

class ListUsersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListUsersReply(_message.Message):
    __slots__ = ("users", "security")
    USERS_FIELD_NUMBER: _ClassVar[int]
    SECURITY_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[UserView]
    security: bool
    def __init__(self, users: _Optional[_Iterable[_Union[UserView, _Mapping]]] = ..., security: bool = ...) -> None: ...

class AddUserRequest(_message.Message):
    __slots__ = ("name", "uid", "gid", "groups", "admin", "root")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: int
    gid: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    admin: bool
    root: bool
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., admin: bool = ..., root: bool = ...) -> None: ...

class RemoveUserRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveUserReply(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenView(_message.Message):
    __slots__ = ("id", "user", "node", "mount", "squash_root", "created_ns", "expires_ns")
    ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MOUNT_FIELD_NUMBER: _ClassVar[int]
    SQUASH_ROOT_FIELD_NUMBER: _ClassVar[int]
    CREATED_NS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    id: str
    user: str
    node: int
    mount: bool
    squash_root: bool
    created_ns: int
    expires_ns: int
    def __init__(self, id: _Optional[str] = ..., user: _Optional[str] = ..., node: _Optional[int] = ..., mount: bool = ..., squash_root: bool = ..., created_ns: _Optional[int] = ..., expires_ns: _Optional[int] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: str
    def __init__(self, user: _Optional[str] = ...) -> None: ...

class ListTokensReply(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenView]
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenView, _Mapping]]] = ...) -> None: ...

class IssueTokenRequest(_message.Message):
    __slots__ = ("user", "node", "mount", "squash_root", "lasts_s")
    USER_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MOUNT_FIELD_NUMBER: _ClassVar[int]
    SQUASH_ROOT_FIELD_NUMBER: _ClassVar[int]
    LASTS_S_FIELD_NUMBER: _ClassVar[int]
    user: str
    node: int
    mount: bool
    squash_root: bool
    lasts_s: int
    def __init__(self, user: _Optional[str] = ..., node: _Optional[int] = ..., mount: bool = ..., squash_root: bool = ..., lasts_s: _Optional[int] = ...) -> None: ...

class IssuedToken(_message.Message):
    __slots__ = ("token", "text")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    token: TokenView
    text: str
    def __init__(self, token: _Optional[_Union[TokenView, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RevokeTokenReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateTokenRequest(_message.Message):
    __slots__ = ("id", "grace_s")
    ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    id: str
    grace_s: int
    def __init__(self, id: _Optional[str] = ..., grace_s: _Optional[int] = ...) -> None: ...

class RotateKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateKeysReply(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: int
    def __init__(self, key: _Optional[int] = ...) -> None: ...
