"""The routing as bytes of the control plane, made once for each version, whoever gets it.

A change goes to every node, by its watch and with its next heartbeat; of a thousand nodes and as many chains it is a
hundred kilobytes that take ten milliseconds to make.

Figures of nodes are those of when the bytes were made: the version does not cover them. Used on the manager's loop.
"""

from fs_common import control_pb2 as pb
from fs_common.control_records import routing_message
from fs_common.records.routing import Routing

_ROUTING_FIELD = pb.HeartbeatReply.DESCRIPTOR.fields_by_name["routing"].number
_LENGTH_DELIMITED = 2


class RoutingBytes:
    def __init__(self) -> None:
        self._made: tuple[Routing, bytes, bytes] | None = None
        """A routing, its message, and the message as a field of a reply to a heartbeat."""
        self.count = 0
        """How often bytes were made."""

    def message(self, routing: Routing) -> bytes:
        """A whole message `Routing`."""
        return self._of(routing)[1]

    def in_reply(self, reply: pb.HeartbeatReply, routing: Routing) -> bytes:
        """A whole `HeartbeatReply`: `reply`, which has no routing, with this one. Fields of a message may come in any
        order, so the routing is put behind the others."""
        return bytes(reply.SerializeToString()) + self._of(routing)[2]

    def _of(self, routing: Routing) -> tuple[Routing, bytes, bytes]:
        made = self._made
        if made is None or made[0].version != routing.version or made[0].cluster != routing.cluster:
            message = routing_message(routing).SerializeToString()
            head = _varint(_ROUTING_FIELD << 3 | _LENGTH_DELIMITED) + _varint(len(message))
            self._made = made = routing, message, head + message
            self.count += 1
        return made


def _varint(value: int) -> bytes:
    """As protobuf has numbers."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
