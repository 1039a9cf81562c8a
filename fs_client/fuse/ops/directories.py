"""OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.

A listing is fetched page by page, with attributes, the next page while the kernel takes the one before. The handle has
the last few pages, and of others what it takes for cookies (`telldir`) to keep their meaning (`listing`); reading from
the start fetches it anew.
"""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from typing import Any

from fs_client.fuse import answers, requests, shown
from fs_client.fuse.abi import Opcode
from fs_client.fuse.control import FIRST
from fs_client.fuse.handles import DirectoryHandle
from fs_client.fuse.kernel_request import Handler, Request, Result
from fs_client.fuse.listing import Page
from fs_client.fuse.mount import Mount
from fs_client.fuse.users import User, user_of
from fs_common import methods
from fs_common.errors import Code, EmberError
from fs_common.records import meta

PAGE_FIRST = 256
PAGE_MAX = 1024
"""Entries. A page of this size is a few milliseconds of the service's time."""
_TYPE_NUMBERS = {type_: bits >> 12 for type_, bits in shown.TYPE_BITS.items()}
_DIRECTORY = _TYPE_NUMBERS[meta.FileType.DIRECTORY]
_DOTS = 2
"""`.` and `..` come first."""


def handlers(mount: Mount) -> Mapping[int, Handler]:
    nodes = mount.nodes

    def opendir(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        """The kernel has checked permission, or the service is asked to: who has a directory open may read it."""
        if mount.answers_from_memory(request) or request.node >= FIRST:
            return opened(request)
        return opendir_checked(request)

    async def opendir_checked(request: Request) -> Result:
        await mount.call_as(request, methods.ACCESS, lambda user: meta.Access(request.node, os.R_OK, user))
        return opened(request)

    def opened(request: Request) -> bytes:
        handle = mount.handles.open_directory(request.node, user_of(request))
        return answers.open_out(handle.number, 0)

    async def fetch(handle: DirectoryHandle) -> None:
        """The next page of the listing."""
        listing = handle.listing
        if handle.inode >= FIRST:
            listing.add(mount.control.listing(handle.inode) if mount.control is not None else (), True)
            return
        after = listing.last
        if not after:
            known = nodes.listing(handle.inode, mount.now())
            if known is not None:
                listing.add(known, True)
                return
        reply = await page(handle, after, PAGE_MAX if after else PAGE_FIRST)
        if handle.listing is listing and listing.last == after and not listing.complete:
            listing.add(reply.entries, not reply.more or not reply.entries)

    async def page(handle: DirectoryHandle, after: bytes, limit: int) -> meta.ReaddirReply:
        stamp = nodes.stamp()
        try:
            # As the mount itself: that the program may read the directory was checked when it opened it.
            reply: meta.ReaddirReply = await mount.call(
                methods.READDIR, meta.Readdir(handle.inode, after, limit, True, User())
            )
        except EmberError as error:
            if error.code is not Code.STALE:
                raise
            # A directory that was removed while it is open is empty.
            mount.gone.is_gone(handle.inode)
            return meta.ReaddirReply([], False)
        nodes.adopt_page(handle.inode, after, reply.entries, reply.more, stamp, mount.now(), reply.promised)
        return reply

    async def recall(handle: DirectoryHandle, past: Page) -> None:
        """The entries of a page that were dropped, as far as they are still there."""
        listing = handle.listing
        names = past.names()
        found: dict[bytes, meta.DirectoryEntry] = {}
        after = past.after
        while after < names[-1]:
            reply = await page(handle, after, PAGE_MAX)
            found.update((entry.name, entry) for entry in reply.entries)
            if not reply.more or not reply.entries:
                break
            after = reply.entries[-1].name
        listing.recalled(past, found)

    async def fetch_ahead(handle: DirectoryHandle) -> None:
        try:
            await fetch(handle)
        except EmberError:
            # Whoever needs the page asks for it, and is told.
            pass
        finally:
            handle.ahead = None

    async def have(handle: DirectoryHandle, place: int) -> int:
        """Fetch until an entry at `place` or behind it is here, or none follows. Its place, or that of what was lost
        before it."""
        while True:
            listing = handle.listing
            here = listing.page_at(place)
            if here is None:
                if listing.complete:
                    break
                if handle.ahead is not None:
                    await asyncio.wait([handle.ahead])
                else:
                    await fetch(handle)
            elif here.entries is None:
                await recall(handle, here)
            elif here.has_from(place):
                break
            else:
                place = here.end
        if not handle.parent:
            handle.parent = await parent_of(handle.inode)
        return place

    async def parent_of(inode: int) -> int:
        if inode == mount.root:
            return inode
        try:
            node = await mount.attributes(inode)
        except EmberError:
            return inode
        assert node.attributes is not None
        return node.attributes.parent or inode

    def look_ahead(handle: DirectoryHandle, place: int) -> None:
        """The kernel has come near the end of what is here: fetch what follows."""
        listing = handle.listing
        if not listing.complete and handle.ahead is None and listing.count - place < PAGE_MAX // 2:
            handle.ahead = mount.spawn(fetch_ahead(handle))

    def read(request: Request, pack: Any) -> bytes | Coroutine[Any, Any, Result]:
        asked = requests.parse_read(request.body)
        handle = mount.handles.directory(asked.fh)
        if asked.offset == 0:
            handle.restart()
        place = max(asked.offset - _DOTS, 0)
        here = handle.listing.page_at(place)
        if handle.parent and (handle.listing.complete if here is None else here.has_from(place)):
            body: bytes = pack(handle, asked, here, place)
            look_ahead(handle, place)
            return body
        return read_slow(handle, asked, pack)

    async def read_slow(handle: DirectoryHandle, asked: requests.Read, pack: Any) -> Result:
        place = await have(handle, max(asked.offset - _DOTS, 0))
        body: bytes = pack(handle, asked, handle.listing.page_at(place), place)
        look_ahead(handle, place)
        return body

    def pack_plain(handle: DirectoryHandle, asked: requests.Read, here: Page | None, place: int) -> bytes:
        """Entries of one page, from `place` on."""
        packer = answers.DirentPacker(asked.size)
        offset = asked.offset
        if offset < 1 and not packer.add(handle.inode, 1, _DIRECTORY, b"."):
            return packer.body()
        if offset < 2 and not packer.add(handle.parent, 2, _DIRECTORY, b".."):
            return packer.body()
        if here is None or here.entries is None:
            return packer.body()
        entries = here.entries
        cookies = here.first + _DOTS + 1
        for index in range(place - here.first, here.count):
            entry = entries[index]
            if entry is not None and not packer.add(
                entry.inode, cookies + index, _TYPE_NUMBERS[entry.type], entry.name
            ):
                break
        return packer.body()

    def pack_plus(handle: DirectoryHandle, asked: requests.Read, here: Page | None, place: int) -> bytes:
        """Each entry with attributes counts one look-up of its inode. Flat: it runs for every file of a listing."""
        packer = answers.DirentPlusPacker(asked.size)
        add = packer.add
        offset = asked.offset
        nothing = answers.NO_ENTRY
        if offset < 1 and not add(nothing, handle.inode, 1, _DIRECTORY, b"."):
            return packer.body()
        if offset < 2 and not add(nothing, handle.parent, 2, _DIRECTORY, b".."):
            return packer.body()
        if here is None or here.entries is None:
            return packer.body()
        entries = here.entries
        cookies = here.first + _DOTS + 1
        by_inode = nodes.by_inode
        known_names = nodes.names(handle.inode)
        names = known_names.entries
        now = mount.now()
        promised_until = min(nodes.believed_until, now + nodes.name_s) if known_names.promised else now
        fresh = nodes.fresh
        entry_bytes = shown.entry
        for index in range(place - here.first, here.count):
            entry = entries[index]
            if entry is None:
                continue
            node = by_inode.get(entry.inode)
            known = names.get(entry.name)
            # What is not known any more by now is looked up when somebody wants it.
            until = max(known[1], promised_until) if known is not None and known[0] == entry.inode else now
            usable = until > now and node is not None and fresh(node, now)
            data = entry_bytes(node, until, now) if usable else nothing  # type: ignore[arg-type]
            if not add(data, entry.inode, cookies + index, _TYPE_NUMBERS[entry.type], entry.name):
                break
            if usable:
                node.lookups += 1  # type: ignore[union-attr]
        return packer.body()

    def readdir(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        return read(request, pack_plain)

    def readdirplus(request: Request) -> bytes | Coroutine[Any, Any, Result]:
        return read(request, pack_plus)

    def releasedir(request: Request) -> None:
        mount.handles.directories.pop(requests.parse_release(request.body).fh, None)

    async def fsyncdir(request: Request) -> Result:
        """Names that were made, changed or removed before are durable."""
        await mount.call(methods.SYNC, meta.Sync())
        return None

    return {
        Opcode.OPENDIR: opendir,
        Opcode.READDIR: readdir,
        Opcode.READDIRPLUS: readdirplus,
        Opcode.RELEASEDIR: releasedir,
        Opcode.FSYNCDIR: fsyncdir,
    }
