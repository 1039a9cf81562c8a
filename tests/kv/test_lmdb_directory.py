"""The directory of the embedded store: made, locked, recognised."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.kv.open import open_store
from tests.support import run


async def _write(kv: KeyValueStore) -> None:
    async def put(txn: Transaction) -> None:
        txn.put(b"k", b"v")

    await kv.transact(put)


async def _read(kv: KeyValueStore) -> None:
    assert await kv.read(lambda txn: txn.get(b"k")) == b"v"


def _with(directory: Path, use: Callable[[KeyValueStore], Awaitable[None]]) -> None:
    async def scenario() -> None:
        kv = open_store(f"lmdb://{directory}")
        try:
            await use(kv)
        finally:
            await kv.close()

    run(scenario())


def _refusal(directory: Path) -> EmberError:
    with pytest.raises(EmberError) as refused:
        open_store(f"lmdb://{directory}")
    assert str(directory) in str(refused.value) and "\n" not in str(refused.value)
    return refused.value


def test_a_missing_directory_is_made_with_its_format(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    _with(directory, _write)
    assert (directory / "FORMAT").read_bytes() == b"emberfs-kv 2\n"
    assert not (directory / "FORMAT.new").exists()
    _with(directory, _read)


def test_a_second_process_is_told_that_the_directory_is_in_use(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom fs_meta.kv.open import open_store\nfrom fs_common.errors import EmberError\n"
        "try: open_store('lmdb://' + sys.argv[1])\nexcept EmberError as error: print(error)\n"
    )

    async def ask(_: KeyValueStore) -> None:
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        told, _stderr = await other.communicate()
        assert b"is open in another process" in told and bytes(tmp_path) in told

    _with(tmp_path, ask)
    _with(tmp_path, _write)


def test_in_one_process_too_it_opens_once(tmp_path: Path) -> None:
    async def again(_: KeyValueStore) -> None:
        assert _refusal(tmp_path).code is Code.BUSY

    _with(tmp_path, again)


def test_another_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    _with(tmp_path, _write)
    (tmp_path / "FORMAT").write_text("emberfs-kv 3\n")
    refusal = _refusal(tmp_path)
    assert refusal.code is Code.INVALID and "emberfs-kv 3" in str(refusal)
    (tmp_path / "FORMAT").write_text("emberfs-kv 2\n")
    _with(tmp_path, _read)


def test_data_without_format_is_refused(tmp_path: Path) -> None:
    _with(tmp_path, _write)
    (tmp_path / "FORMAT").unlink()
    refusal = _refusal(tmp_path)
    assert refusal.code is Code.INVALID and "no FORMAT file" in str(refusal)
    assert not (tmp_path / "FORMAT").exists()


def test_a_creation_that_crashed_before_its_commit_point_is_finished(tmp_path: Path) -> None:
    async def nothing(_: KeyValueStore) -> None:
        pass

    _with(tmp_path, nothing)
    (tmp_path / "FORMAT").unlink()  # as a crash leaves it between the data file and the format file
    (tmp_path / "FORMAT.new").write_text("emberfs")
    _with(tmp_path, _write)
    _with(tmp_path, _read)


@pytest.mark.parametrize("name", ["data.mdb", "journal.0", "journal.1"])
def test_format_without_one_of_the_files_is_refused(tmp_path: Path, name: str) -> None:
    _with(tmp_path, _write)
    (tmp_path / name).unlink()
    assert f"lost its {name}" in str(_refusal(tmp_path))
    assert not (tmp_path / name).exists()


def test_the_journal_of_another_store_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _with(tmp_path / name, _write)
    for name in ("journal.0", "journal.1"):
        (tmp_path / "two" / name).rename(tmp_path / "one" / name)
    refusal = _refusal(tmp_path / "one")
    assert refusal.code is Code.INVALID and "belongs to another store" in str(refusal)


def test_a_damaged_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    _with(tmp_path, _write)
    damaged = bytearray((tmp_path / "journal.1").read_bytes())
    damaged[17] ^= 1
    (tmp_path / "journal.1").write_bytes(damaged)
    refusal = _refusal(tmp_path)
    assert refusal.code is Code.INVALID and "journal.1: its header is damaged" in str(refusal)
    assert (tmp_path / "journal.1").read_bytes() == damaged


@pytest.mark.parametrize("content", [b"no store at all" * 1000, b"\x00" * 8192], ids=["text", "zeros"])
def test_damaged_data_is_refused(tmp_path: Path, content: bytes) -> None:
    _with(tmp_path, _write)
    (tmp_path / "data.mdb").write_bytes(content)
    assert _refusal(tmp_path).code is Code.INVALID
    (tmp_path / "lock").write_bytes(b"")  # the lock was given back: it can be opened once repaired
    assert _refusal(tmp_path).code is Code.INVALID


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert _refusal(tmp_path / "file").code is Code.INVALID
    assert _refusal(tmp_path / "file" / "below").code is Code.INVALID


@pytest.mark.parametrize("url", ["", "lmdb://", "memory://x", "lmdb:/x", "mysql://x", "/var/lib"])
def test_urls_that_name_no_store_are_refused(url: str) -> None:
    with pytest.raises(EmberError, match="expected lmdb://DIRECTORY or memory://"):
        open_store(url)


def test_a_failed_open_keeps_no_descriptor(tmp_path: Path) -> None:
    _with(tmp_path, _write)
    (tmp_path / "FORMAT").write_text("emberfs-kv 3\n")
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        _refusal(tmp_path)
    assert len(os.listdir("/proc/self/fd")) <= len(before)
