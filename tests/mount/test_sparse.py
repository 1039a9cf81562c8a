"""What a sparse file takes, as the kernel is told it, while daemons are silent or the file is being written."""

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.fuse import abi
from fs_client.fuse.files import File
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops import attributes
from fs_common.errors import Code, EmberError
from tests.mount.test_files import INODE, opened, write
from tests.support import run

LENGTH = 8 << 20
BLOCKS = LENGTH >> 9


class Daemons:
    """Stand in for `stored_bytes`."""

    def __init__(self, answer: int | None) -> None:
        self.answer = answer
        """None: they are silent."""
        self.asked = 0
        self.before: Any = lambda: None

    async def stored_bytes(self, *_: object) -> int:
        self.asked += 1
        self.before()
        if self.answer is None:
            raise EmberError(Code.UNREACHABLE, "nobody answers")
        return self.answer


def sparse(mount: Mount, file: File) -> None:
    file.ref.length = LENGTH
    mount.nodes.learn(mount.fs.metadata.attributes(), mount.now())  # type: ignore[attr-defined]
    file.wrote(LENGTH)
    file.has_holes()


async def told(mount: Mount) -> tuple[int, bool]:
    """(blocks of 512 bytes, whether the kernel may believe it)."""
    answer = attributes.handlers(mount)[abi.Opcode.GETATTR](SimpleNamespace(node=INODE, uid=0, gid=0, pid=1))  # type: ignore[arg-type]
    body = await answer if inspect.isawaitable(answer) else answer
    assert isinstance(body, bytes)
    valid_s, valid_ns = abi.ATTR_OUT.unpack_from(body)[:2]
    return abi.ATTR.unpack_from(body, abi.ATTR_OUT.size)[2], bool(valid_s or valid_ns)


def test_blocks_are_what_the_daemons_say_until_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    daemons = Daemons(4096)
    monkeypatch.setattr(attributes, "stored_bytes", daemons.stored_bytes)

    async def scenario() -> None:
        with opened() as (mount, _, _, file, _):
            sparse(mount, file)
            assert [await told(mount), await told(mount)] == [(8, True)] * 2 and daemons.asked == 1
            daemons.answer = 8192
            write(mount, file, 0, 100)
            assert await told(mount) == (16, True) and daemons.asked == 2

    run(scenario())


def test_a_silent_daemon_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    daemons = Daemons(None)
    monkeypatch.setattr(attributes, "stored_bytes", daemons.stored_bytes)

    async def scenario() -> None:
        with opened() as (mount, _, _, file, _):
            sparse(mount, file)
            assert [await told(mount), await told(mount)] == [(BLOCKS, True)] * 2 and daemons.asked == 1

    run(scenario())


def test_what_waits_to_be_stored_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts by its bytes until it is."""
    daemons = Daemons(4096)
    monkeypatch.setattr(attributes, "stored_bytes", daemons.stored_bytes)
    monkeypatch.setattr(attributes, "MEASURE_S", 0.02)

    async def scenario() -> None:
        with opened() as (mount, _, storage, file, _):
            storage.open.clear()
            sparse(mount, file)
            write(mount, file, 0, 1024)
            assert await told(mount) == (8 + 2, True)
            storage.open.set()
            await file.back.flush()

    run(scenario())


def test_what_is_written_all_the_time_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    daemons = Daemons(4096)
    monkeypatch.setattr(attributes, "stored_bytes", daemons.stored_bytes)

    async def scenario() -> None:
        with opened() as (mount, _, _, file, _):
            sparse(mount, file)
            daemons.before = lambda: file.wrote(LENGTH)
            assert await told(mount) == (BLOCKS, False) and daemons.asked == attributes.MEASURE_MAX

    run(scenario())
