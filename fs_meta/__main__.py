"""The metadata server as a process: `python -m fs_meta [--config F]`, which is `emberfs meta [--config F]`.

Prints `ready meta <host>:<port>` once it serves. A start that cannot succeed says why in one line on stderr: exit
status 2 for the configuration, 1 for everything else. SIGTERM and SIGINT end it in order, status 0. A process whose
store has stopped working (its disk failed) ends with status 1, so that whoever runs it starts it anew.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from fs_common import heap, making
from fs_common.config import META_VARIABLES, ConfigError, load, own_values
from fs_common.errors import Code, EmberError
from fs_common.http_server import HttpServer
from fs_common.live_config import LiveConfig
from fs_common.making import Making
from fs_common.service_manager import tell_ready
from fs_common.settings import META
from fs_common.telemetry import configure_logging, last_word, log_crashes
from fs_common.tls.files import TlsFiles
from fs_meta import server
from fs_meta.config import MetaConfig
from fs_meta.format import Found, prepare_store
from fs_meta.kv.interface import KeyValueStore
from fs_meta.kv.open import open_store
from fs_meta.manager.cluster_config import stored_config
from fs_meta.manager.service import start_manager
from fs_meta.pages import start_http
from fs_meta.service_time import stored_ns
from fs_meta.users.files import write_tokens
from fs_meta.users.users import Users

_log = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
EXIT_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="emberfs meta", description="A metadata server of EmberFS.")
    parser.add_argument("--config", type=Path, help="TOML file; its keys: fs_meta/config.py")
    parser.add_argument(
        "--new-admin-token",
        action="store_true",
        help="write a new token of the administrator to tokens_dir, and revoke the one before, which was lost",
    )
    making.add_options(parser)
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, MetaConfig, META_VARIABLES, os.environ)
        own = own_values(options.config, MetaConfig, META_VARIABLES, os.environ)
        live = LiveConfig(META, MetaConfig, own)
    except ConfigError as error:
        return _refuse(str(error), EXIT_CONFIGURATION)
    configure_logging("meta", config.log_json, config.log_level)
    log_crashes()
    try:
        tls = TlsFiles.of_daemon(config.tls_dir, META) if config.tls_dir else None
    except EmberError as error:
        return _refuse(f"tls_dir: {error.message}", EXIT_CONFIGURATION)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(
            _format(config) if options.only else _serve(live, options.making, tls, options.new_admin_token)
        )


async def _format(config: MetaConfig) -> int:
    try:
        kv = open_store(config.store_url)
        try:
            await _prepare(kv, config, Making.YES)
        finally:
            await kv.close()
    except EmberError as error:
        return _refuse(error.message, EXIT_FAILED)
    return 0


async def _serve(live: LiveConfig[MetaConfig], making: Making, tls: TlsFiles | None, new_admin_token: bool) -> int:
    config = live.running
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        running, http = await _start(live, making, tls, new_admin_token)
    except EmberError as error:
        return _refuse(error.message, EXIT_FAILED)
    except OSError as error:
        return _refuse(f"cannot listen on {config.bind}:{config.port}: {error.strerror}", EXIT_FAILED)
    heap.freeze()
    print(f"ready meta {running.host}:{running.port}", flush=True)
    tell_ready()
    ends = [loop.create_task(stopped.wait()), loop.create_task(running.failed.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.wait(ends)
    if http is not None:
        await http.close()
    await running.close()
    if running.failed.is_set():
        return _refuse("the metadata store has stopped working, or its state is impossible; see the log", EXIT_FAILED)
    return 0


async def _users(kv: KeyValueStore, config: MetaConfig, new_admin_token: bool) -> Users:
    """Those of the store; at the first start with security, the first ones."""
    users = Users(kv, time.time_ns, enabled=config.security_on)
    await users.load()

    def write(texts: dict[str, str]) -> None:
        try:
            write_tokens(config.first_tokens, texts)
        except OSError as error:
            message = f"tokens cannot be written to {config.first_tokens}: {error.strerror or error}"
            raise EmberError(Code.INVALID, message) from None
        _log.info("wrote %s to %s", ", ".join(texts), config.first_tokens)

    if users.enabled:
        await users.begin(write, await kv.read(stored_ns))
        if new_admin_token:
            await users.renew_administrator(write)
    elif new_admin_token:
        raise EmberError(Code.INVALID, "--new-admin-token: security is off in this configuration, nobody needs a token")
    _log.info("security is %s", "on" if users.enabled else "off: whoever reaches the ports may do anything")
    return users


async def _start(
    live: LiveConfig[MetaConfig], making: Making, tls: TlsFiles | None, new_admin_token: bool
) -> tuple[server.MetaServer, HttpServer | None]:
    """Store, manager, server, HTTP, in this order; what was started is ended again if a later one fails."""
    config = live.running
    if config.store_url.startswith("memory:"):
        making = Making.IF_MISSING  # it is empty at every start
    kv = open_store(config.store_url, make=making is not Making.NO)
    try:
        found = await _prepare(kv, config, making)
        live.offer(await stored_config(kv, META))
        config = live.running
        configure_logging("meta", config.log_json, config.log_level)
        users = await _users(kv, config, new_admin_token)
        manager = await start_manager(kv, config, found.uuid, tls, live, users)
        _log.info("control plane on %s:%d", manager.host, manager.port)
        try:
            running = await server.start(config, kv, manager, tls, users)
            live.connect(running.apply)
            running.observer.manage(manager.manager, manager.growth)
            manager.reach(running.scrubs)
        except BaseException:
            await manager.close()
            raise
    except BaseException:
        await kv.close()
        raise
    try:
        return running, start_http(config, kv, manager, running, tls)
    except BaseException:
        await running.close()
        raise


async def _prepare(kv: KeyValueStore, config: MetaConfig, making: Making) -> Found:
    return await prepare_store(kv, config.cluster, config.root_layout, os.getuid(), os.getgid(), time.time_ns(), making)


def _refuse(reason: str, status: int) -> int:
    last_word("emberfs meta", reason)
    return status


if __name__ == "__main__":
    sys.exit(main())
