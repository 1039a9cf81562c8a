"""A backup of the metadata store while it is used: everything that was acknowledged before it was asked for.

Steps: a checkpoint puts what is in the journal into LMDB; another process copies LMDB's snapshot; header and digest go
around it (`backup_format`). The copy may hold some later changes, always a prefix of the history.

Called by: the control plane.
"""

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import AsyncGenerator

from fs_common.errors import Code, EmberError
from fs_common.release import RELEASE
from fs_meta import schema
from fs_meta.backup_format import Header, encode_head
from fs_meta.kv.directory import FORMAT_VERSION
from fs_meta.kv.interface import KeyValueStore, Transaction

PART_BYTES = 1 << 20


async def backup(kv: KeyValueStore, cluster: str) -> AsyncGenerator[bytes, None]:
    """The file, in parts. Raises INVALID (a store in memory), KV_FULL (no room for a checkpoint), INTERNAL."""
    from fs_meta.kv.lmdb_engine import LmdbStore  # only this engine needs the package `lmdb`

    if not isinstance(kv, LmdbStore):
        raise EmberError(Code.INVALID, "this cluster's metadata store is in memory: there is nothing to keep")

    async def look(txn: Transaction) -> bytes:
        found = await txn.get(schema.FORMAT_KEY)
        return b"" if found is None else schema.decode_format(found).uuid

    uuid = await kv.read(look)
    await kv.checkpoint()
    digest = hashlib.sha256()
    head = encode_head(Header(cluster, uuid, RELEASE, time.time_ns(), FORMAT_VERSION))
    digest.update(head)
    yield head
    copy = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "fs_meta.kv.copying", str(kv.path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=PART_BYTES,
    )
    try:
        assert copy.stdout is not None and copy.stderr is not None
        while part := await copy.stdout.read(PART_BYTES):
            digest.update(part)
            yield part
        errors = await copy.stderr.read()
        if await copy.wait():
            raise EmberError(Code.INTERNAL, f"the store could not be copied: {errors.decode(errors='replace').strip()}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            copy.kill()
        await copy.wait()
    yield digest.digest()
