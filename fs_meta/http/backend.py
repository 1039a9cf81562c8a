"""What the handlers of HTTP work with: the parts of one metadata process, and the bridge to its loop.

The parts belong to the service's loop: a handler touches them inside `bridge.call` alone, and gets values that nobody
changes any more.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from fs_meta.config import MetaConfig

if TYPE_CHECKING:
    from fs_meta.manager.manager import Manager
    from fs_meta.server import MetaServer

T = TypeVar("T")


class Bridge(Protocol):
    """The one way from the HTTP thread into the service's loop; awaited on the HTTP thread's loop."""

    async def call(self, make: Callable[[], Awaitable[T] | T], timeout_s: float | None = None) -> T:
        """What `make()` returns there, or what the awaitable that it returns gives. Raises BUSY, TIMED_OUT, CLOSING,
        and what `make` raises."""


@dataclass(frozen=True, slots=True)
class Backend:
    config: MetaConfig
    bridge: Bridge
    manager: "Manager"
    server: "MetaServer"

    @property
    def security(self) -> bool:
        """Every request has to show who it is from."""
        return False
