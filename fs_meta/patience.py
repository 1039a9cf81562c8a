"""How long others have waited for those who follow: who has cost them too much is promised nothing for a while.

A change waits for a follower that does not take its news, for as long as that may believe the old. A follower that is
stopped costs that once. One that goes on like that, under one client's id or many, would do so for ever; so what was
waited for all followers of one holder (a user, a machine) counts together.

| a holder is | until                                                                                            |
| ----------- | ------------------------------------------------------------------------------------------------ |
| trusted     | others have waited for its followers for `WAITED_MAX_S`; of what they have, `SHARE` of the time  |
|             | that passes is forgiven                                                                          |
| distrusted  | half of that is forgiven                                                                         |

Changes that wait at the same time wait once: what counts is time, not how many there are. So a rack of machines that
loses its power costs one lease.

Pure: times come in, seconds of one monotonic clock. Called by: `following`.
"""

from typing import Final

WAITED_MAX_S: Final = 10.0
SHARE: Final = 1 / 50
HOLDERS_MAX: Final = 1 << 12
"""Beyond so many the ones who have cost nothing are forgotten."""


class _Holder:
    __slots__ = ("at_s", "distrusted", "waited_s", "waits")

    def __init__(self, now: float) -> None:
        self.waited_s = 0.0
        """At `at_s`."""
        self.at_s = now
        self.waits = 0
        """How many changes wait for its followers now."""
        self.distrusted = False


class Patience:
    """Of one service."""

    def __init__(self, *, waited_max_s: float = WAITED_MAX_S, share: float = SHARE) -> None:
        self._waited_max_s = waited_max_s
        self._share = share
        self._holders: dict[str, _Holder] = {}

    def begins(self, holder: str, now: float) -> None:
        """A change waits for a follower of `holder`; "" is nobody, and costs nobody anything."""
        if holder:
            self._at(holder, now).waits += 1

    def ends(self, holder: str, now: float) -> None:
        """It waits no longer."""
        if holder:
            self._at(holder, now).waits -= 1

    def lost(self, holder: str, now: float) -> bool:
        """Whether its followers are promised nothing."""
        return holder in self._holders and self._at(holder, now).distrusted

    def _at(self, name: str, now: float) -> _Holder:
        holder = self._holders.get(name)
        if holder is None:
            if len(self._holders) >= HOLDERS_MAX:
                self._forget(now)
            holder = self._holders[name] = _Holder(now)
        self._pass(holder, now)
        return holder

    def _pass(self, holder: _Holder, now: float) -> None:
        passed_s = max(now - holder.at_s, 0.0)
        holder.at_s = now
        if holder.waits:
            holder.waited_s += passed_s
        else:
            holder.waited_s = max(holder.waited_s - passed_s * self._share, 0.0)
        limit_s = self._waited_max_s / 2 if holder.distrusted else self._waited_max_s
        holder.distrusted = holder.waited_s > limit_s

    def _forget(self, now: float) -> None:
        for name, holder in list(self._holders.items()):
            self._pass(holder, now)
            if not holder.waits and not holder.waited_s:
                del self._holders[name]
