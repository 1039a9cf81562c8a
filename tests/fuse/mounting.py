"""File systems of tests, mounted in truth."""

import asyncio
import contextlib
import functools
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fs_client.fuse import mountpoint
from fs_client.fuse.channel import Channel
from fs_client.fuse.kernel_request import Handler
from fs_client.fuse.mountpoint import MountError, MountSettings

SOURCE = "127.0.0.1:9700"


@functools.cache
def why_not() -> str:
    """Why nothing can be mounted here; empty where it can."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            descriptor = mountpoint.mount(directory, settings())
        except MountError as error:
            return str(error)
        os.close(descriptor)
        mountpoint.unmount(directory, lazy=True)
    return ""


def settings(**more: Any) -> MountSettings:
    more.setdefault("allow_other", os.geteuid() == 0)
    return MountSettings(source=SOURCE, **more)


needs_mount = pytest.mark.skipif(bool(why_not()), reason=f"nothing can be mounted here: {why_not()}")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextlib.asynccontextmanager
async def mounted(
    directory: Path, handlers: Mapping[int, Handler], *, kernel: MountSettings | None = None, **more: Any
) -> AsyncIterator[Channel]:
    """Served by this process's loop; unmounted at the end whatever happened."""
    descriptor = mountpoint.mount(str(directory), kernel or settings())
    channel = Channel(descriptor, handlers, **more)
    channel.start()
    try:
        await channel.ready()
        yield channel
    finally:
        # Whoever hangs in it gets an error, so that no thread of the test outlives it.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(mountpoint.unmount, str(directory), lazy=True, force=True)
        await channel.close(grace_s=1.0)
