"""How calls of the metadata service are made: by whom, under which id, and which exception an error becomes."""

from typing import Any

from fs_client.identity import RequestIds
from fs_client.meta_client import MetaClient
from fs_client.paths import Path, encode
from fs_common import methods
from fs_common.errors import Code, EmberError, to_os_error
from fs_common.ids import ROOT_INODE
from fs_common.methods import Method
from fs_common.records import meta

ABSENT = frozenset({Code.NOT_FOUND, Code.NOT_DIRECTORY, Code.LOOP, Code.NAME_TOO_LONG})
"""Errors that say that a path names nothing."""


class MetaCalls:
    """Base of the asynchronous file system."""

    def __init__(self, metadata: MetaClient, request_ids: RequestIds, user: meta.User, umask: int) -> None:
        self.metadata = metadata
        self._request_ids = request_ids
        self.user = user
        """As whom this process acts."""
        self.umask = umask
        """Permission bits that new files and directories do not get."""
        self.closed = False

    # How calls are made

    async def meta_call(
        self,
        method: Method,
        request: Any,
        path: Path | None = None,
        second: Path | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Call the metadata service; raises `OSError` of the class that fits, with `path` as its filename.

        `timeout_s`: what is left of the caller's time; by default the client's.
        """
        self.check_open()
        try:
            return await self.metadata.call(method, request, timeout_s=timeout_s)
        except EmberError as error:
            translated = to_os_error(error, path)
            if second is not None:
                translated.filename2 = second
            raise translated from error

    def check_open(self) -> None:
        if self.closed:
            raise ValueError("the file system is closed")

    def request_id(self) -> bytes:
        return self._request_ids.next()

    async def _attributes(self, path: Path, follow: bool = True) -> meta.Attributes:
        request = meta.Stat(ROOT_INODE, encode(path), follow, self.user)
        reply: meta.AttributesReply = await self.meta_call(methods.STAT, request, path)
        return reply.attributes

    async def _attributes_or_none(self, path: Path, follow: bool = True) -> meta.Attributes | None:
        self.check_open()
        try:
            request = meta.Stat(ROOT_INODE, encode(path), follow, self.user)
            reply: meta.AttributesReply = await self.metadata.call(methods.STAT, request)
        except FileNotFoundError:
            return None
        except EmberError as error:
            if error.code in ABSENT:
                return None
            raise to_os_error(error, path) from error
        return reply.attributes
