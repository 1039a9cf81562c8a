"""Who looks at the console: a bounded number of feeds, of which nobody has all. Pure.

One viewer, a user or an address, has at most `OF_ONE_MAX` feeds; another one is refused. When all `VIEWERS_MAX` are
taken, whoever has the most gives up his oldest feed for somebody who has at least two less: so a few who take what they
can get keep nobody out.

Called by: `live`.
"""

import ipaddress
from collections.abc import Callable
from typing import Final

from fs_common.errors import Code, EmberError

VIEWERS_MAX: Final = 32
OF_ONE_MAX: Final = 8
_OF_ONE_HOST: Final = 64
"""Bits of an IPv6 address: a host may give itself any with the same ones."""


class Place:
    """One feed. `over`: another viewer has its place."""

    __slots__ = ("holder", "over")

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.over = False


class Viewers:
    """Of one metadata server."""

    def __init__(self, given_up: Callable[[], None]) -> None:
        """`given_up()`: some place is over."""
        self._given_up = given_up
        self._of: dict[str, list[Place]] = {}
        """By holder; each has at least one place, the oldest first."""

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def enter(self, holder: str) -> Place:
        """A place for one feed, to be given back by `leave`. Raises BUSY."""
        own = len(self._of.get(holder, ()))
        if own >= OF_ONE_MAX:
            raise EmberError(Code.BUSY, f"{holder} has {own} pages of the console open already: close one")
        if len(self) >= VIEWERS_MAX:
            most = max(self._of, key=lambda each: len(self._of[each]))
            if len(self._of[most]) < own + 2:
                raise EmberError(Code.BUSY, f"{len(self)} people look at the console already: close one of its pages")
            oldest = self._of[most][0]
            self.leave(oldest)
            oldest.over = True
            self._given_up()
        place = Place(holder)
        self._of.setdefault(holder, []).append(place)
        return place

    def leave(self, place: Place) -> None:
        """Also when it is over."""
        places = self._of.get(place.holder, [])
        if place in places:
            places.remove(place)
            if not places:
                del self._of[place.holder]


def holder_of(user: str | None, host: str) -> str:
    """Who is meant by a viewer's bound. `user`: None where nobody has to say who he is."""
    if user is not None:
        return f"user {user!r}"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _OF_ONE_HOST), strict=False))
    return host
