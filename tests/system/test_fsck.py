"""A cluster of real processes with planted damage: `emberfs fsck` and `emberfs scrub` find it, and repair it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from fs_common.ids import chunk_id
from fs_storage.engine.interface import Update
from fs_storage.engine.store import open_store
from tests.storage.engine.updates import replace
from tests.support import run
from tests.system.control import assert_works, emberfs, is_healthy, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

MIB = 1 << 20
FILES = {f"/dir/file-{number}": os.urandom(1_500_000 + number) for number in range(4)}
NOBODY = (1 << 40) + 5
"""An inode that was never given out."""


def chains(cluster: LaunchedCluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(emberfs("status", "--json", cluster.address).stdout)["chains"]
    return found


def folder(cluster: LaunchedCluster, target: dict[str, Any]) -> Path:
    return Path(cluster.path) / f"storage-{target['node']}" / f"target-{target['target']}"


def fsck(cluster: LaunchedCluster, *options: str, code: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        emberfs("fsck", cluster.address, "--grace", "0", "--json", *options, code=code).stdout
    )
    return found


async def change(directory: Path, target: int, make: Callable[[Any], list[Update]]) -> None:
    """A store that no process has open: as a disk that has forgotten, or remembers too much."""
    store = await open_store(directory, target=target)
    updates = make(store)
    assert not any(isinstance(result, Exception) for result in await store.prepare(updates))
    await store.commit([(one.chunk, one.version) for one in updates])
    await store.close()


def fill(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        fs.mkdir("/dir")
        for path, data in FILES.items():
            fs.write_file(path, data)


def read_all(cluster: LaunchedCluster) -> None:
    with fs_client.connect(cluster.address) as fs:
        for path, data in FILES.items():
            assert fs.read_file(path) == data


def test_planted_orphans_and_differences_are_found_and_repaired(
    fresh_cluster: Callable[..., LaunchedCluster],
) -> None:
    cluster = fresh_cluster()
    fill(cluster)
    sound = fsck(cluster, code=0)
    assert sound["sound"] and sound["chunks"] == 8 and sound["files"] == 4 and sound["paths_checked"]
    assert not sound["holes"] and not sound["past_the_end"]
    with fs_client.connect(cluster.address) as fs:
        inode = fs.stat("/dir/file-0").st_ino
    chain = next(one for one in chains(cluster) if one["targets"][0]["chunks"])
    cluster.stop()

    orphan = replace(1, b"nobody's" * 1000, chunk=bytes(chunk_id(NOBODY, 3)), chunk_size=MIB)
    for target in chain["targets"]:
        run(change(folder(cluster, target), target["target"], lambda store: [orphan]))
    # One replica of one chunk, the chain's last, has something else under the same version.
    bad = chain["targets"][1]
    spoiled: list[tuple[int, int]] = []

    def spoil(store: Any) -> list[Update]:
        held = next(held for held in store.held(b"", 100) if held.chunk != orphan.chunk)
        spoiled.append((int.from_bytes(held.chunk[:8], "big"), int.from_bytes(held.chunk[8:], "big")))
        return [replace(held.version, os.urandom(held.length), chunk=held.chunk, chunk_size=MIB)]

    run(change(folder(cluster, bad), bad["target"], spoil))

    cluster = fresh_cluster(restart=True)
    wait_until(lambda: is_healthy(cluster.address), "the cluster serves again")
    report = fsck(cluster, code=1)
    assert not report["sound"] and not report["damaged"] and not report["not_checked"]
    assert [(one[0], one[1], one[2]) for one in report["orphans"]] == [(NOBODY, chain["chain"], 1)]
    (difference,) = report["differing"]
    assert difference["loser"] == bad["target"] and (difference["inode"], difference["index"]) == spoiled[0]
    assert difference["path"].startswith("/dir/file-"), "it is named by its path"
    assert inode
    text = emberfs("fsck", cluster.address, "--grace", "0", code=1)
    assert "orphan: 1 chunk" in text.stdout and f"of {difference['path']} on chain" in text.stdout
    assert "2 findings; --repair repairs what is safe" in text.stderr

    repaired = fsck(cluster, "--repair", code=0)
    assert len(repaired["repaired"]) == 2 and not repaired["not_repaired"]
    wait_until(lambda: is_healthy(cluster.address), "the target that was filled up serves again")
    assert fsck(cluster, code=0)["sound"]
    read_all(cluster)
    assert_works(cluster.address)


def flip_all(directory: Path) -> int:
    """One bit of the first byte of every block that is in use. Returns how many."""
    flipped = 0
    for file in (directory / "blocks").iterdir():
        size = int(file.name.partition("k")[0]) * 1024
        with open(file, "r+b") as handle:
            for start in range(0, os.path.getsize(file), size):
                handle.seek(start)
                block = handle.read(4096)
                if any(block):
                    handle.seek(start)
                    handle.write(bytes((block[0] ^ 1,)))
                    flipped += 1
    return flipped


def test_flipped_bits_under_running_daemons(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    """Clients notice nothing; the scrub repairs what they did not read; nothing is left."""
    cluster = fresh_cluster()
    fill(cluster)
    flipped = 0
    for chain in chains(cluster):
        # Another replica of each chain, so that every daemon has some.
        target = chain["targets"][chain["chain"] % 3]
        flipped += flip_all(folder(cluster, target))
    assert flipped == 8
    read_all(cluster)
    shown = json.loads(emberfs("scrub", cluster.address, "--now", "--json", "--rate", "1G").stdout)
    assert all(not target["damaged"] and not target["differing"] for target in shown["targets"])
    stats = sum(target["repaired"] for target in shown["targets"])
    assert stats <= flipped, "what clients met was repaired at once, the scrub did the rest"
    again = json.loads(emberfs("scrub", cluster.address, "--now", "--json", "--rate", "1G").stdout)
    assert sum(target["repaired"] for target in again["targets"]) == 0
    assert sum(target["chunks"] for target in again["targets"]) == 24
    assert fsck(cluster, code=0)["sound"]
    read_all(cluster)
    assert "target" in emberfs("scrub", cluster.address).stdout


def test_fsck_while_files_are_written_and_removed(fresh_cluster: Callable[..., LaunchedCluster]) -> None:
    """No false alarm."""
    import threading

    cluster = fresh_cluster(durability="memory")
    fill(cluster)
    stop = threading.Event()

    def work() -> None:
        with fs_client.connect(cluster.address) as fs:
            number = 0
            while not stop.is_set():
                fs.write_file(f"/churn-{number % 7}", os.urandom(300_000))
                fs.remove(f"/churn-{(number + 3) % 7}") if number > 7 and number % 2 else None
                number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            report = fsck(cluster, code=0)
            assert report["sound"], report
    finally:
        stop.set()
        thread.join()
