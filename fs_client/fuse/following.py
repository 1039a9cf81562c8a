"""Following the metadata service: it promises to tell of changes that others make, and is asked here what they are.

One call is at the service all the time. It comes back with news, or empty after a part of the lease, and is sent again
at once: that says that the news was taken, for which somebody may be waiting, and begins the lease anew. The lease is
counted from before the call was sent, so it ends here before the service takes it for over.

The service does not tell a mount of its own changes. When the outcome of one is not known (no answer in time, or nobody
waited for it) it may still be made, unseen: for as long as that may take nothing is believed.

A mount that nobody uses does not call; its lease ends, what it knew is not believed, and the first call afterwards says
whether the promises still hold.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from fs_client.settle import ended
from fs_common import methods
from fs_common.endless import keep
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from fs_common.records.following import Follow, FollowReply

if TYPE_CHECKING:
    from fs_client.fuse.mount import Mount

logger = logging.getLogger(__name__)

TRY_S = 5.0
"""For one call: much longer than a lease."""
PAUSE_S = 0.5
"""After a call that failed, and between looks at whether the mount is used again."""
REFUSED_PAUSE_S = 5.0
"""After a call by which nothing was promised."""
UNUSED_S = 10.0
"""Without a request of the kernel for so long, a mount stops calling."""
UNSURE_S = 60.0
"""Much longer than the service works on one request."""
CHANGES = frozenset(
    (
        methods.CREATE,
        methods.CLOSE,
        methods.FSYNC,
        methods.MKDIR,
        methods.MKNOD,
        methods.SYMLINK,
        methods.LINK,
        methods.UNLINK,
        methods.RMDIR,
        methods.RENAME,
        methods.SET_ATTR,
        methods.TRUNCATE,
        methods.SET_XATTR,
        methods.REMOVE_XATTR,
    )
)
"""Methods that change what is promised, without telling their caller."""


class Following:
    """Of one mount, whose `nodes` it keeps true."""

    def __init__(self, mount: "Mount") -> None:
        self._mount = mount
        self._task: asyncio.Task[None] | None = None
        self._generation = 0
        self._heard = 0
        self._turns = -1
        """Of the channel, when it was looked at last."""
        self._used_at = 0.0
        self._sure_at = 0.0
        """When every change of this mount whose outcome is not known has been made, or never will be."""

    def begin(self) -> None:
        """Start, where promises are of use: `strict` asks every time, `dataset` believes without them."""
        policy = self._mount.policy
        if not policy.strict and not policy.dataset:
            self._task = keep(self._run, "following", end_on=())

    async def close(self) -> None:
        """Stop; `begin` goes on."""
        if self._task is not None:
            self._task.cancel()
            await ended([self._task])

    def unsure(self, method: Method) -> None:
        """Whether a call of this method has changed something is not known."""
        if method in CHANGES:
            self._sure_at = self._mount.now() + UNSURE_S
            self._lose()

    def _used(self) -> bool:
        """The kernel has asked for something lately."""
        now = self._mount.now()
        turns = self._mount.channel.counters.turns
        if turns != self._turns:
            self._turns = turns
            self._used_at = now
        return now - self._used_at < UNUSED_S

    async def _run(self) -> None:
        self._lose()  # where an error ended it news may be half taken
        while True:
            if not self._used() or self._mount.now() < self._sure_at:
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                promises = await self._call()
            except EmberError as error:
                self._lose()
                if error.code is Code.UNKNOWN_METHOD:
                    logger.info("the metadata service promises nothing: it is of an older version")
                    return
                logger.debug("following: %s", error)
                await asyncio.sleep(PAUSE_S)
            else:
                if not promises:
                    self._lose()
                    await asyncio.sleep(REFUSED_PAUSE_S)

    async def _call(self) -> bool:
        """One call. False: the service promises nothing."""
        mount = self._mount
        nodes = mount.nodes
        sent = mount.now()
        request = Follow(self._generation, self._heard)
        reply: FollowReply = await mount.fs.metadata.call(methods.FOLLOW, request, timeout_s=TRY_S)
        if not reply.lease_ms:
            return False
        if mount.now() < self._sure_at:
            return True
        if reply.generation != self._generation:
            self._lose()
            self._generation = reply.generation
        self._heard = reply.number
        if reply.inodes or reply.directories:
            nodes.told(reply.inodes, reply.directories)
            for inode in reply.inodes:
                node = nodes.by_inode.get(inode)
                if node is not None and node.lookups and not node.removed:
                    # The kernel believes for a moment; it need not. An open makes sure that it does not.
                    mount.channel.invalidate_attributes(inode)
        mount.heard_at = mount.loop.time()
        nodes.believed_until = sent + reply.lease_ms / 1000
        return True

    def _lose(self) -> None:
        self._generation = self._heard = 0
        self._mount.nodes.lost()
