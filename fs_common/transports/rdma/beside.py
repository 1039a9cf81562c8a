"""The TCP connection beside a queue pair: it is silent, and its end is the news of a dead peer.

Called by `link.RdmaLink`.
"""

from collections.abc import Sequence
from typing import Protocol

from fs_common.errors import EmberError
from fs_common.frames import FrameError
from fs_common.wire import Frame


class Watching(Protocol):
    """Who is told."""

    def on_tcp_end(self, error: EmberError | None) -> None: ...

    def on_tcp_bad(self, error: FrameError) -> None: ...


class TcpWatch:
    """Its receiver: a frame that comes over it is one that has no business there."""

    def __init__(self, link: Watching) -> None:
        self._link = link

    def frame_begun(self, frame: Frame) -> Sequence[memoryview] | None:
        raise FrameError("transport", "a frame came over TCP on a connection that has moved to RDMA")

    def payload_done(self) -> None:
        pass

    def frame_bad(self, error: FrameError) -> None:
        self._link.on_tcp_bad(error)

    def peer_finished(self) -> None:
        self._link.on_tcp_end(None)

    def drained(self) -> None:
        pass

    def link_lost(self, error: EmberError) -> None:
        self._link.on_tcp_end(error)
