"""The seam between RPC and a transport: a `Link` carries frames, a `Receiver` is told what arrives.

A link belongs to one event loop and is used from it alone. `rpc.Peer` and `serving.ServingConnection` are the
receivers; nothing in them knows how bytes travel.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from fs_common.errors import EmberError
from fs_common.frames import FrameError
from fs_common.tls.names import Proven
from fs_common.wire import Frame, Outgoing, Part


class Receiver(Protocol):
    """Called by the link, on the loop. May call the link back, `abort` included."""

    def frame_begun(self, frame: Frame) -> Sequence[memoryview] | None:
        """A frame's header and body are here. Returns where its payload goes; None: nowhere, it is thrown away.

        Raises `FrameError` for a frame that has no business here.
        """

    def payload_done(self) -> None:
        """The payload of the last frame with payload has arrived (or been thrown away)."""

    def frame_bad(self, error: FrameError) -> None:
        """What arrives is no frame of this protocol; nothing more will be read. The receiver ends the link."""

    def peer_finished(self) -> None:
        """The other side sends nothing more, and stopped between frames."""

    def drained(self) -> None:
        """Some of what was unsent is sent."""

    def link_lost(self, error: EmberError) -> None:
        """The link is over; called once, whoever ended it. Memory given to it is free."""


class Link(Protocol):
    name: str
    """Both ends, for messages."""
    transport: str
    """By which payload travels: "tcp" or "rdma"."""

    @property
    def descriptor(self) -> int | None:
        """File descriptor of the connection, for a forked child to close; None: there is none, or it is over."""

    @property
    def proven(self) -> Proven | None:
        """Who the other side has proven to be; None: on such a connection nobody can."""

    @property
    def certificate_ends_s(self) -> float | None:
        """When the certificate by which it did ends, in seconds since 1970; None: there is none."""

    @property
    def unsent_bytes(self) -> int:
        """Of frames given to `send` and not yet passed to the kernel or the adapter."""

    @property
    def received_bytes(self) -> int:
        """All that has come so far."""

    @property
    def within_frame(self) -> bool:
        """A frame has begun to arrive, and the rest of it is still to come."""

    def send(self, frame: bytes, *, into: Sequence[memoryview] = (), urgent: bool = False) -> Outgoing | None:
        """A frame without payload (header and body). `urgent`: do not wait for others to go along with it.

        `into`: of a request, where the payload of its answer will land. Where the other side writes there itself, this
        memory is lent to it until the answer has come, or `withdraw` takes it back. None: nothing is lent.
        """

    def send_with_payload(
        self,
        frame: bytes,
        parts: Sequence[Part],
        payload_length: int,
        release: Callable[[], None] | None,
        *,
        into: Sequence[memoryview] = (),
        lengths: Sequence[int] | None = None,
        urgent: bool = False,
    ) -> Outgoing:
        """`release` is called once: when the parts are sent, withdrawn or dropped.

        `into`: as for `send`. Where the other side fetches the parts itself, they are lent to it as well.
        `lengths`: of an answer whose record has them; they say where its payload lands (`landing.filled`).
        """

    def set_bounds(self, body_bytes_max: int, payload_bytes_max: int) -> None:
        """What the next frames may have at most; at first the bounds of `limits`."""

    def withdraw(self, outgoing: Outgoing) -> None:
        """Stop using the memory of a frame now, and what was lent with it.

        A frame that has begun is completed from a copy. Memory that the other side may be using can only be taken back
        by ending the link: `link_lost` is called before this returns.
        """

    def discard_payload(self, release: Callable[[], None] | None = None) -> None:
        """Throw the rest of the payload that is landing away.

        `release` gives its memory back: called once nothing touches it any more, at the latest before `link_lost`.
        Where this process itself moves the bytes, that is at once.
        """

    def probe(self) -> None:
        """Take what has arrived and was not looked at yet. May end the link."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        """Send what is queued, then end the link; `link_lost` follows. Nothing more is received."""

    def abort(self, error: EmberError) -> None:
        """End the link at once; `link_lost(error)` is called before this returns."""

    async def wait_closed(self) -> None: ...
