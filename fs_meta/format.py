"""A store's first transaction, and the check that a store is ours.

Commit point: the one transaction that writes format record, root and counter. A crash before it leaves an empty store,
which the next start that may do so formats.

The cluster's uuid is made here, once. Storage nodes keep it, and refuse a manager with another: a new store under an
old name would hand out the inode numbers of files whose chunks they have.
"""

from typing import NamedTuple
from uuid import uuid4

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.layout import Layout
from fs_common.making import Making
from fs_common.records.meta import FileType
from fs_meta import schema
from fs_meta.inode_ids import FIRST_INODE
from fs_meta.kv.directory import NEW_CLUSTER
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.ops.inodes import DIRECTORY_LINKS, put_inode


class Found(NamedTuple):
    """The store as it is after `prepare_store`."""

    made: bool
    """It was formatted now."""
    uuid: bytes
    """Of the cluster."""


async def prepare_store(
    kv: KeyValueStore,
    cluster: str,
    root_layout: Layout,
    uid: int,
    gid: int,
    now_ns: int,
    making: Making = Making.IF_MISSING,
) -> Found:
    """Format an empty store for `cluster` with a root directory of `uid` and `gid`; check one that is not empty.

    Raises INVALID (it is empty and may not be formatted, or the other way round), WRONG_CLUSTER (it is another
    cluster's) and VERSION_MISMATCH (another schema); the message says which is which.
    """

    new_uuid = uuid4().bytes

    async def prepare(txn: Transaction) -> Found:
        value = await txn.get(schema.FORMAT_KEY)
        if value is not None:
            if making is Making.YES:
                raise EmberError(Code.INVALID, "the metadata store is formatted already: start without --format")
            found = schema.decode_format(value)
            _check(found, cluster)
            if not found.uuid:  # of a release that made none
                txn.put(schema.FORMAT_KEY, schema.encode(msgspec.structs.replace(found, uuid=new_uuid)))
            return Found(False, found.uuid or new_uuid)
        if making is Making.NO:
            raise EmberError(Code.INVALID, f"the metadata store is empty: {NEW_CLUSTER}")
        txn.put(schema.FORMAT_KEY, schema.encode(schema.Format(cluster, schema.SCHEMA_VERSION, now_ns, new_uuid)))
        root = schema.Inode(
            FileType.DIRECTORY, 0o755, uid, gid, DIRECTORY_LINKS, 0, now_ns, now_ns, now_ns, now_ns, root_layout, 0,
            ROOT_INODE,
        )  # fmt: skip
        put_inode(txn, ROOT_INODE, root)
        txn.put(schema.NEXT_INODE_KEY, schema.encode(schema.Counter(FIRST_INODE)))
        txn.put(schema.INODES_IN_USE_KEY, schema.encode(schema.Counter(1)))
        txn.put(schema.SERVICE_TIME_KEY, schema.encode(schema.Counter(now_ns)))
        return Found(True, new_uuid)

    return await kv.transact(prepare)


def _check(found: schema.Format, cluster: str) -> None:
    if found.cluster != cluster:
        raise EmberError(
            Code.WRONG_CLUSTER,
            f"the metadata store is of cluster {found.cluster!r}, the configuration says {cluster!r}",
        )
    if found.schema != schema.SCHEMA_VERSION:
        raise EmberError(
            Code.VERSION_MISMATCH,
            f"the metadata store has schema {found.schema}, this program knows {schema.SCHEMA_VERSION}",
        )
