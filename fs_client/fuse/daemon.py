"""The mount daemon: one process, one event loop, one mounted cluster.

    connect -> mount(2) -> INIT -> ready -> serve -> (SIGTERM, umount) -> store everything -> end

It ends when it is told to (SIGTERM, SIGINT: it unmounts), when somebody else has unmounted, or when another daemon has
taken over (`handover`). What programs have written is stored before it ends, however long that takes while there is
progress (`ending`).

It never waits for itself: the mountpoint is resolved once, before it is mounted on, and nothing that this process does
afterwards on the loop's thread looks at a path in its own mount (`_stay_outside`).

A cluster that does not answer does not end it: calls are tried again until their deadline, and connections are made
anew at every call.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fs_client import aio
from fs_client.fuse import handover, mountpoint, sockets
from fs_client.fuse.channel import Channel, End
from fs_client.fuse.cluster_settings import ClusterSettings
from fs_client.fuse.control import Control
from fs_client.fuse.ending import Audience, give_up, tell_losses, while_progress
from fs_client.fuse.mount import Mount
from fs_client.fuse.mountpoint import MountError, MountSettings
from fs_client.fuse.negotiation import Negotiated, Wanted
from fs_client.fuse.operation_log import OperationLog
from fs_client.fuse.ops.table import all_handlers
from fs_client.fuse.options import METRICS_HOST, NO_PORT, SLOW_OPERATION_MS
from fs_client.fuse.policy import Policy
from fs_client.fuse.sockets import Role
from fs_client.fuse.wakeful import Wakeful
from fs_client.options import Options
from fs_client.settle import ended
from fs_common import heap, methods
from fs_common.endless import keep
from fs_common.errors import Code, EmberError
from fs_common.ids import ROOT_INODE, ClientId
from fs_common.limits import MIB
from fs_common.records import meta
from fs_common.records.session import MOUNT
from fs_common.settings import MountConfig
from fs_common.slow_operations import SlowOperations
from fs_common.telemetry import set_log_level

if TYPE_CHECKING:
    from fs_common.http_server import HttpServer

logger = logging.getLogger(__name__)

STALL_MARGIN_S = 1.0
"""At the end, what is not stored is given up when nothing was stored for as long as a call may take, and so much more:
a call that fails says why."""
INIT_S = 10.0
"""The kernel sends INIT as soon as it has mounted."""


@dataclass(slots=True)
class DaemonSettings:
    """What a mount was asked to be."""

    cluster: Options
    mountpoint: str
    """As the user names it; the daemon resolves it before it mounts."""
    directory: str = "/"
    """Of the cluster: what becomes the root of the mount."""
    policy: Policy = field(default_factory=Policy)
    kernel: MountSettings = field(default_factory=lambda: MountSettings(source="emberfs"))
    wanted: Wanted = field(default_factory=Wanted)
    read_ahead_bytes: int = 16 * MIB
    low_latency: bool = False
    """Processors do not sleep deeply while the mount is used."""
    remount: bool = False
    """No daemon is wanted: the one that serves the mountpoint serves on, and the kernel's flags change."""
    takeover: bool = False
    """Go on in the place of the daemon that serves the mountpoint now."""
    log: str = ""
    """Where a daemon in the background writes; empty: a place by the mountpoint."""
    log_level: str = "info"
    log_json: bool = False
    metrics_port: int = NO_PORT
    """Where it gives its figures to Prometheus. 0: any free port."""
    metrics_host: str = METRICS_HOST
    """The address to listen on for that."""
    slow_operation_ms: int = SLOW_OPERATION_MS
    own: Mapping[str, Any] = field(default_factory=dict)
    """Of the keys that the cluster may configure, what was said here."""


async def serve(settings: DaemonSettings, ready: Callable[[], None]) -> End:
    """Mount and serve until the end. `ready` is called once programs can use the mount.

    Raises `OSError` when the cluster does not answer or the mount is not possible; then nothing is mounted.
    """
    asked = os.path.abspath(settings.mountpoint)
    settings = replace(settings, mountpoint=mountpoint.resolved(settings.mountpoint))
    _stay_outside(settings.mountpoint)
    if settings.takeover:
        return await _take_over(settings, asked, ready)
    fs = await aio.connect_with(settings.cluster, program=MOUNT + settings.mountpoint)
    try:
        root = await _root(fs, settings)
        descriptor = mountpoint.mount(settings.mountpoint, settings.kernel)
    except BaseException:
        await fs.close()
        raise
    daemon = _Daemon(settings, asked, fs, descriptor, root)
    return await daemon.run(ready)


async def _root(fs: aio.AsyncFileSystem, settings: DaemonSettings) -> int:
    """The directory to mount, as its path leads there for who mounts. Whoever may use the mount need not be let through
    the directories above. Raises `OSError`."""
    if settings.directory == "/":
        return ROOT_INODE
    where = f"{settings.kernel.source} cannot be mounted: "
    try:
        request = meta.Stat(ROOT_INODE, os.fsencode(settings.directory), user=fs.user)
        reply: meta.AttributesReply = await fs.metadata.call(methods.STAT, request)
    except EmberError as error:
        if error.code is Code.NOT_FOUND:
            message = f"the cluster has no {settings.directory}; make the directory first (emberfs mkdir)"
        elif error.code is Code.NOT_DIRECTORY:
            message = f"something on the way to {settings.directory} is not a directory"
        elif error.code is Code.ACCESS_DENIED:
            message = f"you may not pass a directory above {settings.directory}"
        else:
            raise
        raise MountError(error.errno or errno.EIO, where + message) from None
    if reply.attributes.type is not meta.FileType.DIRECTORY:
        raise MountError(errno.ENOTDIR, f"{where}{settings.directory} is not a directory; mount a directory")
    return reply.attributes.inode


def _stay_outside(path: str) -> None:
    """Modules that are imported later, and the lines of a traceback, are looked for along `sys.path`; and a process
    that is in a directory keeps it in use."""
    os.chdir("/")
    sys.path[:] = [place for place in sys.path if place and not f"{os.path.realpath(place)}/".startswith(f"{path}/")]


async def _take_over(settings: DaemonSettings, asked: str, ready: Callable[[], None]) -> End:
    """Go on where the daemon that serves the mountpoint now ends, with the directory that is mounted: its path may have
    changed since. Raises `OSError`; then that one serves on."""
    connection, state, descriptor = handover.receive(settings.mountpoint)
    with connection:
        try:
            program = MOUNT + settings.mountpoint
            fs = await aio.connect_with(settings.cluster, client=ClientId(state.client), program=program)
        except BaseException:
            os.close(descriptor)
            raise
        daemon = _Daemon(settings, asked, fs, descriptor, state.root, handover.negotiated_of(state))
        handover.restore(daemon.mount, state)
        connection.sendall(handover.TAKEN)
    logger.info("took over %s with %d open files", settings.mountpoint, len(state.handles))
    return await daemon.run(ready)


class _Daemon:
    """What runs between the mount and its end."""

    def __init__(
        self,
        settings: DaemonSettings,
        asked: str,
        fs: aio.AsyncFileSystem,
        descriptor: int,
        root: int,
        negotiated: Negotiated | None = None,
    ) -> None:
        """`settings`: with a resolved mountpoint, `asked`: as the user named it. `negotiated`: the kernel's INIT was
        answered by another daemon."""
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.mount = Mount(fs, settings.policy, root)
        if settings.policy.control:
            self.mount.control = Control(self.mount, (settings.mountpoint, asked))
        self._wakeful = Wakeful(self._loop) if settings.low_latency else None
        self._audience = Audience(settings.mountpoint)
        self._pages: HttpServer | None = None
        """What it tells over HTTP."""
        self._log = OperationLog(SlowOperations(settings.slow_operation_ms))
        self._settled = ClusterSettings(fs, settings.own, self._reconfigure)
        self._handlers = all_handlers(self.mount)
        self._taken_over = negotiated is not None
        self._ended: asyncio.Future[End | None] = self._loop.create_future()
        """None: another daemon has it now."""
        self._open_channel(descriptor, negotiated)

    def _open_channel(self, descriptor: int, negotiated: Negotiated | None) -> None:
        self._descriptor = descriptor
        channel = self.mount.channel = Channel(
            descriptor,
            self._handlers,
            wanted=self._settings.wanted,
            negotiated=negotiated,
            timeout_s=self._settings.cluster.timeout_s,
            max_pages_limit=mountpoint.max_pages_limit(),
            on_end=self._end_with,
            progress=lambda: self.mount.progress_at,
            log=self._log,
            root=self.mount.root,
        )
        channel.turn_done = self.mount.reads.turn_done if self._wakeful is None else self._turn_done
        channel.memory_wanted = self.mount.push_all
        channel.unwanted = self.mount.unwanted

    def _turn_done(self) -> None:
        assert self._wakeful is not None
        self._wakeful.used()
        self.mount.reads.turn_done()

    def _end_with(self, end: End | None) -> None:
        if not self._ended.done():
            self._ended.set_result(end)

    async def run(self, ready: Callable[[], None]) -> End:
        settings, mount, loop = self._settings, self.mount, self._loop
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        stopping = loop.create_task(stop.wait())
        relief: asyncio.Task[None] | None = None
        try:
            self._open_pages()
            mount.channel.start()
            async with asyncio.timeout(INIT_S):
                await mount.channel.ready()
            if self._taken_over:
                mount.channel.notify_resend()
            _set_up_device(settings)
            mount.begin()
            self._settled.begin()
            heap.freeze()
            relief = keep(self._wait_for_relief, "waiting for relief", end_on=())
            try:
                self._audience.listen()
            except OSError as error:
                logger.warning("`emberfs umount` cannot wait for the end of %s: %s", settings.mountpoint, error)
            logger.info("%s is mounted at %s", settings.kernel.source, settings.mountpoint)
            ready()
            waited: list[asyncio.Future[Any]] = [stopping, self._ended]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            end = self._ended.result() if self._ended.done() else End.UNMOUNTED
            return End.UNMOUNTED if end is None else end
        finally:
            stopping.cancel()
            if self._wakeful is not None:
                self._wakeful.close()
            await self._settled.close()
            await self._close_pages()
            if relief is not None:
                relief.cancel()
                await ended([relief])
            handed_over = self._ended.done() and self._ended.result() is None
            if handed_over:
                self._audience.close(unlink=False)
                await mount.leave()
                logger.info("another daemon serves %s now", settings.mountpoint)
            else:
                try:
                    await self._end()
                finally:
                    self._audience.close()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _reconfigure(self, settings: MountConfig) -> None:
        set_log_level(settings.log_level)
        self._log.slow.set_threshold(settings.slow_operation_ms)
        self._log.look()

    def _open_pages(self) -> None:
        """Raises UNREACHABLE, INVALID."""
        if self._settings.metrics_port != NO_PORT and self._pages is None:
            from fs_client.fuse.pages import start_http

            self._pages = start_http(
                self._settings.metrics_host, self._settings.metrics_port, self.mount, self._log.slow
            )

    async def _close_pages(self) -> None:
        pages, self._pages = self._pages, None
        if pages is not None:
            await pages.close()

    @property
    def _stall_s(self) -> float:
        return self._settings.cluster.timeout_s + STALL_MARGIN_S

    async def _end(self) -> None:
        """Unmount if we are still mounted, store everything, close."""
        mount, channel = self.mount, self.mount.channel
        if channel.ended is None:
            # In a thread: unmounting makes the kernel send requests, which this loop answers.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(mountpoint.unmount, self._settings.mountpoint, lazy=True)

        async def work() -> None:
            for error in await mount.flush_all():
                logger.error("at the end: %s", error)
            await channel.close()
            await mount.close()

        lost_before = mount.lost_bytes
        working = self._loop.create_task(work())
        try:
            if await while_progress(mount, working, self._stall_s, self._audience):
                working.result()
            else:
                give_up(mount, self._stall_s)
        finally:
            tell_losses(mount, lost_before, self._audience)
            await mount.fs.close()
        logger.info("%s is unmounted", self._settings.mountpoint)

    async def _flush(self) -> list[EmberError]:
        """Store and settle everything; what went wrong."""
        flushing = self._loop.create_task(self.mount.flush_all())
        if await while_progress(self.mount, flushing, self._stall_s, None):
            return flushing.result()
        return [EmberError(Code.TIMED_OUT, f"nothing could be stored for {self._stall_s:.0f} s")]

    async def _wait_for_relief(self) -> None:
        """Until somebody takes over: whoever connects to the mount's socket as the same user."""
        try:
            listener = sockets.listen(self._settings.mountpoint, Role.TAKEOVER)
        except OSError as error:
            logger.warning("nobody can take over %s: %s", self._settings.mountpoint, error)
            return
        with listener:
            try:
                while not self._ended.done():
                    connection, _ = await self._loop.sock_accept(listener)
                    with connection:
                        if sockets.is_ours(connection) and await self._hand_over(connection):
                            self._end_with(None)
            finally:
                if not self._ended.done() or self._ended.result() is not None:
                    # Otherwise it is the other daemon's by now.
                    sockets.leave(self._settings.mountpoint, Role.TAKEOVER)

    async def _hand_over(self, connection: socket.socket) -> bool:
        """Whether the mount is the other process's now. If not, this one serves on."""
        mount = self.mount
        negotiated = mount.channel.negotiated
        if negotiated is None or mount.channel.ended is not None:
            return False
        logger.info("another daemon wants to take over %s", self._settings.mountpoint)
        descriptor = self._descriptor
        detached = False
        try:
            # Most of it while programs go on; what they write meanwhile is little.
            await self._flush()
            detached = True
            await mount.channel.detach()
            await mount.quiet()
            # The other one follows as the same client: what it is told must not be heard here.
            await mount.following.close()
            await mount.lock_questions.close()
            errors = await self._flush()
            for error in errors:
                logger.error("not handed over: %s", error)
            # The other one listens where this one did.
            await self._close_pages()
            if not errors and await handover.give(connection, handover.capture(mount, negotiated), descriptor):
                os.close(descriptor)
                return True
        except Exception:
            logger.exception("not handed over by a defect")
        except BaseException:
            if detached:
                self._serve_on(descriptor, negotiated)
            raise
        if detached:
            self._serve_on(descriptor, negotiated)
        return False

    def _serve_on(self, descriptor: int, negotiated: Negotiated) -> None:
        """After a hand-over that came to nothing."""
        self._open_pages()
        self.mount.following.begin()
        self.mount.lock_questions.begin()
        self._open_channel(descriptor, negotiated)
        self.mount.channel.start()
        self.mount.channel.notify_resend()


def _set_up_device(settings: DaemonSettings) -> None:
    entry = mountpoint.entry_of(settings.mountpoint)
    if entry is None or not mountpoint.set_read_ahead(entry, settings.read_ahead_bytes):
        logger.info("the kernel's read-ahead stays as it is: only root may change it")
