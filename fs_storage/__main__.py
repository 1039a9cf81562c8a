"""The storage daemon as a process: `python -m fs_storage [--config F]`, which is `emberfs storage [--config F]`.

Prints `ready storage <host>:<port>` once the manager has acknowledged it. A start that cannot succeed says why in one
line on stderr: exit status 2 for the configuration, 1 for everything else. SIGTERM and SIGINT end it in order, status
0. A process that the manager takes for one that has left ends with status 1, to be started again; one whose core found
its own state impossible with status 70.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from fs_common import heap, making
from fs_common.config import STORAGE_VARIABLES, ConfigError, load, own_values
from fs_common.errors import EmberError, Retry
from fs_common.live_config import LiveConfig
from fs_common.making import Making
from fs_common.manager_client import ManagerClient, NodeAddress, pull_config
from fs_common.records.cluster_config import PushedConfig
from fs_common.service_manager import tell_ready
from fs_common.settings import STORAGE
from fs_common.telemetry import configure_logging, last_word, log_crashes
from fs_common.tls.files import TlsFiles
from fs_common.token_file import daemon_token
from fs_storage.config import StorageConfig
from fs_storage.directory import DirectoryRefused, NodeDirectory, claim
from fs_storage.engine.interface import ChunkStore
from fs_storage.engine.store import open_store
from fs_storage.pages import start_http
from fs_storage.service import Daemon

logger = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
EXIT_FAILED = 1
EXIT_VIOLATION = 70
PULL_S = 1.0
"""How long a start waits for a manager to tell the cluster's configuration; without, it is the one known last."""
ACKNOWLEDGE_S = 10.0
"""How often a daemon that no manager acknowledges says so."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="emberfs storage", description="A storage daemon of EmberFS.")
    parser.add_argument("--config", type=Path, help="TOML file; its keys: fs_storage/config.py")
    making.add_options(parser)
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, StorageConfig, STORAGE_VARIABLES, os.environ)
        own = own_values(options.config, StorageConfig, STORAGE_VARIABLES, os.environ)
        live = LiveConfig(STORAGE, StorageConfig, own)
    except ConfigError as error:
        return _refuse(str(error), EXIT_CONFIGURATION)
    configure_logging(f"storage-{config.node}", config.log_json, config.log_level)
    log_crashes()
    # numpy, loaded when the first large update comes, would start a thread for each processor that it never uses here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        tls = TlsFiles.of_daemon(config.tls_dir, STORAGE, config.node) if config.tls_dir else None
    except EmberError as error:
        return _refuse(f"tls_dir: {error.message}", EXIT_CONFIGURATION)
    make = Making.YES if options.only else options.making
    try:
        with claim(Path(config.directory), config.cluster, config.node, make) as directory:
            if options.only:
                return 0
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_serve(live, directory, tls))
    except DirectoryRefused as error:
        return _refuse(str(error), EXIT_FAILED)


async def _serve(live: LiveConfig[StorageConfig], directory: NodeDirectory, tls: TlsFiles | None) -> int:
    async def open_target(target: int, make: bool) -> ChunkStore:
        capacity = config.capacity_bytes
        return await open_store(directory.target(target), target=target, capacity_bytes=capacity, make=make)

    def take(pushed: PushedConfig) -> None:
        if live.offer(pushed):
            directory.keep_config(pushed)

    def token() -> str:
        return daemon_token(live.running.token_file)

    directory.sweep()
    live.offer(directory.kept_config())
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    pulled = await pull_config(live.running.manager, live.running.cluster, STORAGE, PULL_S, tls, token)
    if pulled is not None:
        take(pulled)
    config = live.running
    configure_logging(f"storage-{config.node}", config.log_json, config.log_level)
    daemon = Daemon(config, open_target, directory, tls)
    try:
        bound, port = await daemon.start()
    except EmberError as error:
        await daemon.close()
        return _refuse(error.message, EXIT_CONFIGURATION)
    except OSError as error:
        await daemon.close()
        return _refuse(f"cannot listen on {config.bind}:{config.port}: {error.strerror}", EXIT_FAILED)
    host = config.host if config.listen else bound
    try:
        http = start_http(config, daemon, tls)
    except EmberError as error:
        await daemon.close()
        return _refuse(error.message, EXIT_FAILED)
    who = NodeAddress(config.cluster, config.node, host, port, directory.cluster_uuid)
    manager = ManagerClient(
        config.manager,
        who,
        daemon.status,
        keep_cluster=directory.keep_cluster,
        tls=tls,
        token=token,
    )
    live.connect(daemon.apply)
    manager.follow_config(lambda: live.report, take)
    daemon.join(manager)
    ended = loop.create_task(stopped.wait())
    joined = loop.create_task(_acknowledged(manager))
    dismissed = loop.create_task(manager.dismissed.wait())
    ends = (ended, dismissed, daemon.violation)
    status = 0
    try:
        await asyncio.wait((joined, *ends), return_when=asyncio.FIRST_COMPLETED)
        if joined.done() and (refusal := joined.result()) is not None:
            return _refuse(str(refusal), EXIT_FAILED)
        if joined.done():
            heap.freeze()
            print(f"ready storage {host}:{port}", flush=True)
            tell_ready()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if dismissed.done():
            status = _refuse("the manager says that this process has left: it ends, to be started again", EXIT_FAILED)
        if daemon.violation.done():
            status = _refuse(f"state is impossible: {daemon.violation.result()}", EXIT_VIOLATION)
    finally:
        for task in (ended, joined, dismissed):
            task.cancel()
        await asyncio.gather(ended, joined, dismissed, return_exceptions=True)
        if http is not None:
            await http.close()
        await daemon.close()
    return status


async def _acknowledged(manager: ManagerClient) -> EmberError | None:
    """Wait for the first lease. Returns the refusal that waiting cannot change, or None."""
    while True:
        try:
            await manager.wait_acknowledged(ACKNOWLEDGE_S)
        except EmberError as error:
            if error.retry is Retry.FINAL:
                return error
            logger.warning("waiting for a manager: %s", error)
        else:
            return None


def _refuse(message: str, status: int) -> int:
    last_word("emberfs storage", message)
    return status


if __name__ == "__main__":
    sys.exit(main())
