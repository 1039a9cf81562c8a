"""Keeps work in the background to a share of the event loop's time. Pure: seconds in, seconds out.

Whoever works tells how long each step took and waits for as long as it is told: then all steps together take at most
`share` of the time since work began, and no two steps follow each other directly. Steps should be short: what a call in
the foreground waits for is one of them.
"""


class Pace:
    def __init__(self, share: float) -> None:
        self._rest = 1 / share - 1
        """Seconds to leave to others for each second of work."""
        self._paid_until = 0.0
        """When all work so far is paid for."""

    def pause_s(self, worked_s: float, now: float) -> float:
        """How long to wait after a step that took `worked_s` and ended at `now`."""
        self._paid_until = max(self._paid_until, now) + worked_s * self._rest
        return self._paid_until - now
