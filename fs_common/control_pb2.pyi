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
    __slots__ = ("identity", "sequence", "sent_ms", "capacity_bytes", "used_bytes", "targets", "routing_version", "leaving")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    identity: NodeIdentity
    sequence: int
    sent_ms: int
    capacity_bytes: int
    used_bytes: int
    targets: _containers.RepeatedCompositeFieldContainer[TargetReport]
    routing_version: int
    leaving: bool
    def __init__(self, identity: _Optional[_Union[NodeIdentity, _Mapping]] = ..., sequence: _Optional[int] = ..., sent_ms: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[TargetReport, _Mapping]]] = ..., routing_version: _Optional[int] = ..., leaving: bool = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("sequence", "sent_ms", "lease_ms", "heartbeat_interval_ms", "routing", "verdicts", "cluster_uuid")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_UUID_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    sent_ms: int
    lease_ms: int
    heartbeat_interval_ms: int
    routing: Routing
    verdicts: _containers.RepeatedCompositeFieldContainer[TargetVerdict]
    cluster_uuid: bytes
    def __init__(self, sequence: _Optional[int] = ..., sent_ms: _Optional[int] = ..., lease_ms: _Optional[int] = ..., heartbeat_interval_ms: _Optional[int] = ..., routing: _Optional[_Union[Routing, _Mapping]] = ..., verdicts: _Optional[_Iterable[_Union[TargetVerdict, _Mapping]]] = ..., cluster_uuid: _Optional[bytes] = ...) -> None: ...

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
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "silent_ms", "routing_version", "targets")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    silent_ms: int
    routing_version: int
    targets: _containers.RepeatedCompositeFieldContainer[TargetReport]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., silent_ms: _Optional[int] = ..., routing_version: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[TargetReport, _Mapping]]] = ...) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("chains", "degraded")
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    chains: _containers.RepeatedScalarFieldContainer[int]
    degraded: bool
    def __init__(self, chains: _Optional[_Iterable[int]] = ..., degraded: bool = ...) -> None: ...

class ListChainsReply(_message.Message):
    __slots__ = ("routing_version", "chains", "resting")
    ROUTING_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAINS_FIELD_NUMBER: _ClassVar[int]
    RESTING_FIELD_NUMBER: _ClassVar[int]
    routing_version: int
    chains: _containers.RepeatedCompositeFieldContainer[ChainView]
    resting: bool
    def __init__(self, routing_version: _Optional[int] = ..., chains: _Optional[_Iterable[_Union[ChainView, _Mapping]]] = ..., resting: bool = ...) -> None: ...

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
