"""Who may take over a mount, and from whom: the folder of the sockets, their names, and both ends of a connection."""

import asyncio
import contextlib
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.fuse import daemon as daemons
from fs_client.fuse import handover, sockets
from fs_client.fuse.handover import State
from fs_client.fuse.options import NO_PORT
from fs_client.fuse.sockets import Role
from fs_common.errors import EmberError
from tests.support import run

STATE = State(handover.FORMAT, b"client", 1, (45, 0, 0, 0, 0, 0), [], [], [], [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "run"
    monkeypatch.setattr(sockets, "folder", lambda: place)
    return place


def test_each_mountpoint_has_its_own_socket(folder: Path) -> None:
    deep = "/x" * 100
    with contextlib.ExitStack() as stack:
        for path in ("/a/b", "/a-b", f"/1{deep}", f"/2{deep}"):
            stack.enter_context(sockets.listen(path, Role.TAKEOVER))
        assert len(os.listdir(folder)) == 4
    sockets.leave("/a/b", Role.TAKEOVER)
    assert len(os.listdir(folder)) == 3


def test_a_folder_in_the_mount_itself_is_not_looked_at(folder: Path) -> None:
    """The daemon would wait for itself."""
    for mountpoint in (str(folder.parent), str(folder)):
        with pytest.raises(OSError, match="in the mount itself"):
            sockets.listen(mountpoint, Role.END)
        sockets.leave(mountpoint, Role.END)
    assert not folder.exists()
    sockets.listen(f"{folder}-2", Role.END).close()


def test_a_folder_that_others_may_write_to_is_not_used(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="mode 777"):
        sockets.listen("/a", Role.TAKEOVER)
    with pytest.raises(PermissionError, match="mode 777"):
        handover.receive("/a")


def test_a_link_in_its_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        sockets.listen("/a", Role.TAKEOVER)
    assert not os.listdir(tmp_path / "elsewhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_folder_of_another_user_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 3001, 3001)
    with pytest.raises(PermissionError, match="belongs to user 3001"):
        sockets.listen("/a", Role.TAKEOVER)


def test_nothing_is_taken_from_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "is_ours", lambda connection: False)
    with sockets.listen("/a", Role.TAKEOVER), pytest.raises(PermissionError, match="another user"):
        handover.receive("/a")


def test_a_state_and_a_descriptor_go_over(folder: Path, tmp_path: Path) -> None:
    given = os.open(tmp_path, os.O_RDONLY)
    with sockets.listen("/a", Role.TAKEOVER) as listener:
        listener.setblocking(True)
        received: list[Any] = []
        taking = threading.Thread(target=lambda: received.append(handover.receive("/a")))
        taking.start()
        connection, _ = listener.accept()

        async def give() -> bool:
            giving = asyncio.ensure_future(handover.give(connection, STATE, given))
            await asyncio.to_thread(taking.join)
            other, state, descriptor = received[0]
            assert state == STATE and os.path.sameopenfile(given, descriptor)
            other.sendall(handover.TAKEN)
            os.close(descriptor)
            other.close()
            return await giving

        assert run(give())
        connection.close()
    os.close(given)


class Channel:
    negotiated = object()
    ended = None
    started = 0

    async def detach(self) -> None:
        pass

    def start(self) -> None:
        self.started += 1

    def notify_resend(self) -> None:
        pass


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("a disk"), asyncio.CancelledError()])
def test_whatever_goes_wrong_the_old_daemon_serves_on(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel()
    begun: list[str] = []

    async def nothing() -> None:
        pass

    flushes = iter(([], error))

    async def flush() -> list[EmberError]:
        outcome = next(flushes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    following = SimpleNamespace(close=nothing, begin=lambda: begun.append("following"))
    questions = SimpleNamespace(close=nothing, begin=lambda: begun.append("lock questions"))
    mount = SimpleNamespace(channel=channel, quiet=nothing, following=following, lock_questions=questions)
    one = object.__new__(daemons._Daemon)
    one.mount = mount  # type: ignore[assignment]
    one._settings = SimpleNamespace(mountpoint="/a", metrics_port=NO_PORT)  # type: ignore[assignment]
    one._descriptor = 7
    opened: list[Any] = []
    monkeypatch.setattr(one, "_flush", flush, raising=False)
    monkeypatch.setattr(one, "_open_channel", lambda *arguments: opened.append(arguments), raising=False)

    async def scenario() -> bool:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return await one._hand_over(ours)

    if isinstance(error, Exception):
        assert run(scenario()) is False
    else:
        with pytest.raises(asyncio.CancelledError):
            run(scenario())
    assert opened == [(7, Channel.negotiated)] and channel.started == 1 and begun == ["following", "lock questions"]
