"""Setting up RDMA beside a TCP connection: what each side says of its queue pair."""

import msgspec


class QueuePairEnd(msgspec.Struct, frozen=True, array_like=True):
    """One side's end: what the other has to know."""

    device: str
    """Its name, for messages."""
    kind: str
    """Of the address: "infiniband" or "roce v2"."""
    gid: bytes
    """Address: 16 bytes, network order."""
    number: int
    """Of the queue pair: 24 bits."""
    psn: int
    """The first packet's number that it sends: 24 bits."""
    mtu_bytes: int
    """Of its port."""
    lid: int
    """Of its port; 0 on Ethernet."""
    slots: int
    """Messages with content that the other side may send before it is told that some were taken."""
    slot_bytes: int
    """Of one message at most."""
    reads_max: int
    """READs that it serves at a time, and has under way at a time."""
    format: int = 1
    """Of messages and envelopes. Both sides have the same."""
