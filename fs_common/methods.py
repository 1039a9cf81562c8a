"""The data plane's methods: number, request record, response record. Numbers are stable for ever."""

from typing import NamedTuple

import msgspec

from fs_common.records import (
    cluster_config,
    control,
    following,
    locks,
    mending,
    meta,
    rdma,
    resync,
    routing,
    scrubbing,
    session,
    slow,
    storage,
)


class Method(NamedTuple):
    name: str
    number: int
    request: type[msgspec.Struct]
    response: type[msgspec.Struct]


HELLO = Method("hello", 1, session.Hello, session.Welcome)
PING = Method("ping", 2, session.Ping, session.Ping)
STATS = Method("stats", 3, session.Empty, session.Stats)
GET_PASS = Method("get_pass", 4, session.Empty, session.GivenPass)
SHOW_PERMIT = Method("show_permit", 6, session.ShowPermit, session.Empty)
GET_PERMIT = Method("get_permit", 7, session.GetPermit, session.PermitReply)
RDMA_CONNECT = Method("rdma_connect", 8, rdma.QueuePairEnd, rdma.QueuePairEnd)
RDMA_READY = Method("rdma_ready", 9, session.Empty, session.Empty)
SLOW_OPERATIONS = Method("slow_operations", 5, session.Empty, slow.SlowOperationsReply)

GET_ROUTING = Method("get_routing", 10, routing.GetRouting, routing.GetRoutingReply)
# 11 to 20 are not used again.
GET_CONTROL = Method("get_control", 21, control.GetControl, control.GetControlReply)
GET_MOUNT_CONFIG = Method("get_mount_config", 22, control.GetMountConfig, cluster_config.PushedConfig)

STAT = Method("stat", 100, meta.Stat, meta.AttributesReply)
BATCH_STAT = Method("batch_stat", 101, meta.BatchStat, meta.BatchAttributesReply)
LOOKUP = Method("lookup", 102, meta.Lookup, meta.AttributesReply)
STATFS = Method("statfs", 103, meta.Statfs, meta.StatfsReply)
CREATE = Method("create", 104, meta.Create, meta.OpenReply)
BATCH_CREATE = Method("batch_create", 105, meta.BatchCreate, meta.BatchAttributesReply)
OPEN = Method("open", 106, meta.Open, meta.OpenReply)
CLOSE = Method("close", 107, meta.Close, meta.AttributesReply)
FSYNC = Method("fsync", 108, meta.Fsync, meta.AttributesReply)
MKDIR = Method("mkdir", 109, meta.Mkdir, meta.AttributesReply)
READDIR = Method("readdir", 110, meta.Readdir, meta.ReaddirReply)
UNLINK = Method("unlink", 111, meta.Unlink, session.Empty)
RMDIR = Method("rmdir", 112, meta.Rmdir, session.Empty)
REMOVE_TREE = Method("remove_tree", 113, meta.RemoveTree, session.Empty)
RENAME = Method("rename", 114, meta.Rename, session.Empty)
SYMLINK = Method("symlink", 115, meta.Symlink, meta.AttributesReply)
READLINK = Method("readlink", 116, meta.Readlink, meta.ReadlinkReply)
LINK = Method("link", 117, meta.Link, meta.AttributesReply)
SET_ATTR = Method("set_attr", 118, meta.SetAttr, meta.AttributesReply)
TRUNCATE = Method("truncate", 119, meta.Truncate, meta.AttributesReply)
REAL_PATH = Method("real_path", 120, meta.RealPath, meta.RealPathReply)
USAGE = Method("usage", 121, meta.Usage, meta.UsageReply)
ACCESS = Method("access", 122, meta.Access, meta.AttributesReply)
MKNOD = Method("mknod", 123, meta.Mknod, meta.AttributesReply)
CREATE_UNNAMED = Method("create_unnamed", 124, meta.CreateUnnamed, meta.OpenReply)
GET_XATTR = Method("get_xattr", 125, meta.GetXattr, meta.XattrReply)
LIST_XATTRS = Method("list_xattrs", 126, meta.ListXattrs, meta.ListXattrsReply)
SET_XATTR = Method("set_xattr", 127, meta.SetXattr, session.Empty)
REMOVE_XATTR = Method("remove_xattr", 128, meta.RemoveXattr, session.Empty)
LOCK = Method("lock", 129, locks.Lock, locks.LockReply)
GET_LOCK = Method("get_lock", 130, locks.GetLock, locks.GetLockReply)
RELEASE_LOCKS = Method("release_locks", 131, locks.ReleaseLocks, locks.ReleaseLocksReply)
SYNC = Method("sync", 132, meta.Sync, session.Empty)
FOLLOW = Method("follow", 133, following.Follow, following.FollowReply)
KEPT = Method("kept", 134, meta.Kept, meta.KeptReply)
LOCK_QUESTIONS = Method("lock_questions", 140, locks.LockQuestions, locks.LockQuestionsReply)

READ_CHUNKS = Method("read_chunks", 200, storage.ReadChunks, storage.ReadChunksReply)
UPDATE_CHUNKS = Method("update_chunks", 201, storage.UpdateChunks, storage.UpdateChunksReply)
COMMITTED_VERSIONS = Method("committed_versions", 202, storage.CommittedVersions, storage.CommittedVersionsReply)
QUERY_LAST_CHUNK = Method("query_last_chunk", 203, storage.QueryLastChunk, storage.QueryLastChunkReply)
REMOVE_CHUNKS = Method("remove_chunks", 204, storage.RemoveChunks, storage.RemoveChunksReply)
SPACE_INFO = Method("space_info", 205, storage.SpaceInfo, storage.SpaceInfoReply)
LIST_CHUNKS = Method("list_chunks", 206, storage.ListChunks, storage.ListChunksReply)
SYNC_CHAINS = Method("sync_chains", 207, storage.SyncChains, storage.SyncChainsReply)
REMOVE_FILES = Method("remove_files", 208, storage.RemoveFiles, storage.RemoveFilesReply)
LIST_HELD = Method("list_held", 209, mending.ListHeld, mending.ListHeldReply)
LIST_REMEMBERED = Method("list_remembered", 210, mending.ListRemembered, mending.ListRememberedReply)
PULL_VERSION = Method("pull_version", 211, mending.PullVersion, mending.PullVersionReply)
FINISH_SYNC = Method("finish_sync", 212, resync.FinishSync, session.Empty)
AT_VERSION = Method("at_version", 213, resync.AtVersion, session.Empty)
SUSPECT_CHUNKS = Method("suspect_chunks", 214, scrubbing.SuspectChunks, session.Empty)
SCRUB = Method("scrub", 215, scrubbing.Scrub, scrubbing.ScrubReply)
REFILL_TARGET = Method("refill_target", 216, scrubbing.RefillTarget, session.Empty)
WARM_CHUNKS = Method("warm_chunks", 217, storage.WarmChunks, storage.WarmChunksReply)

OF_TRANSPORT = frozenset((RDMA_CONNECT.number, RDMA_READY.number))
"""How a connection goes on, whoever calls: nobody needs a right to them."""
BY_NUMBER: dict[int, Method] = {value.number: value for value in list(globals().values()) if isinstance(value, Method)}
