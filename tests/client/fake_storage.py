"""A storage daemon on byte arrays: the records and the rules of the real one, and faults on demand."""

import asyncio
from collections.abc import Callable

from crc32c import crc32c

from fs_common import methods
from fs_common.checksums import page_checksums
from fs_common.errors import Code, EmberError
from fs_common.layout import Durability
from fs_common.records import scattered
from fs_common.records.routing import Chain, PublicState
from fs_common.records.session import Empty
from fs_common.records.storage import (
    Holder,
    ItemError,
    ListChunks,
    ListChunksReply,
    ReadChunksReply,
    ReadItem,
    SyncChainsReply,
    UpdateChunksReply,
    UpdateItem,
    UpdateKind,
)
from fs_common.rpc import Call, Reply, Service
from fs_common.transports import tcp

ChunkKey = tuple[int, int, int]
"""Chain, inode, index."""


class FakeStorage:
    """One node. Updates reach all serving replicas at once, through `others`."""

    def __init__(self, cluster: str, node: int, chains: dict[int, Chain]) -> None:
        self.node = node
        self.chains = chains
        """What this daemon believes; by default the cluster's own dict."""
        self.others: dict[int, FakeStorage] = {}
        self.chunks: dict[ChunkKey, bytearray] = {}
        self.answers: dict[tuple[bytes, int], tuple[int, int]] = {}
        """By (client, channel): last sequence and the length it made."""
        self.reads: list[ReadItem] = []
        self.updates: list[UpdateItem] = []
        """Applied here as head, each once."""
        self.read_frames = 0
        self.update_frames = 0
        self.duplicates = 0
        self.bytes_in_work = 0
        self.most_bytes_in_work = 0
        self.corrupt: set[ChunkKey] = set()
        self.suspected: list[ChunkKey] = []
        """What clients told it of."""
        """Chunks of which wrong bytes are sent."""
        self.read_fault: Callable[[ReadItem], EmberError | None] = lambda item: None
        self.frame_fault: Callable[[], EmberError | None] = lambda: None
        """Raised instead of answering a read frame."""
        self.update_fault: Callable[[UpdateItem], EmberError | None] = lambda item: None
        """Answered instead of applying."""
        self.refuse_scattered = False
        """As a daemon of an older release does."""
        self.lists = 0
        self.synced: list[list[int]] = []
        """Chains of each request to sync."""
        self.on_disk: dict[ChunkKey, bytes] = {}
        """What a power cut leaves of `chunks`."""
        self.incarnation = 1
        """Of its store: grows with each power cut."""
        self.lost_replies = 0
        """So many update frames are applied, and then the connection seems to break."""
        self.gate: asyncio.Event | None = None
        """Reads, updates and syncs wait for it before they are answered. Belongs to the servers' loop."""
        self.arrived = asyncio.Event()
        """Something waits at the gate."""
        self.server: tcp.Server | None = None
        self.service = Service("storage", cluster, node)
        self.service.register(methods.READ_CHUNKS, self._read)
        self.service.register(methods.UPDATE_CHUNKS, self._update, allocate=_allocate)
        self.service.register(methods.SYNC_CHAINS, self._sync)
        self.service.register(methods.SUSPECT_CHUNKS, self._suspect)
        self.service.register(methods.LIST_CHUNKS, self._list)

    async def _read(self, call: Call) -> Reply:
        self.read_frames += 1
        await self._pass_gate()
        fault = self.frame_fault()
        if fault is not None:
            raise fault
        lengths: list[int] = []
        checksums: list[bytes] = []
        errors: list[ItemError] = []
        parts: list[bytes] = []
        for place, item in enumerate(call.request.items):
            self.reads.append(item)
            try:
                data = self._read_one(item)
            except EmberError as error:
                errors.append(ItemError(place, error.code.value.number, error.message))
                data = b""
            lengths.append(len(data))
            checksums.append(page_checksums(memoryview(data), item.offset, item.chunk_size))
            if data and (item.chain, item.inode, item.index) in self.corrupt:
                data = bytes([data[0] ^ 1]) + data[1:]
            parts.append(data)
        return Reply(ReadChunksReply(lengths, checksums, errors), parts)

    def _read_one(self, item: ReadItem) -> bytes:
        fault = self.read_fault(item)
        if fault is not None:
            raise fault
        self._check_chain(item.chain, item.chain_version)
        chunk = self.chunks.get((item.chain, item.inode, item.index))
        if chunk is None:
            raise EmberError(Code.CHUNK_NOT_FOUND, "no such chunk")
        return bytes(chunk[item.offset : item.offset + item.length])

    def _check_chain(self, chain_id: int, version: int) -> Chain:
        chain = self.chains.get(chain_id)
        if chain is None:
            raise EmberError(Code.CHAIN_UNKNOWN, f"chain {chain_id} is unknown")
        if chain.version != version:
            raise EmberError(Code.CHAIN_VERSION, f"chain {chain_id} has version {chain.version}, not {version}")
        if self.node not in [t.node for t in chain.targets if t.state == PublicState.SERVING]:
            raise EmberError(Code.NOT_SERVING, f"node {self.node} does not serve chain {chain_id}")
        return chain

    async def _update(self, call: Call) -> Reply:
        self.update_frames += 1
        size = sum(map(len, call.payload))
        self.bytes_in_work += size
        self.most_bytes_in_work = max(self.most_bytes_in_work, self.bytes_in_work)
        await self._pass_gate()
        self.bytes_in_work -= size
        items: list[UpdateItem] = call.request.items
        assert len({(item.inode, item.index) for item in items}) == len(items), "one update a chunk"
        assert len({item.channel for item in items}) == len(items), "one update a channel"
        versions: list[int] = []
        lengths: list[int] = []
        errors: list[ItemError] = []
        payload = memoryview(b"".join(call.payload))
        start = 0
        for place, item in enumerate(items):
            data = payload[start : start + item.length]
            start += item.length
            try:
                lengths.append(self._update_one(call.request.client, item, data))
                versions.append(1)
            except EmberError as error:
                errors.append(ItemError(place, error.code.value.number, error.message))
                lengths.append(0)
                versions.append(0)
        if self.lost_replies:
            self.lost_replies -= 1
            raise EmberError(Code.PEER_GONE, "the connection broke before the answer came")
        chains = dict.fromkeys(item.chain for item, version in zip(items, versions, strict=True) if version)
        holders = [
            self.others[target.node]._holder(chain)
            for chain in chains
            for target in self.chains[chain].targets
            if target.state == PublicState.SERVING
        ]
        return Reply(UpdateChunksReply(versions, lengths, errors, holders))

    def _update_one(self, client: bytes, item: UpdateItem, data: memoryview) -> int:
        fault = self.update_fault(item)
        if fault is not None:
            raise fault
        chain = self._check_chain(item.chain, item.chain_version)
        serving = [t.node for t in chain.targets if t.state == PublicState.SERVING]
        if serving[0] != self.node:
            raise EmberError(Code.NOT_HEAD, f"node {self.node} is not the head of chain {item.chain}")
        pieces = [(item.offset, data)]
        if item.kind == UpdateKind.SCATTER:
            if self.refuse_scattered:
                raise EmberError(Code.INVALID, f"an update of kind {item.kind} is not taken")
            if item.checksums != crc32c(data).to_bytes(4, "little"):
                raise EmberError(Code.CHECKSUM, "the payload does not match its checksum")
            pieces = scattered.unpack(data, item.chunk_size)
            assert pieces[0][0] == item.offset
        elif page_checksums(data, item.offset, item.chunk_size) != item.checksums:
            raise EmberError(Code.CHECKSUM, "the payload does not match its checksums")
        if any(offset + len(piece) > item.chunk_size for offset, piece in pieces):
            raise EmberError(Code.INVALID, "beyond the chunk's size")
        key = (client, item.channel)
        last, length = self.answers.get(key, (0, 0))
        if item.sequence < last:
            raise EmberError(Code.UPDATE_STALE, f"channel {item.channel} is at {last}, not {item.sequence}")
        if item.sequence == last:
            self.duplicates += 1
            return length
        self.updates.append(item)
        if item.kind == UpdateKind.REMOVE:
            for node in serving:
                self.others[node].chunks.pop((item.chain, item.inode, item.index), None)
                self.others[node].answers[key] = (item.sequence, 0)
                self.others[node]._applied(item)
            return 0
        assert item.kind in (UpdateKind.WRITE, UpdateKind.SCATTER)
        for node in serving:
            chunk = self.others[node].chunks.setdefault((item.chain, item.inode, item.index), bytearray())
            for offset, piece in pieces:
                if len(chunk) < offset:
                    chunk.extend(bytes(offset - len(chunk)))
                chunk[offset : offset + len(piece)] = piece
            length = len(chunk)
            self.others[node].answers[key] = (item.sequence, length)
            self.others[node]._applied(item)
        return length

    def _applied(self, item: UpdateItem) -> None:
        if item.durability == Durability.DISK:
            self._to_disk(lambda key: key == (item.chain, item.inode, item.index))

    def _to_disk(self, which: Callable[[ChunkKey], bool]) -> None:
        self.on_disk = {key: data for key, data in self.on_disk.items() if not which(key)}
        self.on_disk |= {key: bytes(chunk) for key, chunk in self.chunks.items() if which(key)}

    def power_cut(self) -> None:
        """The machine of this daemon starts again: it has what was on its disk."""
        self.incarnation += 1
        self.chunks = {key: bytearray(data) for key, data in self.on_disk.items()}

    def mend(self, other: "FakeStorage") -> None:
        """Before it serves again, a replica is given what the others of its chains have."""
        for key, chunk in other.chunks.items():
            if self.node in [target.node for target in self.chains[key[0]].targets]:
                self.chunks[key] = bytearray(chunk)
        self._to_disk(lambda key: True)

    def _holder(self, chain: int) -> Holder:
        (target,) = [target.target for target in self.chains[chain].targets if target.node == self.node]
        return Holder(chain, target, self.incarnation)

    def _suspect(self, call: Call) -> Reply:
        self.suspected += [(chunk.chain, chunk.inode, chunk.index) for chunk in call.request.chunks]
        return Reply(Empty())

    def _list(self, call: Call) -> Reply:
        asked: ListChunks = call.request
        self._check_chain(asked.chain, asked.chain_version)
        self.lists += 1
        found = sorted(
            index
            for chain, inode, index in self.chunks
            if (chain, inode) == (asked.chain, asked.inode) and index >= asked.first
        )
        shown = found[: asked.limit]
        lengths = [len(self.chunks[asked.chain, asked.inode, index]) for index in shown]
        return Reply(ListChunksReply(shown, lengths, len(found) > len(shown)))

    async def _sync(self, call: Call) -> Reply:
        await self._pass_gate()
        for chain, version in zip(call.request.chains, call.request.chain_versions, strict=True):
            self._check_chain(chain, version)
        self._to_disk(lambda key: key[0] in call.request.chains)
        self.synced.append(list(call.request.chains))
        return Reply(SyncChainsReply(list(map(self._holder, call.request.chains))))

    async def _pass_gate(self) -> None:
        if self.gate is not None:
            self.arrived.set()
            await self.gate.wait()

    def cut(self, inode: int, length: int, chunk_size: int) -> None:
        """A truncate, as the metadata service drives it."""
        for chain, of, index in list(self.chunks):
            if of == inode:
                keep = length - index * chunk_size
                if keep <= 0:
                    del self.chunks[chain, of, index]
                else:
                    del self.chunks[chain, of, index][keep:]

    def length(self, inode: int, chunk_size: int) -> int:
        """The end of the last byte stored of a file, on this node."""
        ends = [index * chunk_size + len(chunk) for (_, of, index), chunk in self.chunks.items() if of == inode]
        return max(ends, default=0)


def _allocate(request: object, length: int) -> list[memoryview]:
    return [memoryview(bytearray(length))]
