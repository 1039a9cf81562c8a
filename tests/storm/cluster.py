"""The processes of a storm: a metadata server, storage daemons, mounts; what can be done to each of them.

A `Member` is one daemon with its directory; it is started, killed, stopped and continued by its own process id. Whoever
hurts one has it for himself (`Weather.free`). An end that nobody asked for is noted, and told to `Place.on_end`.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fs_client.cli.local.configuration import _toml
from fs_client.cli.local.ports import free_ports
from fs_client.cli.local.process import module_environment, python_module
from fs_client.options import Address
from tests.storm.isolation import Network, PowerDisk

ENTER = Path(__file__).with_name("enter.py")
READY_S = 60.0
END_S = 30.0
CLUSTER = "storm"
CHUNK_BYTES = 64 << 10
VIOLATION = 70


class Broken(Exception):
    """What must not happen has happened. `str()` says what."""


class Member:
    """One process that is started again and again: `name` is that of its directory, log, configuration, namespace."""

    def __init__(self, name: str, world: "Place", module: str) -> None:
        self.name = name
        self.module = module
        self.place = world
        self.arguments: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self.killed = False
        """Its end was asked for."""
        self.stopped = False
        self._log_start = 0
        self.unasked: list[int] = []
        """Exit statuses of ends that nobody asked for."""
        self.disk: PowerDisk | None = None
        self.host = world.network.addresses[name] if world.network is not None else "127.0.0.1"

    @property
    def directory(self) -> Path:
        return self.place.path / self.name

    @property
    def data(self) -> Path:
        """Below the file system of its own, so that `lost+found` is not in it."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.place.path / "logs" / f"{self.name}.log"

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self, *extra: str) -> None:
        """Returns when the process runs; `ready` waits until it serves."""
        assert not self.runs, self.name
        self.killed = self.stopped = False
        with open(self.log, "ab") as log:
            log.write(f"---- {time.monotonic():.3f} start\n".encode())
            log.flush()
            self._log_start = log.tell()
            self.process = await self.place.spawn(
                self, [*python_module(self.module), *self.arguments, *extra], stdout=log
            )
        self.place.watch(self)

    async def ready(self, timeout_s: float = READY_S) -> None:
        """Until it has said so since it was started last. Raises `Broken`."""
        began = time.monotonic()
        while b"\nready " not in b"\n" + self.words():
            if not self.runs:
                raise Broken(f"{self.name} ended before it was ready; its log is {self.log}")
            if time.monotonic() - began > timeout_s:
                raise Broken(f"{self.name} is not ready after {timeout_s:.0f} s; its log is {self.log}")
            await asyncio.sleep(0.02)

    def words(self) -> bytes:
        """What it has written since it was started last."""
        with open(self.log, "rb") as log:
            log.seek(self._log_start)
            return log.read()

    def signal(self, number: signal.Signals) -> None:
        if self.runs:
            assert self.process is not None
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.killed = True
        self.signal(signal.SIGKILL)
        await self.gone()

    async def terminate(self) -> None:
        """A clean end. Raises `Broken` if it does not come."""
        self.killed = True
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.gone(), END_S)
        except TimeoutError:
            raise Broken(f"{self.name} did not end within {END_S:.0f} s; its log is {self.log}") from None

    async def gone(self) -> None:
        if self.process is not None:
            await self.process.wait()

    def stop(self) -> None:
        self.stopped = True
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.stopped = False
        self.signal(signal.SIGCONT)


class Place:
    """The directory of one storm, and how its processes are started."""

    def __init__(self, path: Path, isolated: bool) -> None:
        self.path = path
        self.network = Network() if isolated else None
        (path / "logs").mkdir()
        (path / "config").mkdir()
        self.on_end: Callable[[Member, int], None] = lambda member, status: None
        """Called when the process of a member has ended."""
        self._watchers: set[asyncio.Task[None]] = set()

    async def spawn(
        self,
        member: Member,
        command: Sequence[str],
        stdout: object,
        stdin: int = asyncio.subprocess.DEVNULL,
        stderr: object = None,
    ) -> asyncio.subprocess.Process:
        namespace = -1 if self.network is None else os.dup(self.network.descriptor(member.name))
        boot = "" if member.disk is None else str(member.disk.boot)
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-IS", str(ENTER), str(os.getpid()), str(namespace), boot),
                *command,
                stdin=stdin,
                stdout=stdout,  # type: ignore[arg-type]
                stderr=stdout if stderr is None else stderr,  # type: ignore[arg-type]
                env=module_environment(),
                pass_fds=() if namespace < 0 else (namespace,),
                start_new_session=True,
                limit=1 << 24,
            )
        finally:
            if namespace >= 0:
                os.close(namespace)

    def watch(self, member: Member) -> None:
        process = member.process
        assert process is not None

        async def wait() -> None:
            status = await process.wait()
            if not member.killed:
                member.unasked.append(status)
            self.on_end(member, status)

        task = asyncio.create_task(wait())
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)


class StormCluster:
    """Metadata server and storage daemons."""

    def __init__(
        self,
        place: Place,
        *,
        storage: int,
        replicas: int,
        durability: str,
        settings: dict[str, int],
        power: bool,
        manager: Callable[[Member, str], str] = lambda member, address: address,
    ) -> None:
        """`manager`: where a daemon is to look for it instead."""
        self.place = place
        self.replicas = replicas
        names = ["meta", *(f"storage-{node}" for node in range(1, storage + 1))]
        if place.network is not None:
            for name in names:
                place.network.add(name)
            ports = [9700, 9701] + [9710] * storage
        else:
            ports = free_ports("127.0.0.1", 2 + storage)
        self.meta = Member("meta", place, "fs_meta")
        self.meta_address = (self.meta.host, ports[0])
        self.control_address = Address(self.meta.host, ports[1])
        self.storage = [Member(name, place, "fs_storage") for name in names[1:]]
        self._configure(
            self.meta,
            port=ports[0],
            grpc_port=ports[1],
            storage_nodes=storage,
            replicas=replicas,
            chunk_size_bytes=CHUNK_BYTES,
            stripe=16,
            durability=durability,
            security="off",  # tokens have tests of their own
            **settings,
        )
        for node, member in enumerate(self.storage, 1):
            if power:
                boot = place.path / "config" / f"{member.name}.boot"
                member.disk = PowerDisk(member.directory, place.path / f"{member.name}.img", boot)
            self._configure(
                member,
                port=ports[1 + node],
                node=node,
                manager=manager(member, f"{self.meta.host}:{ports[1]}"),
                disk_shared_by=1 if power else storage,
            )

    def _configure(self, member: Member, **values: int | str) -> None:
        member.directory.mkdir(exist_ok=True)
        path = self.place.path / "config" / f"{member.name}.toml"
        values |= {"cluster": CLUSTER, "directory": str(member.data), "host": member.host, "http_port": 0}
        path.write_text(_toml(values))
        member.arguments = ["--config", str(path)]

    @property
    def members(self) -> list[Member]:
        return [self.meta, *self.storage]

    @property
    def address(self) -> str:
        return f"{self.meta_address[0]}:{self.meta_address[1]}"

    def member(self, node: int) -> Member:
        return self.storage[node - 1]

    def node(self, member: Member) -> int:
        return self.storage.index(member) + 1

    async def start(self) -> None:
        """The first start: makes all stores."""
        for member in self.members:
            await member.start("--format")
        for member in self.members:
            await member.ready()

    async def end(self) -> None:
        """In order, as `emberfs down` does."""
        for member in self.members:
            member.go_on()
        await asyncio.gather(*(member.terminate() for member in self.storage))
        await self.meta.terminate()

    async def kill(self) -> None:
        for member in self.members:
            await member.kill()

    def close(self) -> None:
        for member in self.storage:
            if member.disk is not None:
                member.disk.close()


def remove_data(member: Member) -> None:
    """Its disk is another one now, an empty one."""
    shutil.rmtree(member.data)
