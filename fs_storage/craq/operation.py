"""One operation on one chunk at one replica, and the step it waits for. Values only.

An operation is both what enters the core and the instruction that leaves it: `step` says what the shell has to do
next. The core alone changes `step`; the shell reads it, does it, and reports with the matching event of `Replica`.
"""

import enum
from typing import Any

from fs_common.errors import Code
from fs_common.records.storage import UpdateKind
from fs_storage.craq.position import Position
from fs_storage.engine.digest import NOTHING_DIGEST

NO_IDENTITY = (b"", 0, 0)


class Step(enum.Enum):
    """What an operation waits for. All but the last two are also the states of its chunk (see `replica`)."""

    RESEND = "resend"
    """The successor's answer to version `leftover`, sent whole from the store."""
    CONFIRM = "confirm"
    """The store's commit of version `leftover`."""
    PREPARE = "prepare"
    """The store's answer to this update as pending version `version`."""
    FORWARD = "forward"
    """The successor's answer to this update."""
    FORWARD_WHOLE = "forward whole"
    """The syncing successor's answer to `version`, which is pending here, sent whole from the store."""
    COMMIT = "commit"
    """The store's commit of `version`."""
    ABANDON = "abandon"
    """The store's word that `version` is dropped."""
    FORGET = "forget"
    """The store's word that it knows nothing of the chunk any more, so that this update goes over it."""
    PUSH = "push"
    """The syncing successor's answer to what is committed here, sent whole from the store."""
    QUEUED = "queued"
    """Its turn: another operation holds the chunk."""
    DONE = "done"
    """Nothing: `failure`, or `version` and `length`, is its result."""


class Duty(enum.Enum):
    """Operations that bring no update of their own."""

    SETTLE = "settle"
    """Drive whatever is pending to its end."""
    CONFIRM = "confirm"
    """The tail has committed the version `version` of digest `digest`: commit it here, if it is what is pending."""
    PUSH = "push"
    """Give the syncing successor what is committed here."""


SENDING = (Step.FORWARD, Step.FORWARD_WHOLE, Step.RESEND, Step.PUSH)
"""Steps that wait for a successor: the one `asked`."""


class Failure:
    """Why an operation failed. `code`'s retry class tells the sender whether it may have been applied."""

    __slots__ = ("code", "message")

    def __init__(self, code: Code, message: str) -> None:
        self.code = code
        self.message = message

    def __repr__(self) -> str:
        return f"{self.code.name}: {self.message}"


class Operation:
    """A chunk's update on its way through one replica. Plain slots: tens of thousands a second are made."""

    __slots__ = (
        "asked",
        "base",
        "chain_version",
        "channel",
        "chunk",
        "client",
        "digest",
        "failure",
        "kind",
        "leftover",
        "leftover_length",
        "length",
        "request",
        "request_index",
        "sequence",
        "source",
        "step",
        "uncertain",
        "version",
    )

    def __init__(
        self,
        chunk: bytes,
        kind: UpdateKind | Duty,
        *,
        chain_version: int,
        length: int = 0,
        version: int = 0,
        source: int = 0,
        client: bytes = b"",
        channel: int = 0,
        sequence: int = 0,
        digest: int = NOTHING_DIGEST,
        base: int = NOTHING_DIGEST,
        request: Any = None,
        request_index: int = 0,
    ) -> None:
        self.chunk = chunk
        self.kind = kind
        self.chain_version = chain_version
        """As its sender knows the chain, and as it is when the operation is judged. An update is stored under it."""
        self.version = version
        """0 until the head assigns it; from a predecessor, the version to make. At the end: the committed version."""
        self.length = length
        """REPLACE: bytes of payload. From PREPARE on: the chunk's length once this version is committed."""
        self.source = source
        """Target id of the predecessor that sent it; 0 from clients and for duties."""
        self.client = client
        self.channel = channel
        self.sequence = sequence
        self.digest = digest
        """Of the version it makes: from a predecessor, as that has it; at the head, from FORWARD on. CONFIRM: of the
        tail's committed version."""
        self.base = base
        """Digest of the committed version it changes. NOTHING_DIGEST: there is none, or it is a removal. CONFIRM: of
        the version that was pending here when the tail was asked."""
        self.asked: Position | None = None
        """SENDING: the place from which the successor is asked. None: there was none (no lease), so nobody is."""
        self.request = request
        """The shell's; the core never looks."""
        self.request_index = request_index
        """The shell's."""
        self.step = Step.QUEUED
        self.leftover = 0
        """RESEND and CONFIRM: the pending version being settled before this operation's own work."""
        self.leftover_length = 0
        self.uncertain = False
        """An attempt to forward `version` ended without a clear answer, so a replica further on may have it."""
        self.failure: Failure | None = None

    @property
    def identity(self) -> tuple[bytes, int, int]:
        return (self.client, self.channel, self.sequence)

    def __repr__(self) -> str:
        return (
            f"<{self.kind.name} {self.chunk.hex()} v{self.version} {self.step.value}"
            f" by {self.client.hex()[:8]}/{self.channel}/{self.sequence}{f' {self.failure}' if self.failure else ''}>"
        )
