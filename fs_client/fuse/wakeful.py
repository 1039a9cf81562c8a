"""Keeps processors from deep sleep while a mount is used: `-o low_latency`.

A single small operation is mostly the waking of idle processors, on virtual machines above all. The kernel is asked for
wake-ups without latency through /dev/cpu_dma_latency (the quality of service interface of its power management), from
the first request until none has come for a while. It holds for all processors of the machine, which use more power
meanwhile. Only root may ask.
"""

import asyncio
import logging
import os

logger = logging.getLogger(__name__)

DEVICE = "/dev/cpu_dma_latency"
IDLE_S = 1.0
"""Without a request for so long, and twice so long at most, the processors may sleep."""
_NO_LATENCY = (0).to_bytes(4, "little")
"""A signed number of microseconds, in the order of this machine; zero is the same in both."""


class Wakeful:
    """One mount's request to the kernel. Used on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, device: str = DEVICE) -> None:
        self._loop = loop
        self._device = device
        self._file = -1
        """The kernel keeps the request for as long as this is open."""
        self._used = False
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False

    @property
    def holding(self) -> bool:
        return self._file >= 0

    def used(self) -> None:
        """A request has come."""
        self._used = True
        if self._timer is None and not self._refused:
            self._hold()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._refused = True
        self._release()

    def _hold(self) -> None:
        try:
            self._file = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._file, _NO_LATENCY)
        except OSError as error:
            self._refused = True
            self._release()
            logger.warning("low_latency has no effect: %s: %s", self._device, error.strerror)
            return
        self._timer = self._loop.call_later(IDLE_S, self._look)

    def _look(self) -> None:
        if self._used:
            self._used = False
            self._timer = self._loop.call_later(IDLE_S, self._look)
        else:
            self._timer = None
            self._release()

    def _release(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
