"""The updates of one request while they are in work, and the answer that forms.

Called by: `updates`.
"""

import asyncio
import time
from collections.abc import Collection, Sequence

from fs_common.errors import Code, EmberError
from fs_common.records.storage import ItemError, UpdateChunksReply, UpdateItem
from fs_common.rpc import Reply
from fs_storage.craq.operation import Operation
from fs_storage.payload import Payload
from fs_storage.target import Target

NO_PAYLOAD = memoryview(b"")


class UpdateRequest:
    """Operations that were asked for together, and the answer that forms. `done` when all of them are."""

    __slots__ = (
        "began_ns",
        "client",
        "disk_ns",
        "done",
        "errors",
        "forward_ns",
        "give_up",
        "items",
        "joined",
        "lengths",
        "payload",
        "queued_ns",
        "reason",
        "remaining",
        "sending",
        "source",
        "touched",
        "versions",
        "views",
    )

    def __init__(
        self,
        client: bytes,
        source: int,
        items: list[UpdateItem | None],
        views: list[memoryview],
        payload: Payload | None,
        give_up: float,
        done: "asyncio.Future[Reply]",
    ) -> None:
        self.client = client
        self.source = source
        """Target id of the predecessor; 0: a client, or this daemon itself."""
        self.items = items
        """None for a duty."""
        self.views = views
        """Each item's payload."""
        self.payload = payload
        """Held until every operation is done."""
        self.joined: list[Payload] = []
        """Payloads of WRITEs that scattered updates came to; held as long."""
        self.give_up = give_up
        """When to stop trying, on the clock of `loop.time()`."""
        self.versions = [0] * len(items)
        self.lengths = [0] * len(items)
        self.errors: list[ItemError] = []
        self.remaining = len(items)
        self.sending = 0
        """Frames on their way to a successor out of this request's memory: one may outlive what it was for, when the
        chain changes."""
        self.reason = ""
        """Why the last attempt to forward that was answered was refused."""
        self.touched: Collection[Target] = ()
        """What the answer names the holders of: the targets with an update of it, unless it is this daemon's own."""
        self.done = done
        """Of the answer."""
        self.began_ns = time.perf_counter_ns()
        self.queued_ns = -1
        """Until its first operation had its chunk; -1: none has had it yet. With the next two: where its time goes, of
        operations that go their ways side by side the sum."""
        self.disk_ns = 0
        """In the engine."""
        self.forward_ns = 0
        """Waiting for the successor."""

    def times(self) -> dict[str, int]:
        """Where the time has gone, in ns."""
        queued_ns = self.queued_ns if self.queued_ns >= 0 else time.perf_counter_ns() - self.began_ns
        return {"queue": queued_ns, "disk": self.disk_ns, "forward": self.forward_ns}

    def fail(self, index: int, code: Code, message: str) -> None:
        """Item `index` is over without having become an operation, or with its failure."""
        self.errors.append(ItemError(index, code.value.number, message))
        self._one_less()

    def finish(self, operation: Operation) -> None:
        failure = operation.failure
        if failure is None:
            self.versions[operation.request_index] = operation.version
            self.lengths[operation.request_index] = operation.length
            self._one_less()
            return
        code = failure.code
        if self.source == 0 and code in (Code.UNREACHABLE, Code.REPLICAS_DIFFER):
            # A predecessor has to know that nothing was applied, or that replicas differ. To a client the chain is
            # broken; it sends the same update again in either case.
            code = Code.CHAIN_BROKEN
        self.fail(operation.request_index, code, failure.message)

    def join(self, index: int, item: UpdateItem, payload: Payload) -> None:
        """Item `index`, a scattered update, is this WRITE from now on."""
        self.items[index] = item
        self.views[index] = payload[0]
        self.joined.append(payload)

    def sent(self) -> None:
        """A frame is off, or withdrawn."""
        self.sending -= 1
        if not self.remaining and not self.sending:
            self._release()

    def _release(self) -> None:
        for joined in self.joined:
            joined.drop()
        self.joined.clear()
        if self.payload is not None:
            self.payload.drop()
            self.payload = None

    def _one_less(self) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            if not self.sending:
                self._release()
            if not self.done.done():
                holders = [holder for target in self.touched for holder in target.holders]
                self.done.set_result(Reply(UpdateChunksReply(self.versions, self.lengths, self.errors, holders)))


def views_of(items: Sequence[UpdateItem], payload: Payload | None) -> list[memoryview]:
    """Each item's part of the payload. Raises INVALID when they do not add up."""
    whole = payload[0] if payload is not None else NO_PAYLOAD
    views = []
    position = 0
    for item in items:
        length = item.length
        if length == 0:
            views.append(NO_PAYLOAD)
            continue
        end = position + length
        if length < 0 or end > len(whole):
            raise EmberError(Code.INVALID, f"the items' lengths do not add up to the payload of {len(whole)} bytes")
        views.append(whole[position:end])
        position = end
    if position != len(whole):
        raise EmberError(Code.INVALID, f"the items take {position} bytes of a payload of {len(whole)}")
    return views


def frame_of(
    request: UpdateRequest, operations: list[Operation], chain_version: int
) -> tuple[list[UpdateItem], list[memoryview]]:
    """What the successor is sent: the items with their versions, under the chain version of now, and their payload
    where it was received."""
    items = []
    send = []
    for operation in operations:
        item = request.items[operation.request_index]
        assert item is not None
        if request.source == 0 or item.chain_version != chain_version:
            item = UpdateItem(
                item.chain,
                chain_version,
                item.inode,
                item.index,
                item.kind,
                item.offset,
                item.length,
                item.chunk_size,
                item.channel,
                item.sequence,
                item.checksums,
                item.durability,
                operation.version,
                operation.digest,
                operation.base,
            )
        items.append(item)
        if item.length:
            send.append(request.views[operation.request_index])
    if request.payload is not None and len(operations) == len(request.items) and not request.joined:
        send = list(request.payload)
    return items, send
