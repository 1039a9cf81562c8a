"""Updates as a client would make them, and reads checked as a client would check them."""

import os
from collections.abc import Callable

from fs_common.checksums import matches, page_checksums
from fs_common.errors import EmberError
from fs_common.ids import chunk_id
from fs_common.layout import Durability
from fs_common.records.storage import UpdateKind
from fs_common.rpc import FileRange
from fs_storage.engine.disk import Disk
from fs_storage.engine.interface import ChunkRead, ChunkStore, Prepared, Update, WouldBlock

CHUNK_SIZE = 64 * 1024
PAGE = 4096
CHUNK = bytes(chunk_id(7, 0))
CLIENT = b"client-0123456.."

ReadRange = Callable[[FileRange], bytes]


def update(
    kind: UpdateKind,
    version: int,
    *,
    chunk: bytes = CHUNK,
    offset: int = 0,
    payload: bytes = b"",
    chunk_size: int = CHUNK_SIZE,
    durability: int = Durability.DISK,
    client: bytes = b"",
    channel: int = 0,
    sequence: int = 0,
    chain_version: int = 1,
) -> Update:
    at = offset if kind == UpdateKind.WRITE else 0
    view = memoryview(payload)
    return Update(
        chunk,
        kind,
        offset,
        view,
        page_checksums(view, at, chunk_size),
        chunk_size,
        version,
        chain_version,
        durability,
        client,
        channel,
        sequence,
    )


def write(version: int, payload: bytes, offset: int = 0, **rest: object) -> Update:
    return update(UpdateKind.WRITE, version, payload=payload, offset=offset, **rest)  # type: ignore[arg-type]


def truncate(version: int, length: int, **rest: object) -> Update:
    return update(UpdateKind.TRUNCATE, version, offset=length, **rest)  # type: ignore[arg-type]


def remove(version: int, **rest: object) -> Update:
    return update(UpdateKind.REMOVE, version, **rest)  # type: ignore[arg-type]


def replace(version: int, payload: bytes, **rest: object) -> Update:
    return update(UpdateKind.REPLACE, version, payload=payload, **rest)  # type: ignore[arg-type]


async def prepared(store: ChunkStore, *updates: Update) -> list[Prepared]:
    results = await store.prepare(updates)
    for result in results:
        if isinstance(result, EmberError):
            raise result
    return results  # type: ignore[return-value]


async def refused(store: ChunkStore, one: Update) -> EmberError:
    (result,) = await store.prepare([one])
    assert isinstance(result, EmberError), result
    return result


async def apply(store: ChunkStore, *updates: Update) -> None:
    """Prepare and commit."""
    await prepared(store, *updates)
    await store.commit([(one.chunk, one.version) for one in updates])


def read_real_file(part: FileRange) -> bytes:
    return os.pread(part.file, part.length, part.offset)


def disk_reader(disk: Disk) -> ReadRange:
    def read(part: FileRange) -> bytes:
        data = bytearray(part.length)
        count = disk.read(part.file, (data,), part.offset)
        return bytes(data[:count])

    return read


def take(
    store: ChunkStore,
    chunk: bytes = CHUNK,
    offset: int = 0,
    length: int = CHUNK_SIZE,
    *,
    pending: bool = False,
    chunk_size: int = CHUNK_SIZE,
    read_range: ReadRange = read_real_file,
    verify: bool = True,
) -> bytes:
    """Read, get the bytes as the sender would, verify them as the client would, release."""
    buffer = memoryview(bytearray(length))
    try:
        answer = store.read(chunk, offset, length, buffer, pending=pending)
    except WouldBlock:
        answer = store.read_blocking(chunk, offset, length, buffer, pending=pending)
    data = received(answer, read_range)
    assert len(data) == answer.length
    if verify:
        assert matches(memoryview(data), offset, chunk_size, answer.checksums), "what was read matches its checksums"
    return data


def received(answer: ChunkRead, read_range: ReadRange = read_real_file) -> bytes:
    part = answer.part
    data = read_range(part) if isinstance(part, FileRange) else bytes(part)
    if answer.release is not None:
        answer.release()
    return data
