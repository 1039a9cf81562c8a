"""The end of a mount: it goes on while there is progress, and says in few lines what it could not store."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs_client.cli.umount_helper import Arguments
from fs_client.fuse import ending, sockets
from fs_client.fuse.files import File
from fs_client.fuse.mount import Mount
from fs_common.errors import Code, EmberError
from fs_common.limits import MIB
from tests.mount.test_files import INODE, opened, write
from tests.support import run


class Listener(ending.Audience):
    """Hears, and lets something happen at each line."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.at_line = lambda: None

    def tell(self, line: str) -> None:
        self.heard.append(line)
        self.at_line()


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ending, "LOOK_S", 0.001)
    yield


def scattered(mount: Mount, file: File, count: int) -> None:
    for place in range(count):
        write(mount, file, place * 2 * MIB, 8)


def test_it_goes_on_while_there_is_progress() -> None:
    async def scenario() -> None:
        with opened() as (mount, _, storage, file, _):
            storage.open.clear()
            scattered(mount, file, 100)
            listener = Listener()

            def progress() -> None:
                mount.progressed()
                if len(listener.heard) == 20:
                    storage.open.set()

            listener.at_line = progress
            work = asyncio.ensure_future(file.back.flush())
            # Without progress it would be over after ten looks.
            assert await ending.while_progress(mount, work, 0.01, listener)
            assert listener.heard[:20] == ["800 bytes of 1 files are still to be stored"] * 20
            assert len(storage.stored) == 100 and file.back.empty

    run(scenario())


def test_without_progress_it_ends_and_says_once_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with opened() as (mount, _, storage, file, _):
            mount.nodes.put_name(1, b"file", INODE, mount.now())
            storage.open.clear()
            scattered(mount, file, 500)
            listener = Listener()
            work = asyncio.ensure_future(mount.flush_all())
            assert not await ending.while_progress(mount, work, 0.01, listener)
            ending.give_up(mount, 30.0)
            ending.tell_losses(mount, 0, listener)
            assert listener.heard[-1].startswith("lost: 4000 bytes")
            mount.closing = True
            for task in list(mount._tasks):
                task.cancel()
            while not file.back.empty:
                await asyncio.sleep(0)

    with caplog.at_level(logging.INFO):
        run(scenario())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("inode 7 ('file'): 4000 bytes that programs had written were lost")


def test_what_waits_for_a_chain_that_is_dead_ends_with_what_was_tried(caplog: pytest.LogCaptureFixture) -> None:
    """Each would be tried as long again. One line when it begins, one when a program is told."""

    async def scenario() -> None:
        with opened() as (mount, _, storage, file, handle):
            storage.fault = lambda offset: EmberError(Code.CHAIN_BROKEN, "nobody answers")
            scattered(mount, file, 1000)
            await file.back.flush()
            assert file.back.empty and not mount.dirty.held and not mount.dirty.writes
            assert file.lost_bytes == 8000
            with pytest.raises(EmberError, match="nobody answers"):
                file.raise_error(handle)
            file.raise_error(handle)

    with caplog.at_level(logging.INFO):
        run(scenario())
    first, last = (record.getMessage() for record in caplog.records)
    assert "cannot be stored: nobody answers" in first
    assert "8000 bytes that programs had written were lost" in last


def test_who_unmounts_hears_lines_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "folder", lambda: tmp_path / "run")
    assert ending.connect("/mnt") is None

    async def scenario() -> None:
        audience = ending.Audience("/mnt")
        audience.listen()
        connection = await asyncio.to_thread(ending.connect, "/mnt")
        assert connection is not None
        while not audience._connections:
            await asyncio.sleep(0)
        audience.tell("5 bytes")
        audience.tell("lost: 5 bytes")
        audience.close()
        assert list(ending.lines(connection)) == ["5 bytes", "lost: 5 bytes"]
        assert ending.connect("/mnt") is None

    run(scenario())


def test_what_umount_says_to_its_helper() -> None:
    plain = Arguments(["/mnt/ember", "-n", "-v", "-t", "fuse.emberfs", "-N", "/proc/1/ns/mnt"])
    assert (plain.mountpoint, plain.lazy, plain.force) == ("/mnt/ember", False, False)
    assert plain.others == ["/mnt/ember", "-n", "-v", "-N", "/proc/1/ns/mnt"]
    assert Arguments(["/mnt/ember", "-lf"]).lazy and Arguments(["-f", "/mnt/ember"]).force
    for wrong in ([], ["/a", "/b"], ["/a", "-x"], ["/a", "-t"]):
        with pytest.raises(ValueError, match=r"usage|unknown|needs a value"):
            Arguments(wrong)
