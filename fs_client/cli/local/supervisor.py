"""Runs the daemons of one cluster as child processes, from the first start to the last stop.

Each daemon has one task (`_keep`), which alone starts it, waits for its end and starts it again; `_stop_daemons`
signals them. Nothing is signalled but by pidfd. A daemon that ends unasked is always reported; it is started again
with growing delays (or, with `restart` off, when `start_again` says so), because a cluster on a laptop is expected
to heal without anybody watching it.

Order of the end: the mount first, so that it can store what programs wrote; then the manager is told that the whole
cluster rests; then storage daemons, so that each can tell it that it leaves; then the metadata service.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence

from fs_client.cli.failure import Failure
from fs_client.cli.local import process
from fs_client.cli.local.certificates import make_certificates
from fs_client.cli.local.configuration import require_free_ports, write_configuration
from fs_client.cli.local.directory import ClusterDirectory, ClusterRecord, DaemonRecord
from fs_client.cli.local.events import Event, Kind
from fs_client.cli.local.identity import identify
from fs_client.cli.local.process import Process
from fs_client.options import Address
from fs_common.errors import EmberError
from fs_common.token_file import read_token_file

SERVING_TIMEOUT_S = 60.0
"""From the start of a daemon to its ready line: a store that is recovered after a crash takes its time."""
READY_TIMEOUT_S = 60.0
STOP_GRACE_S = 15.0
"""From SIGTERM to SIGKILL, for the storage daemons together and then for the metadata service."""
REST_TIMEOUT_S = 2.0
"""A metadata service that does not answer has nobody to tell."""
MOUNT_GRACE_S = 600.0
"""The same for a mount, which ends by itself when everything is stored, or when nothing is stored any more."""
RESTART_DELAY_MIN_S = 0.5
RESTART_DELAY_MAX_S = 15.0
STEADY_S = 30.0
"""A daemon that served this long is started again after the shortest delay."""
MODULES = {"meta": "fs_meta", "storage": "fs_storage", "mount": "fs_client.cli"}
"""Role -> the module that is the daemon."""


class Supervisor:
    """One run of a cluster. The directory is locked by the caller for all of it."""

    def __init__(
        self,
        directory: ClusterDirectory,
        record: ClusterRecord,
        report: Callable[[Event], None],
        *,
        restart: bool,
        modules: Mapping[str, str] = MODULES,
        mountpoint: str = "",
    ) -> None:
        """`mountpoint`: where the cluster is mounted while it runs; empty: nowhere."""
        self._directory = directory
        self._record = record
        self._report = report
        self._restart = restart
        self._modules = modules
        self._mountpoint = mountpoint
        self._processes: dict[str, Process] = {}
        """By name: the processes that run, or ended and have not been replaced."""
        self._lost: list[DaemonRecord] = []
        """Storage daemons whose data is gone: they are not started."""
        self._stopping = asyncio.Event()
        self._start_again = asyncio.Event()
        """Set for a moment: every keeper that waits to start its daemon again does so now."""

    def stop(self) -> None:
        """End the cluster. A second call kills what still runs."""
        if self._stopping.is_set():
            for running in self._processes.values():
                running.send_signal(signal.SIGKILL)
        self._stopping.set()

    @property
    def _tls_ca(self) -> str:
        """What clients of this cluster trust; "": it has no TLS."""
        return str(self._directory.tls_ca.absolute()) if self._record.tls else ""

    def start_again(self) -> None:
        """Start every daemon that has ended, now."""
        self._start_again.set()
        self._start_again.clear()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start the cluster, call `ready` once it is, run until `stop`. Raises `Failure` when it does not come up.

        On return and on any error, cancellation included, no daemon runs any more.
        """
        self._lost = self._directory.require_data(self._record)
        require_free_ports(self._record)
        write_configuration(self._directory, self._record)
        if self._record.tls:
            make_certificates(self._directory, self._record)
        self._record.supervisor = identify(os.getpid())
        for daemon in self._lost:
            daemon.ready = False
            text = "its directory is gone, and it is left out; its replicas are made on other nodes, where there are"
            self._report(Event(Kind.ENDED, daemon.name, text))
        kept = [daemon for daemon in self._record.daemons if daemon not in self._lost]
        serving = [asyncio.get_running_loop().create_future() for _ in kept]
        keepers = [asyncio.create_task(self._keep(daemon, first)) for daemon, first in zip(kept, serving, strict=True)]
        stop = asyncio.create_task(self._stopping.wait())
        come_up = asyncio.create_task(self._come_up(serving, keepers))
        try:
            await asyncio.wait([come_up, stop], return_when=asyncio.FIRST_COMPLETED)
            if come_up.done():
                come_up.result()
                ready()
                await asyncio.wait([stop, *keepers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            stop.cancel()
            come_up.cancel()
            self._report(Event(Kind.STOPPING))
            await self._stop_daemons()
            results = await asyncio.gather(come_up, *keepers, return_exceptions=True)
            self._save()
            self._report(Event(Kind.STOPPED))
        for result in results[1:]:
            if isinstance(result, Exception):
                raise result

    async def _come_up(self, serving: Sequence["asyncio.Future[None]"], keepers: "list[asyncio.Task[None]]") -> None:
        from fs_client.cli.local.readiness import wait_until_ready

        await asyncio.gather(*serving)
        record = self._record
        nodes = len(record.storage) - len(self._lost)
        address = (record.host, record.meta.port)
        await wait_until_ready(address, record.cluster, nodes, READY_TIMEOUT_S, self._tls_ca, self._admin_token())
        first, record.started = not record.started, True
        for daemon in record.daemons:
            daemon.new = False
        self._save()
        if self._mountpoint:
            try:
                await self._mount(keepers)
            except Failure as failure:
                if not first:
                    raise
                kept = f"the cluster itself came up and is kept: `emberfs up --dir {self._directory.path}` starts it"
                raise Failure(f"{failure.message}; {kept}") from None
        self._report(Event(Kind.READY, text=record.address))

    async def _mount(self, keepers: "list[asyncio.Task[None]]") -> None:
        """Mount the cluster, and keep it mounted until it stops. Raises `Failure` if it cannot be mounted."""
        first = asyncio.get_running_loop().create_future()
        keepers.append(asyncio.create_task(self._keep(self._record.mount_daemon(), first)))
        await first

    async def _keep(self, daemon: DaemonRecord, first: "asyncio.Future[None]") -> None:
        """Run the daemon until the cluster stops. `first`: done, or failed, with its first start."""
        try:
            await self._keep_running(daemon, first)
        except Exception as error:
            if first.done():
                raise
            first.set_exception(error)

    async def _keep_running(self, daemon: DaemonRecord, first: "asyncio.Future[None]") -> None:
        delay_s = RESTART_DELAY_MIN_S
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            running = self._start(daemon)
            started = loop.time()
            failure = await self._wait_until_serving(daemon, running)
            if not first.done():
                if failure is not None:
                    await running.ended
                    raise failure
                first.set_result(None)
            status = await running.ended
            daemon.ready = False
            if self._stopping.is_set():
                return
            self._save()
            if loop.time() - started > STEADY_S:
                delay_s = RESTART_DELAY_MIN_S
            after = f"starting it again in {delay_s:g} s" if self._restart else "it is not started again"
            self._report(Event(Kind.ENDED, daemon.name, f"{_how_it_ended(status, running)}; {after}"))
            await self._pause(delay_s if self._restart else None)
            delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)

    def _start(self, daemon: DaemonRecord) -> Process:
        if daemon.role == "mount":
            words = ["-o", f"tls_ca={self._tls_ca}", *(["-o", "log_json"] if self._record.log_json else [])]
            token = self._directory.token(self._record, "mount")
            words += [] if token is None else ["-o", f"token_file={token}"]
            arguments = ["mount", *words, "--foreground", "--ready-fd", "1", "--"]
            arguments += [self._record.address, self._mountpoint]
        else:
            arguments = ["--config", str(self._directory.config(daemon))]
            if not self._record.started or daemon.new:
                arguments.append("--format-if-missing")
        log = self._directory.log(daemon.name)
        running = process.start(self._modules[daemon.role], arguments, log, log_json=self._record.log_json)
        self._processes[daemon.name] = running
        daemon.process = running.identity
        daemon.ready = False
        self._save()
        self._report(Event(Kind.STARTING, daemon.name))
        return running

    async def _wait_until_serving(self, daemon: DaemonRecord, running: Process) -> Failure | None:
        """None once it serves, or why it does not; then it has ended, or has been killed."""
        log = self._directory.log(daemon.name)
        done, _ = await asyncio.wait([running.ready], timeout=SERVING_TIMEOUT_S)
        if not done:
            running.send_signal(signal.SIGKILL)
            return Failure(f"{daemon.name} does not serve after {SERVING_TIMEOUT_S:.0f} s; its log is {log}")
        if running.ready.cancelled():
            status = await running.ended
            return Failure(f"{daemon.name} did not start: {_how_it_ended(status, running)}; its log is {log}")
        daemon.ready = True
        self._save()
        self._report(Event(Kind.SERVING, daemon.name, running.ready.result().removeprefix("ready ")))
        return None

    async def _pause(self, delay_s: float | None) -> None:
        """Until the delay is over (None: never), the cluster stops, or `start_again`."""
        waits = [asyncio.create_task(self._stopping.wait()), asyncio.create_task(self._start_again.wait())]
        try:
            await asyncio.wait(waits, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _stop_daemons(self) -> None:
        for role in ("mount", "storage", "meta"):
            names = [daemon.name for daemon in self._record.daemons if daemon.role == role] or [role]
            running = [self._processes[name] for name in names if name in self._processes]
            ends = [one.ended for one in running if not one.ended.done()]
            if not ends:
                continue
            if role == "storage":
                await self._rest()
            for one in running:
                one.send_signal(signal.SIGTERM)
            _, late = await asyncio.wait(ends, timeout=MOUNT_GRACE_S if role == "mount" else STOP_GRACE_S)
            if late:
                for one in running:
                    one.send_signal(signal.SIGKILL)
                await asyncio.wait(late)

    async def _rest(self) -> None:
        """Tell the manager that all of it ends, so that no chain goes on without those that are slower to end."""
        from fs_client.cli.local.readiness import ask_to_rest

        # Chains that are not told change while daemons end, and compare their replicas after the next start.
        with contextlib.suppress(EmberError, Failure):
            control = Address(self._record.host, self._record.meta.grpc_port)
            await ask_to_rest(control, REST_TIMEOUT_S, self._tls_ca, self._admin_token())

    def _admin_token(self) -> str:
        """Empty: nobody needs one. Raises `Failure`."""
        path = self._directory.token(self._record, "admin")
        if path is None:
            return ""
        try:
            return read_token_file(str(path))
        except OSError as error:
            reason = error.message if isinstance(error, EmberError) else error.strerror
            raise Failure(
                f"{path} cannot be used ({reason}); `emberfs meta --config {self._directory.config(self._record.meta)} "
                "--new-admin-token` writes a new one"
            ) from None

    def _save(self) -> None:
        # A full disk must not end a cluster that would only like to note a new pid.
        with contextlib.suppress(OSError):
            self._directory.save(self._record)


def _how_it_ended(status: int, running: Process) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    words = running.last_words()
    return words or f"exit status {status} without a word"
