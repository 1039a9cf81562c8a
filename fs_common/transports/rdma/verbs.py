"""Verbs as this program uses them: the interface that every binding of libibverbs is put behind.

It owns no state. `bindings` chooses who implements it; everything else of RDMA knows these names alone.

What holds for every implementation:

* A queue pair is reliable and connected (RC), has one scatter-gather entry for each work request, and reports into one
  completion queue for both directions.
* A context, its queue pairs and completion queues are used from the thread that made them. `Context.register` and
  `Region.close` may be called from any thread. Nothing survives a fork: in the child `close` does nothing, all else
  raises, and the parent's objects stay whole.
* No call waits for another machine. Those that ask the kernel (`open`, `register`, `queue_pair`, `connect`, `fail`,
  every `close`) take as long as its answer; `post`, `receive`, `arm`, `take_events`, `poll` are for every turn.
  `register` pins pages and takes longest, about as long as touching each; a binding may hold the interpreter for it.
* Every `close` may be called again, and after the parent's: nothing happens then. Closing a parent closes what was made
  from it. An object that is dropped without `close` lives on until its parent's.
* Whatever the kernel or the library refuses is a `VerbsError`; nothing of a binding's own is ever raised.
* Memory of a work request is lent from `post` and `receive` to its completion, or to `close` of the queue pair, or,
  after `fail`, to its flush; an unsignalled one ends by the completion of a later one. An inline send's is free once
  `post` returns.

Addresses are numbers as the processor sees them. Keys are 32 bits. Ids of work are 64 bits of the caller's, handed back
by the completion. A queue pair's number may come again for a later one while completions of the former are unread: ids
that never repeat tell them apart.
"""

from collections.abc import Sequence
from enum import Enum, IntEnum, IntFlag, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol


class VerbsError(Exception):
    """Verbs refused something, or cannot be used. `number` is the errno; None: there is none."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class Access(IntFlag):
    """Who may do what with a region, in the bits of the library. Reading by its own side is always allowed."""

    NOTHING = 0
    LOCAL_WRITE = 1
    """Receives and READs of this side may land in it. Remote writing needs it too."""
    REMOTE_WRITE = 2
    REMOTE_READ = 4


class Kind(IntEnum):
    """What a work request is, in the library's numbers; and what a completion is of."""

    WRITE = 0
    SEND = 2
    READ = 4
    RECEIVE = 128
    """Only of completions."""


class Status(StrEnum):
    """How a work request ended, by the names of the library without their prefix."""

    SUCCESS = "SUCCESS"
    LOC_LEN_ERR = "LOC_LEN_ERR"
    LOC_QP_OP_ERR = "LOC_QP_OP_ERR"
    LOC_EEC_OP_ERR = "LOC_EEC_OP_ERR"
    LOC_PROT_ERR = "LOC_PROT_ERR"
    """The local region is not there, or does not allow it."""
    WR_FLUSH_ERR = "WR_FLUSH_ERR"
    """Not tried, or given up: the queue pair is in the error state."""
    MW_BIND_ERR = "MW_BIND_ERR"
    BAD_RESP_ERR = "BAD_RESP_ERR"
    LOC_ACCESS_ERR = "LOC_ACCESS_ERR"
    REM_INV_REQ_ERR = "REM_INV_REQ_ERR"
    """The other side could not take it: a message too long for its slot, on most devices."""
    REM_ACCESS_ERR = "REM_ACCESS_ERR"
    """The remote region is not there, is shorter, or does not allow it."""
    REM_OP_ERR = "REM_OP_ERR"
    RETRY_EXC_ERR = "RETRY_EXC_ERR"
    """Nobody answers: the other side or the way to it is gone."""
    RNR_RETRY_EXC_ERR = "RNR_RETRY_EXC_ERR"
    """The other side had no receive posted for a message."""
    LOC_RDD_VIOL_ERR = "LOC_RDD_VIOL_ERR"
    REM_INV_RD_REQ_ERR = "REM_INV_RD_REQ_ERR"
    REM_ABORT_ERR = "REM_ABORT_ERR"
    INV_EECN_ERR = "INV_EECN_ERR"
    INV_EEC_STATE_ERR = "INV_EEC_STATE_ERR"
    FATAL_ERR = "FATAL_ERR"
    RESP_TIMEOUT_ERR = "RESP_TIMEOUT_ERR"
    GENERAL_ERR = "GENERAL_ERR"
    """Also for every number that has no name here."""


STATUSES = tuple(Status)
"""By the library's numbers, from 0 on."""


class PortState(Enum):
    DOWN = "down"
    INIT = "init"
    """Up, and not yet configured by a subnet manager."""
    ARMED = "armed"
    ACTIVE = "active"
    """The only state in which data travels."""


class GidKind(Enum):
    INFINIBAND = "infiniband"
    ROCE_V1 = "roce v1"
    """Not routed; never chosen."""
    ROCE_V2 = "roce v2"


class AsyncEvent(Enum):
    """News of a device that no completion tells. They do not say of which port or queue pair: `Context.device` and
    the completions do."""

    PORT_DOWN = "port down"
    PORT_UP = "port up"
    GIDS_CHANGED = "gids changed"
    QUEUE_PAIR_FAILED = "queue pair failed"
    COMPLETION_QUEUE_FAILED = "completion queue failed"
    """More completions than entries: nothing more arrives in it, and all its queue pairs have failed."""
    DEVICE_FAILED = "device failed"
    """The context is of no more use."""
    OTHER = "other"


class Gid(NamedTuple):
    """One address of a port."""

    table_index: int
    """In the port's table; this host's own number for it."""
    address: bytes
    """16 bytes, network order."""
    kind: GidKind

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """As an address of IP: with RoCE v2 it is the one of the network interface."""
        address = IPv6Address(self.address)
        return address.ipv4_mapped or address


class Port(NamedTuple):
    number: int
    """From 1 on."""
    state: PortState
    mtu_bytes: int
    """Of one packet's payload now: 256 to 4096, a power of two."""
    lid: int
    """Local identifier of an InfiniBand port; 0 on Ethernet."""
    message_bytes_max: int
    """Of one work request of any kind."""
    gids: tuple[Gid, ...]
    """Those that are set."""


class Device(NamedTuple):
    """A device as it was when it was asked."""

    name: str
    ports: tuple[Port, ...]
    queue_pairs_max: int
    work_requests_max: int
    """Outstanding in one direction of one queue pair."""
    completions_max: int
    """Entries of one completion queue."""
    regions_max: int
    region_bytes_max: int
    reads_max: int
    """READs of the other side that one queue pair serves at a time, and that one may have out."""


class Capacity(NamedTuple):
    """What a queue pair shall hold."""

    sends: int
    """Work requests posted and not known to be completed; an unsignalled one counts until a later one completes."""
    receives: int
    inline_bytes: int = 0
    """Of a send that carries its bytes in the work request. A device may refuse it (EINVAL) or grant more."""


class RemoteEnd(NamedTuple):
    """What one side must know of the other's queue pair."""

    number: int
    psn: int
    """The first packet's number that it sends: 24 bits."""
    gid: bytes
    """16 bytes."""
    lid: int = 0
    """Of its port. Used only where this side's GID is of InfiniBand."""


class Persistence(NamedTuple):
    """How long a queue pair tries before it gives up."""

    timeout: int = 14
    """Of one try: 4.096 us x 2**timeout; 14 is 67 ms. 0 to 31; 0 is for ever."""
    retries: int = 6
    """0 to 6: some devices take 7 as for ever."""
    receiver_timer: int = 12
    """What this side asks of who finds no receive posted, by the library's code: 12 is 0.64 ms."""
    receiver_retries: int = 6
    """Tries while the other side has no receive posted; 7 is for ever."""


class Path(NamedTuple):
    """How this side's queue pair reaches the other's."""

    port: int
    gid: Gid
    """Of this side's port."""
    psn: int
    """The first packet's number that this side sends: 24 bits."""
    mtu_bytes: int
    """The smaller of both ports': 256, 512, 1024, 2048, 4096."""
    reads_out: int
    """READs of this side under way at a time; the others wait in the queue. At most what the other side serves."""
    reads_served: int
    """READs of the other side that this one serves at a time."""
    persistence: Persistence = Persistence()
    other_may: Access = Access.REMOTE_READ | Access.REMOTE_WRITE
    """What the other side may do through this queue pair with regions that allow it. NOTHING: not even with a key that
    it has guessed; messages get through all the same."""


class Work(NamedTuple):
    """A work request to send, write or read. `length` is 1 to the port's `message_bytes_max`."""

    kind: Kind
    id: int
    address: int
    length: int
    lkey: int
    """Of the local region; anything where `inline`."""
    remote_address: int = 0
    """Of WRITE and READ."""
    rkey: int = 0
    """Of WRITE and READ."""
    signalled: bool = False
    """A completion is wanted. Without, only failure makes one."""
    inline: bool = False
    """Copy the bytes into the work request, at most `inline_bytes`. Not of READ."""
    solicited: bool = False
    """Of SEND: its arrival wakes a side that asked for such completions alone (`CompletionQueue.arm`)."""


class Receive(NamedTuple):
    """A slot for one message."""

    id: int
    address: int
    length: int
    lkey: int


class DmaBuf(NamedTuple):
    """Memory that a driver exports, of a GPU for one."""

    descriptor: int
    """The caller's; may be closed once it is registered."""
    offset: int
    """In bytes, where in it the registered memory begins."""


class Completion(NamedTuple):
    """How one work request ended. `kind` and `bytes` mean something only where `ok`."""

    id: int
    ok: bool
    status: Status
    kind: Kind | None
    """None: not `ok`."""
    bytes: int
    """Received, of a receive."""
    queue_pair: int
    """Its number."""


class Counts(NamedTuple):
    """What is made from a context and not closed."""

    queue_pairs: int
    completion_queues: int
    regions: int


class Region(Protocol):
    """Memory that a device may use."""

    @property
    def address(self) -> int:
        """Of its first byte, as it was registered, and as work requests and the other side say it."""

    @property
    def length(self) -> int:
        """In bytes."""

    @property
    def lkey(self) -> int:
        """For work requests of this side's."""

    @property
    def rkey(self) -> int:
        """For the other side's."""

    def close(self) -> None:
        """The device may not use it any more; on return the memory may go. Work under way in it fails."""


class CompletionQueue(Protocol):
    """Where the completions of some queue pairs arrive, with a descriptor to wait on.

    The order that loses none: `take_events`, `arm`, then `poll` until it gives less than asked for.
    """

    def fileno(self) -> int:
        """Non-blocking; readable when a completion came after `arm`. Nobody else reads or closes it."""

    def arm(self, solicited: bool = False) -> None:
        """Let the next completion make the descriptor readable: once. One that is there already does not.

        `solicited`: only the arrival of a solicited SEND, or a queue pair with receives posted that fails. What was
        armed for that alone may be armed for all, and stays so; not the other way round.
        """

    def take_events(self) -> int:
        """How often the descriptor was made readable since it was asked last; it is not readable after. Never waits."""

    def poll(self, most: int) -> list[Completion]:
        """At most `most` completions, in each queue pair's order."""

    def close(self) -> None:
        """Queue pairs that report into it are closed first."""


class QueuePair(Protocol):
    """One end of a connection."""

    @property
    def number(self) -> int:
        """24 bits; the other side must know it."""

    @property
    def inline_bytes(self) -> int:
        """Granted for one inline send."""

    def connect(self, path: Path, remote: RemoteEnd) -> None:
        """Up to ready to send. The other side may read and write this context's regions that allow it from now on.
        Once only; after a failure the queue pair is of no use but for `close`."""

    def post(self, works: Sequence[Work]) -> None:
        """Queue them in this order, all at once or in as few calls of the library as the binding can.

        Raises `VerbsError` (ENOMEM: more than `Capacity.sends`). How many of them are queued is not known then: the
        queue pair is to be ended by `fail`. After `fail` they are flushed.
        """

    def receive(self, receives: Sequence[Receive]) -> None:
        """Post slots, used in this order. After `connect`. Errors as of `post`. After `fail` their memory is lent until
        `close`: some devices flush only what was posted before."""

    def fail(self) -> None:
        """Into the error state. When it returns, the other side can neither read nor write through it, nothing posted
        here is begun any more, and everything posted is completed or will be flushed. Harmless when it is there
        already, or was never connected, or is closed."""

    def close(self) -> None:
        """No memory is used on its behalf any more. What was posted and is not completed never will be; completions
        that were waiting may still be polled or not."""


class Context(Protocol):
    """An open device, and a protection domain of its own: keys are good within it alone."""

    @property
    def name(self) -> str:
        """Of the device."""

    def device(self) -> Device:
        """The device as it is now, ports and addresses read anew."""

    def register(self, address: int, length: int, access: Access, dmabuf: DmaBuf | None = None) -> Region:
        """Let the device use `length` bytes (>= 1) from `address` on. Does not keep the memory: the caller does,
        until `Region.close`. With `dmabuf`, memory of another device (a GPU): its `offset` is where `address` lies.

        Raises `VerbsError`: ENOMEM where a limit of locked memory is met, EFAULT for memory that is not there,
        EOPNOTSUPP (or what the driver says) where the binding or the device takes no dma-buf.
        """

    def completion_queue(self, depth: int) -> CompletionQueue:
        """With room for at least `depth` completions. More outstanding work than that ends all its queue pairs."""

    def queue_pair(self, completions: CompletionQueue, capacity: Capacity) -> QueuePair:
        """Not connected yet. Raises `VerbsError` (EINVAL: more than the device can; ENOMEM: too many of them)."""

    def async_fileno(self) -> int:
        """Non-blocking; readable when there is news. Owned by the context."""

    def take_async_events(self) -> list[AsyncEvent]:
        """All news that came; never waits."""

    def counts(self) -> Counts: ...

    def close(self) -> None:
        """Queue pairs, regions and completion queues made from it are closed, in this order."""


class Binding(Protocol):
    """One way to the library."""

    @property
    def name(self) -> str:
        """Its package and version, for messages."""

    def devices(self) -> list[Device]:
        """All there are, by name. Empty where the kernel has no RDMA. One that cannot be opened is left out."""

    def open(self, name: str) -> Context:
        """Raises `VerbsError` (ENODEV: there is no such device)."""
