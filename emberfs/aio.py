"""EmberFS for asyncio programs: `emberfs.aio.connect`, and the classes of what it returns."""

from fs_client.aio import AsyncFileSystem, connect
from fs_client.async_stream import AsyncStream as AsyncFile

__all__ = ["AsyncFile", "AsyncFileSystem", "connect"]
