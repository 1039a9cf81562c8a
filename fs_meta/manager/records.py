"""What the manager keeps in the metadata store: the only encoder of its keys and values.

Keys: `\\x02manager/` and a table's name, then big-endian fields. Values: one version byte (1), then msgpack (an array
of the record's fields in the order declared). A field is only ever appended, with a default, under the same version
byte.

| table  | key                                | value                                            |
| ------ | ---------------------------------- | ------------------------------------------------ |
| head   | `\\x02manager/head`                 | Head: cluster, routing version, replicas          |
| lease  | `\\x02manager/lease`                | Lease: which server is the manager                |
| nodes  | `\\x02manager/node/` node:4         | Node: identity, incarnation and state             |
| chains | `\\x02manager/chain/` chain:4       | `routing.Chain`                                   |
| tables | `\\x02manager/table/` table:4 ver:8 | `routing.ChainTable`; every version is kept       |
| stores | `\\x02manager/store/` target:4      | Store: which store a target has                   |
| moves  | `\\x02manager/move/` move:4         | Move: a target that joins a chain, one that leaves |
| config | `\\x02manager/config/` kind `/` ver:8 | ConfigVersion: the cluster's configuration |
| rest   | `\\x02manager/rest`                | RestRecord: the whole cluster is taken down        |
"""

import enum
import struct
from typing import Final, TypeVar

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.records.routing import NodeState

PREFIX: Final = b"\x02manager/"
HEAD_KEY: Final = PREFIX + b"head"
LEASE_KEY: Final = PREFIX + b"lease"
REST_KEY: Final = PREFIX + b"rest"
NODES: Final = (PREFIX + b"node/", PREFIX + b"node0")
"""Begin and end of the table's keys ("0" follows "/")."""
CHAINS: Final = (PREFIX + b"chain/", PREFIX + b"chain0")
TABLES: Final = (PREFIX + b"table/", PREFIX + b"table0")
STORES: Final = (PREFIX + b"store/", PREFIX + b"store0")
CONFIGS: Final = PREFIX + b"config/"
MOVES: Final = (PREFIX + b"move/", PREFIX + b"move0")

_VALUE_VERSION = 1
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_TABLE = struct.Struct(">IQ")
_R = TypeVar("_R", bound=msgspec.Struct)
_encoder = msgspec.msgpack.Encoder()


class Head(msgspec.Struct, frozen=True, array_like=True):
    cluster: str
    version: int
    """Of the routing; grows by at least one at every change of it."""
    replicas: int
    """Targets of each chain, as configured when the cluster was made."""


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """The manager's. Nobody compares clocks: who wants it watches `renewal` stand still for `lease_ms` first."""

    owner: bytes
    """16 random bytes of the server's process."""
    renewal: int
    """Grows by one with each renewal."""
    lease_ms: int


class Node(msgspec.Struct, frozen=True, array_like=True):
    node: int
    host: str
    port: int
    state: NodeState
    incarnation: int
    capacity_bytes: int
    release: str
    drained: bool = False
    """It gets no targets, and those that it had move away."""
    forgotten: bool = False
    """It is not listed any more; its id is not used again."""


class Store(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a target's store: what was reported last and answered with SERVE."""

    target: int
    uuid: bytes
    """16 bytes; b"": the target was placed and has none yet."""
    opening: int
    incarnation: int
    process: int
    """Incarnation of the node's process that had it open."""
    position: int = 0
    """How far its log had come, at least."""
    retired: bool = False
    """The target was taken from its chain: it is on none any more, and its id is not used again."""


class MoveState(enum.IntEnum):
    """How far a move is (`moves.py`)."""

    QUEUED = 1
    FILLING = 2
    LEAVING = 3
    DONE = 4
    CANCELLED = 5


class MoveCause(enum.IntEnum):
    """Why a move was made."""

    OPERATOR = 1
    """`emberfs targets add`, `targets replace`."""
    REBALANCE = 2
    DRAIN = 3
    LOST = 4
    """By itself: the leaving target was away for too long."""


class Move(msgspec.Struct, frozen=True, array_like=True):
    """A chain gets a target and gives one up."""

    move: int
    """From 1; not used again."""
    chain: int
    joins: int
    """Target id; 0: none joins."""
    node: int
    """Of the joining target."""
    leaves: int
    """Target id; 0: none leaves."""
    cause: MoveCause
    state: MoveState = MoveState.QUEUED
    cancelled: bool = False


class RestRecord(msgspec.Struct, frozen=True, array_like=True):
    """There while the cluster rests."""

    nodes: list[tuple[int, int]]
    """Those that were up: node, and incarnation of its process."""


def node_key(node: int) -> bytes:
    return NODES[0] + _U32.pack(node)


def chain_key(chain: int) -> bytes:
    return CHAINS[0] + _U32.pack(chain)


def table_key(table: int, version: int) -> bytes:
    return TABLES[0] + _TABLE.pack(table, version)


def move_key(move: int) -> bytes:
    return MOVES[0] + _U32.pack(move)


def store_key(target: int) -> bytes:
    return STORES[0] + _U32.pack(target)


def config_key(kind: str, version: int) -> bytes:
    return CONFIGS + kind.encode() + b"/" + _U64.pack(version)


def config_range(kind: str, before: int = 0) -> tuple[bytes, bytes]:
    """Begin and end of the keys of a kind's versions; of those before version `before` (0: of all)."""
    prefix = CONFIGS + kind.encode()
    return prefix + b"/", config_key(kind, before) if before else prefix + b"0"


def encode(record: msgspec.Struct) -> bytes:
    return bytes((_VALUE_VERSION,)) + _encoder.encode(record)


def decode(key: bytes, value: bytes, kind: type[_R]) -> _R:
    """The record in `value`. Raises INTERNAL, naming the key and the field, for bytes `encode` does not make."""
    if not value or value[0] != _VALUE_VERSION:
        version = value[0] if value else None
        raise EmberError(Code.INTERNAL, f"manager record {key!r} has value version {version}, not {_VALUE_VERSION}")
    try:
        return msgspec.msgpack.decode(memoryview(value)[1:], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a string that is not UTF-8 is raised as the latter
        raise EmberError(Code.INTERNAL, f"manager record {key!r} is no {kind.__name__}: {error}") from error
