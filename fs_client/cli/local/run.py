"""The supervisor as a process: locks the directory, decides what the cluster is, runs it until a signal ends it.

SIGINT, SIGTERM and SIGHUP stop the cluster; a second one kills what is slow to stop. SIGUSR1 starts every daemon that
has ended, at once.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import uvloop

from fs_client.cli.failure import Failure
from fs_client.cli.local.configuration import Options, apply_options, new_cluster, require_free_ports
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord
from fs_client.cli.local.events import Event
from fs_client.cli.local.supervisor import Supervisor


def open_cluster(directory: ClusterDirectory, options: Options) -> ClusterRecord:
    """Lock the directory; the cluster in it, or a new one. Raises `Failure`; then all is as it was before, unlocked."""
    try:
        directory.lock()
        record = directory.load()
        if record is not None:
            apply_options(record, options, directory.path)
            return record
    except BaseException:
        directory.leave()
        raise
    try:
        record = new_cluster(options)
        require_free_ports(record)
        if options.mountpoint and not Path(options.mountpoint).is_dir():
            raise Failure(f"{options.mountpoint} is not a directory, and cannot be mounted on: make it first")
        directory.save(record)
        directory.new = True
        return record
    except BaseException:
        directory.take_away(None, logs=True)
        raise


def run_cluster(
    directory: ClusterDirectory,
    record: ClusterRecord,
    report: Callable[[Event], None],
    ready: Callable[[], None],
    *,
    restart: bool,
    mountpoint: str = "",
) -> bool:
    """Run the cluster until a signal stops it; then unlock. Whether it was ever ready.

    Raises `Failure` when it does not come up. No daemon runs any more when this returns or raises. A new cluster that
    never was ready is taken away again; the logs stay where they say why.
    """
    became_ready = False
    interrupted = False
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in handled}

    def note_ready() -> None:
        nonlocal became_ready
        became_ready = True
        ready()

    async def supervise() -> None:
        supervisor = Supervisor(directory, record, report, restart=restart, mountpoint=mountpoint)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, supervisor.stop)
        loop.add_signal_handler(signal.SIGUSR1, supervisor.start_again)
        await supervisor.run(note_ready)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(supervise())
        interrupted = True
    finally:
        if directory.new and not record.started:
            directory.take_away(record, logs=interrupted or not record.has_begun)
        directory.unlock()
        # The loop is closed, and leaves its own behind. Until here nothing may break in.
        for number, handler in before.items():
            signal.signal(number, handler)
    return became_ready
