"""What a client process of the storm and the storm tell each other: one JSON list a line.

    to the storm   ["begin", register, value, start]              before a write is sent
                   ["write", register, value, start, end]         it was acknowledged
                   ["read", register, value, start, end, whom]    what was read
                   ["step"]                                       something else was acknowledged, or found right
                   ["refused", text]                              an error that the caller of the file system got
                   ["wrong", text]                                a wrong byte
                   ["paused"], ["ended"]
    to the client  ["pause"], ["go"], ["end"]

Times are `time.monotonic()`, which is the same clock for all processes of a machine.
"""

import asyncio
import json
import os
import sys
import threading


def say(*values: object) -> None:
    """One write, so that lines of threads do not mix and a process that is killed has said all of a line or nothing."""
    os.write(1, json.dumps(values).encode() + b"\n")


class Orders:
    """What the storm wants, as known to all threads of a client."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paused = False
        self.over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            (order,) = json.loads(line)
            with self._changed:
                self._paused = order == "pause"
                self.over = self.over or order == "end"
                self._changed.notify_all()
        with self._changed:
            self.over = True
            self._paused = False
            self._changed.notify_all()

    @property
    def paused(self) -> bool:
        return self._paused and not self.over

    def wait(self) -> None:
        """Until work is wanted, or no more."""
        with self._changed:
            self._changed.wait_for(lambda: not self.paused)

    async def wait_soon(self) -> None:
        while self.paused:
            await asyncio.sleep(0.02)
