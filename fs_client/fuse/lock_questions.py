"""Questions of the metadata service about locks that programs of this mount may have given up already.

The kernel tells the end of an open file description behind the close that ended it, and nobody waits for that. So
before the service refuses others a lock that this mount has, it asks. While programs have locks one call is at the
service, sent before the first lock is asked for; it comes back with inodes. It is answered by the next call, when every
request that the kernel had for this mount by then was read (`Channel.caught_up`), and the ends that those told of are
through.

Nothing else waits for that: the ends may wait for other mounts, which take their own news meanwhile (`following`).
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from fs_client.fuse.locks import older_ends
from fs_client.settle import ended
from fs_common import eager, methods
from fs_common.errors import Code, EmberError
from fs_common.records import locks

if TYPE_CHECKING:
    from fs_client.fuse.mount import Mount

logger = logging.getLogger(__name__)

CALL_S = 60.0
"""For one call: longer than the service keeps it."""
PAUSE_S = 0.5
"""After a call that failed."""


class LockQuestions:
    """Of one mount."""

    def __init__(self, mount: "Mount") -> None:
        self._mount = mount
        self._task: asyncio.Task[None] | None = None
        self._refused = False
        """The service is of a version that asks nothing."""
        self._closed = False

    def expect(self) -> None:
        """A program asks for a lock: from now on there may be questions. The call is under way on return."""
        if self._task is None and not self._refused and not self._closed:
            task = eager.start(self._run(), self._mount.loop)
            self._task = task if isinstance(task, asyncio.Task) else None

    def begin(self) -> None:
        """After a hand-over, here or back to here."""
        self._closed = False
        if self._any():
            self.expect()

    async def close(self) -> None:
        """Answer nothing any more; `begin` goes on."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await ended([self._task])
            self._task = None

    def _any(self) -> bool:
        """Programs have locks, or have had them a moment ago."""
        return any(
            handle.lock_owners or handle.file.range_owners or handle.file.ending
            for handle in self._mount.handles.files.values()
        )

    async def _run(self) -> None:
        answered = 0
        try:
            while True:
                try:
                    reply: locks.LockQuestionsReply = await self._mount.fs.metadata.call(
                        methods.LOCK_QUESTIONS, locks.LockQuestions(answered), timeout_s=CALL_S
                    )
                except EmberError as error:
                    answered = 0
                    if error.code is Code.UNKNOWN_METHOD:
                        self._refused = True
                        return
                    logger.debug("questions about locks: %s", error)
                    await asyncio.sleep(PAUSE_S)
                    continue
                if not reply.inodes and not self._any():
                    return
                for inode in reply.inodes:
                    await self._end(inode)
                answered = reply.number
        finally:
            self._task = None

    async def _end(self, inode: int) -> None:
        """What programs have closed of this file by now has given up its locks."""
        mount = self._mount
        await mount.channel.caught_up()
        node = mount.nodes.by_inode.get(inode)
        if node is not None and node.file is not None:
            await older_ends(node.file, None)
