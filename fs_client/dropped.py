"""Files that a program dropped without closing them, and whose ends are on their way in the background.

CPython closes a built-in file as soon as nobody holds it, so programs write `np.save(open(path, "wb"), array)` and read
the file in the next line. A finalizer must not block, so it only notes the file here; the next call of its file system
waits for what is noted.

`add` may be called from anywhere, finalizers included; the rest on the loop.
"""

import asyncio


class Dropped:
    def __init__(self) -> None:
        self._files: set[object] = set()
        self._waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._files)

    def add(self, file: object) -> None:
        self._files.add(file)

    def ended(self, file: object) -> None:
        self._files.discard(file)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Until the ends of all that are here now have come."""
        waited_for = set(self._files)
        while waited_for & self._files:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
