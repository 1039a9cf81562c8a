"""Numbers of libibverbs that both bindings speak: part of its stable binary interface."""

from enum import IntFlag

from fs_common.transports.rdma.verbs import STATUSES, AsyncEvent, Completion, Kind, PortState, Status

RELIABLE = 2
"""Type of a reliable connected queue pair."""
FAILED = 6
"""A queue pair's error state."""
SIGNALLED = 2
SOLICITED = 4
INLINE = 8
INFINIBAND_LINK = 1
"""Link layer of a port."""
HOPS = 64
"""Routers that a packet may cross."""


class Attribute(IntFlag):
    """Of a queue pair, to ask for or to change."""

    STATE = 1 << 0
    CAPACITY = 1 << 19


MTU_BYTES = {1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096}
MTU_CODES = {size: code for code, size in MTU_BYTES.items()}

EVENTS = {
    0: AsyncEvent.COMPLETION_QUEUE_FAILED,
    1: AsyncEvent.QUEUE_PAIR_FAILED,
    2: AsyncEvent.QUEUE_PAIR_FAILED,
    3: AsyncEvent.QUEUE_PAIR_FAILED,
    8: AsyncEvent.DEVICE_FAILED,
    9: AsyncEvent.PORT_UP,
    10: AsyncEvent.PORT_DOWN,
    18: AsyncEvent.GIDS_CHANGED,
}
"""A queue pair fails as fatal, by a request, and by an access that it refused."""

_PORT_STATES = {2: PortState.INIT, 3: PortState.ARMED, 4: PortState.ACTIVE}
_KINDS = {0: Kind.SEND, 1: Kind.WRITE, 2: Kind.READ, 128: Kind.RECEIVE}
"""By the opcode of a completion, which is numbered otherwise than a work request's."""


def port_state(number: int) -> PortState:
    return _PORT_STATES.get(number, PortState.DOWN)


def completion(id: int, status: int, opcode: int, length: int, queue_pair: int) -> Completion:
    if status:
        name = STATUSES[status] if status < len(STATUSES) else Status.GENERAL_ERR
        return Completion(id, False, name, None, 0, queue_pair)
    return Completion(id, True, Status.SUCCESS, _KINDS.get(opcode), length, queue_pair)
