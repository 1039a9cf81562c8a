"""Fetches versions of chunks, whole, from other replicas of a chain.

Called by: mending (what this replica lost) and repairs (what its disk damaged).
"""

import logging

from fs_common.checksums import matches
from fs_common.errors import Code, EmberError
from fs_common.ids import split_chunk_id
from fs_common.methods import PULL_VERSION, SUSPECT_CHUNKS
from fs_common.peers import PeerPool
from fs_common.records.mending import PullVersion, PullVersionReply
from fs_common.records.routing import ChainTarget
from fs_common.records.scrubbing import SuspectChunk, SuspectChunks
from fs_storage.craq.position import Position
from fs_storage.targets import Targets

logger = logging.getLogger(__name__)

PULL_S = 60.0
TELL_S = 2.0


class Puller:
    def __init__(self, targets: Targets, peers: PeerPool) -> None:
        self._targets = targets
        self._peers = peers

    async def pull(
        self,
        position: Position,
        member: ChainTarget,
        chunk: bytes,
        digest: int,
        chunk_size: int,
        view: memoryview,
        *,
        pending: bool = False,
    ) -> PullVersionReply:
        """The version of that digest, which has as many bytes as `view`, from `member`'s store into `view`, verified
        against that store's checksums. Raises CHECKSUM: it is damaged there (which it is told); CHUNK_NOT_FOUND: it
        is not there; and what a call raises."""
        request = PullVersion(position.chain, position.version, chunk, digest, pending)
        address = self._targets.address(member.node)
        into = [view] if len(view) else []
        reply: PullVersionReply = await self._peers.call(address, PULL_VERSION, request, into=into, timeout=PULL_S)
        if reply.lengths != [len(view)]:
            raise EmberError(Code.INTERNAL, f"target {member.target} sent {reply.lengths} of {len(view)} bytes")
        if len(view) and not matches(view, 0, chunk_size, reply.checksums):
            await self._tell(position, member, chunk)
            raise EmberError(Code.CHECKSUM, f"what target {member.target} sent of chunk {chunk.hex()} is damaged")
        return reply

    async def _tell(self, position: Position, member: ChainTarget, chunk: bytes) -> None:
        suspects = SuspectChunks([SuspectChunk(position.chain, *split_chunk_id(chunk))])
        try:
            await self._peers.call(self._targets.address(member.node), SUSPECT_CHUNKS, suspects, timeout=TELL_S)
        except EmberError as error:
            logger.debug("target %d was not told of damage: %s", member.target, error)
