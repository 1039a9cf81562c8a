"""The mount daemon: one process, one event loop, one mounted cluster.

    connect -> mount(2) -> INIT -> ready -> serve -> (SIGTERM, umount) -> store everything -> end

It ends when it is told to (SIGTERM, SIGINT: it unmounts), or when somebody else has unmounted. What programs have
written is stored before it ends, within `END_S`.

A cluster that does not answer does not end it: calls are tried again until their deadline, and connections are made
anew at every call.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fs_client import aio
from fs_client.fuse import mountpoint
from fs_client.fuse.channel import Channel, End
from fs_client.fuse.control import Control
from fs_client.fuse.mount import Mount
from fs_client.fuse.mountpoint import MountSettings
from fs_client.fuse.negotiation import Wanted
from fs_client.fuse.ops.table import all_handlers
from fs_client.fuse.policy import Policy
from fs_client.options import Options
from fs_common.limits import MIB

logger = logging.getLogger(__name__)

END_S = 30.0
"""For storing what was written, at the end."""
INIT_S = 10.0
"""The kernel sends INIT as soon as it has mounted."""
YOUNG_OBJECTS = 20_000
"""Records and nodes come and go by the thousand and form no cycles: the collector need not look at them as often."""


@dataclass(slots=True)
class DaemonSettings:
    """What a mount was asked to be."""

    cluster: Options
    mountpoint: str
    policy: Policy = field(default_factory=Policy)
    kernel: MountSettings = field(default_factory=lambda: MountSettings(source="emberfs"))
    wanted: Wanted = field(default_factory=Wanted)
    read_ahead_bytes: int = 16 * MIB
    log: str = ""
    """Where a daemon in the background writes; empty: a place by the mountpoint."""


async def serve(settings: DaemonSettings, ready: Callable[[], None]) -> End:
    """Mount and serve until the end. `ready` is called once programs can use the mount.

    Raises `OSError` when the cluster does not answer or the mount is not possible; then nothing is mounted.
    """
    loop = asyncio.get_running_loop()
    fs = await aio.connect_with(settings.cluster)
    try:
        descriptor = mountpoint.mount(settings.mountpoint, settings.kernel)
    except BaseException:
        await fs.close()
        raise
    ended: asyncio.Future[End] = loop.create_future()

    def on_end(end: End) -> None:
        if not ended.done():
            ended.set_result(end)

    mount = Mount(fs, settings.policy)
    if settings.policy.control:
        mount.control = Control(mount, settings.mountpoint)
    channel = mount.channel = Channel(
        descriptor,
        all_handlers(mount),
        wanted=settings.wanted,
        timeout_s=settings.cluster.timeout_s,
        max_pages_limit=mountpoint.max_pages_limit(),
        on_end=on_end,
    )
    channel.turn_done = mount.reads.turn_done
    channel.memory_wanted = mount.push_all
    channel.unwanted = mount.unwanted
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        channel.start()
        async with asyncio.timeout(INIT_S):
            await channel.ready()
        _set_up_device(settings)
        mount.begin()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 20, 50)
        logger.info("%s is mounted at %s", settings.cluster.cluster, settings.mountpoint)
        ready()
        stopping = loop.create_task(stop.wait())
        waited: list[asyncio.Future[Any]] = [stopping, ended]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return ended.result() if ended.done() else End.UNMOUNTED
    finally:
        await _end(settings, mount, channel)


def _set_up_device(settings: DaemonSettings) -> None:
    entry = mountpoint.find(os.path.abspath(settings.mountpoint))
    if entry is None or not mountpoint.set_read_ahead(entry, settings.read_ahead_bytes):
        logger.info("the kernel's read-ahead stays as it is: only root may change it")


async def _end(settings: DaemonSettings, mount: Mount, channel: Channel) -> None:
    """Unmount if we are still mounted, store everything, close."""
    if channel.ended is None:
        # In a thread: unmounting makes the kernel send requests, which this loop answers.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(mountpoint.unmount, settings.mountpoint, lazy=True)
    try:
        async with asyncio.timeout(END_S):
            for error in await mount.flush_all():
                logger.error("at the end: %s", error)
            await channel.close()
            await mount.close()
    except TimeoutError:
        logger.error("what programs wrote was not stored within %.0f s; giving up", END_S)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
        await mount.fs.close()
    logger.info("%s is unmounted", settings.mountpoint)
