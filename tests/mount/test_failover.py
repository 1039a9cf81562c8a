"""Storage daemons die one after the other, and are filled up again: a mount and a loader notice nothing but a pause."""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

import fs_client  # noqa: E402
from fs_client.cli.local.launch import LaunchedCluster  # noqa: E402
from fs_client.loader.file_dataset import FileDataset  # noqa: E402
from fs_client.loader.sampler import ElasticBatchSampler  # noqa: E402
from fs_client.loader.torch_collate import collate  # noqa: E402
from tests.mount.conftest import Mounted  # noqa: E402
from tests.system.control import kill, start_again, wait_until, wait_whole  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.slow]

SAMPLES = 64
SAMPLE_BYTES = 50_000
FILES = 16
FILE_BYTES = 300_000


class Traffic:
    """A thread that writes, syncs and reads files of a mount, until it is told to stop or meets an error."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._chance = random.Random(1)
        self.contents: dict[Path, bytes] = {}
        """What is stored and synced."""
        self.rounds = 0
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self._round()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        chance = self._chance
        path = self._directory / f"file-{chance.randrange(FILES)}"
        if path in self.contents and chance.random() < 0.5:
            # A part of it is overwritten.
            start = chance.randrange(FILE_BYTES)
            part = chance.randbytes(min(chance.randrange(1, 100_000), FILE_BYTES - start))
            descriptor = os.open(path, os.O_WRONLY)
            before = self.contents[path]
            data = before[:start] + part + before[start + len(part) :]
        else:
            start, data = 0, chance.randbytes(FILE_BYTES)
            part = data
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            done = 0
            while done < len(part):
                done += os.pwrite(descriptor, part[done:], start + done)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.contents[path] = data
        seen = chance.choice(list(self.contents))
        assert seen.read_bytes() == self.contents[seen], f"{seen} has other bytes"

    def goes_on(self, rounds: int = 3) -> None:
        """Wait until it has done so many rounds more."""
        before = self.rounds

        def gone_on() -> bool:
            if self.error is not None:
                raise self.error
            return self.rounds >= before + rounds

        wait_until(gone_on, "the mount goes on")

    def end(self) -> None:
        self.stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error


def epochs(data: FileDataset, samples: list[bytes], stop: threading.Event) -> int:
    """Epoch after epoch in two worker processes, at least one."""
    sampler = ElasticBatchSampler(SAMPLES, 8, seed=1)
    loader: DataLoader[object] = DataLoader(data, batch_sampler=sampler, num_workers=2, collate_fn=collate)
    count = 0
    while not count or not stop.is_set():
        sampler.set_epoch(count)
        found = [[bytes(sample.numpy()) for sample in batch] for batch in loader]  # type: ignore[attr-defined]
        assert found == [[samples[i] for i in batch] for batch in sampler]
        count += 1
    return count


def test_a_mount_and_a_loader_notice_nothing_but_a_pause(
    fresh_cluster: Callable[..., LaunchedCluster], mount: Callable[..., Mounted]
) -> None:
    cluster = fresh_cluster(durability="memory")
    chance = random.Random(2)
    samples = [chance.randbytes(SAMPLE_BYTES) for _ in range(SAMPLES)]
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir("/data")
        for number, sample in enumerate(samples):
            fs.write_file(f"/data/{number:03}", sample)
        mounted = mount(cluster)
        done = threading.Event()
        failed: list[BaseException] = []
        traffic = Traffic(mounted.path)

        def hurt() -> None:
            """Each chain has the first daemon as its head, its middle or its tail, then the second, then the third."""
            try:
                for victim in ("storage-1", "storage-2", "storage-3"):
                    traffic.goes_on()
                    kill(cluster, victim)
                    traffic.goes_on()
                    start_again(cluster)
                    wait_whole(cluster)
                traffic.goes_on()
            except BaseException as error:
                failed.append(error)
            finally:
                done.set()

        hurting = threading.Thread(target=hurt)
        hurting.start()
        try:
            with FileDataset(fs, "/data") as data:
                epochs(data, samples, done)
        finally:
            hurting.join()
            traffic.end()
        assert not failed, failed
        for path, contents in traffic.contents.items():
            assert fs.read_file(f"/{path.name}") == contents
        for number, sample in enumerate(samples):
            assert fs.read_file(f"/data/{number:03}") == sample
