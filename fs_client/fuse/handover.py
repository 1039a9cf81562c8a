"""A restart of the daemon without unmounting: /dev/fuse and all that is open go to the new process.

    new                                     old
    connects to the socket of the mount
                                            stops reading requests, lets those in work end
                                            stores and settles everything
                                            sends the state, with the descriptor
    connects to the cluster as the same
    client, restores the state
    says TAKEN                              (commit point)
    reads requests                          ends, without unmounting

Before TAKEN the old process has everything still: if the new one dies or says nothing for `TAKEN_S`, it serves on. A
crash of both after that is a crash of the daemon. Requests that were read and not answered (waits for locks) are sent
again by kernels that can do that (7.40); else they end with the old daemon.

What goes over is small. Inode numbers mean the same to every daemon, so what the kernel knows needs no table; sessions
and locks are the metadata service's, by client id, so the new process is the same client. It writes under an identity
of its own, because the daemons tell old updates from new ones by that.

Who the two are to each other: `sockets`.

The message: 8 bytes length, little-endian, then `State` as msgpack; the descriptor comes with the first byte.
"""

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING

import msgspec

from fs_client.fuse import sockets
from fs_client.fuse.abi import INIT_WRITEBACK_CACHE
from fs_client.fuse.files import File
from fs_client.fuse.handles import DirectoryHandle, Handle
from fs_client.fuse.listing import Listing
from fs_client.fuse.negotiation import Negotiated
from fs_client.fuse.nodes import FOREVER
from fs_client.fuse.sockets import Role
from fs_client.fuse.users import User
from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE
from fs_common.records.meta import Attributes, DirectoryEntry
from fs_common.records.storage import Holder

if TYPE_CHECKING:
    from fs_client.fuse.mount import Mount

logger = logging.getLogger(__name__)

FORMAT = 2
FORMAT_SHORT = 1
"""Of a state without listings of several pages: older daemons take it, too."""
TAKEN = b"taken"
TAKEN_S = 30.0
STATE_BYTES_MAX = 1 << 30
_LENGTH = struct.Struct("<Q")


class OpenFile(msgspec.Struct, array_like=True):
    attributes: Attributes
    length: int
    hold: bytes
    removed: bool
    range_owners: list[int]
    cached_version: int
    unsynced: list[int] = []
    """Chains with something of it that was not synced."""


class OpenHandle(msgspec.Struct, array_like=True):
    number: int
    inode: int
    flags: int
    uid: int
    gid: int
    session: bytes
    direct: bool
    lock_owners: list[tuple[int, int]]
    lost: bool = False
    """A write was lost, and it was not told."""


class OpenDirectory(msgspec.Struct, array_like=True):
    number: int
    inode: int
    uid: int
    gid: int
    parent: int
    complete: bool
    entries: list[DirectoryEntry]
    """Without attributes, of a listing that is short. What follows stands for one that is not."""
    pages: list[tuple[int, bytes]] = []
    """`Listing.packed`; from format 2 on."""


class State(msgspec.Struct, array_like=True):
    format: int
    client: bytes
    next_number: int
    negotiated: tuple[int, int, int, int, int, int]
    """The fields of `Negotiated`."""
    files: list[OpenFile]
    handles: list[OpenHandle]
    directories: list[OpenDirectory]
    removed: list[Attributes]
    """Of removed inodes that may still be open."""
    holders: list[Holder] = []
    """Who has what was not synced."""
    unsynced: list[int] = []
    """Chains with something of closed files that was not synced."""
    root: int = ROOT_INODE
    """The directory that is mounted, wherever it is by now."""


async def give(connection: socket.socket, state: State, descriptor: int) -> bool:
    """Send everything; whether the other side has taken it."""
    connection.settimeout(TAKEN_S)

    def send() -> bool:
        data = msgspec.msgpack.encode(state)
        head = _LENGTH.pack(len(data))
        socket.send_fds(connection, [head], [descriptor])
        connection.sendall(data)
        return _receive(connection, len(TAKEN)) == TAKEN

    try:
        return await asyncio.to_thread(send)
    except OSError as error:
        logger.error("the daemon that wanted to take over is gone: %s", error)
        return False


def receive(mountpoint: str) -> tuple[socket.socket, State, int]:
    """The connection to the old daemon, the state, the descriptor. Raises `EmberError`, OSError."""
    try:
        connection = sockets.connect(mountpoint, Role.TAKEOVER)
    except (FileNotFoundError, ConnectionRefusedError):
        raise EmberError(
            Code.NOT_FOUND, f"{mountpoint} has no daemon that could be relieved; mount without --takeover"
        ) from None
    try:
        # However long that takes: the old daemon stores what was written first, for as long as there is progress, and
        # its end is the connection's.
        head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 1)
        if len(head) < _LENGTH.size or not descriptors:
            raise EmberError(Code.CANCELLED, f"the daemon of {mountpoint} does not hand over; its log says why")
        os.set_inheritable(descriptors[0], False)
        (length,) = _LENGTH.unpack(head)
        connection.settimeout(TAKEN_S)
        if length > STATE_BYTES_MAX:
            raise EmberError(Code.BAD_BODY, f"a state of {length} bytes")
        try:
            state = msgspec.msgpack.decode(_receive(connection, length), type=State)
        except msgspec.DecodeError as error:
            raise EmberError(Code.BAD_BODY, f"the old daemon's state: {error}") from error
        if state.format not in (FORMAT_SHORT, FORMAT):
            raise EmberError(
                Code.VERSION_MISMATCH, f"the old daemon hands over in format {state.format}, this one takes {FORMAT}"
            )
        if negotiated_of(state).has(INIT_WRITEBACK_CACHE):
            raise EmberError(
                Code.NOT_SUPPORTED, f"{mountpoint} was mounted with writeback, which is not there any more; mount anew"
            )
        return connection, state, descriptors[0]
    except BaseException:
        connection.close()
        raise


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 20))
        if not part:
            break
        data += part
    return bytes(data)


def capture(mount: "Mount", negotiated: Negotiated) -> State:
    """All that is open. Nothing of it is in work, and everything is settled."""
    files = {handle.file.inode: handle.file for handle in mount.handles.files.values()}
    for file in files.values():
        file.look_for_losses()
    holders, unsynced = mount.fs.storage.unsynced.captured()
    directories = [
        OpenDirectory(
            handle.number,
            handle.inode,
            handle.user.uid,
            handle.user.gid,
            handle.parent,
            handle.listing.complete,
            *_listing_of(handle),
        )
        for handle in mount.handles.directories.values()
    ]
    return State(
        FORMAT if any(directory.pages for directory in directories) else FORMAT_SHORT,
        mount.client,
        mount.handles.next_number,
        (
            negotiated.minor,
            negotiated.flags,
            negotiated.max_write,
            negotiated.max_readahead,
            negotiated.max_background,
            negotiated.congestion_threshold,
        ),
        [
            OpenFile(
                file.node.attributes,
                file.length,
                file.hold,
                file.node.removed,
                list(file.range_owners),
                file.node.cached_version,
                list(file.unsynced.marks),
            )
            for file in files.values()
            if file.node.attributes is not None
        ],
        [
            OpenHandle(
                handle.number,
                handle.file.inode,
                handle.flags,
                handle.user.uid,
                handle.user.gid,
                handle.session,
                handle.direct,
                list(handle.lock_owners),
                handle.error_seen != handle.file.error_count,
            )
            for handle in mount.handles.files.values()
        ],
        directories,
        [
            node.attributes
            for node in mount.nodes.by_inode.values()
            if node.removed and node.file is None and node.attributes is not None
        ],
        holders,
        unsynced,
        mount.root,
    )


def _listing_of(handle: DirectoryHandle) -> tuple[list[DirectoryEntry], list[tuple[int, bytes]]]:
    """`entries`, `pages`"""
    pages = handle.listing.pages
    entries = pages[0].entries if len(pages) == 1 else []
    if entries is None or None in entries:
        entries = []
    if len(pages) > 1 or (pages and not entries):
        return [], handle.listing.packed()
    return [DirectoryEntry(entry.name, entry.inode, entry.type) for entry in entries if entry is not None], []


def restore(mount: "Mount", state: State) -> None:
    """Everything that the old daemon had open is open here."""
    handles = mount.handles
    unsynced = mount.fs.storage.unsynced
    unsynced.restore(state.holders, state.unsynced)
    for kept in state.files:
        node = mount.nodes.node(kept.attributes.inode)
        node.attributes = kept.attributes
        node.removed = kept.removed
        node.cached_version = kept.cached_version
        if kept.removed:
            node.expires = FOREVER
        file: File = mount.file(kept.attributes)
        file.ref.length = kept.length
        file.hold = kept.hold
        file.range_owners = set(kept.range_owners)
        unsynced.restore_share(file.unsynced, kept.unsynced)
    for attributes in state.removed:
        node = mount.nodes.node(attributes.inode)
        node.attributes, node.removed, node.expires = attributes, True, FOREVER
        # The kernel knows it still, and will say when it does not.
        node.lookups = 1
    for one in state.handles:
        file = mount.file(mount.nodes.node(one.inode).attributes)  # type: ignore[arg-type]
        handle = Handle(one.number, file, one.flags, User(one.uid, one.gid, []), one.session)
        handle.direct = one.direct
        handle.lock_owners = set(one.lock_owners)
        if one.lost:
            file.lost_before(handle)
        handles.files[one.number] = handle
        file.handles.add(handle)
    for listing in state.directories:
        directory = DirectoryHandle(listing.number, listing.inode, User(listing.uid, listing.gid, []))
        directory.parent = listing.parent
        if listing.pages:
            directory.listing = Listing.unpacked(listing.pages, listing.complete)
        else:
            directory.listing.add(listing.entries, listing.complete)
        handles.directories[listing.number] = directory
    handles.next_number = max(handles.next_number, state.next_number)


def negotiated_of(state: State) -> Negotiated:
    minor, flags, max_write, max_readahead, max_background, congestion_threshold = state.negotiated
    return Negotiated(minor, flags, max_write, max_readahead, max_background, congestion_threshold)
