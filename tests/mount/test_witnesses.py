"""The witnesses on a local directory: they keep quiet when all is well, and see what is lost."""

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.witnesses import (
    POLL_S,
    Appends,
    Names,
    Reads,
    Records,
    Replacements,
    Rows,
    Witness,
    witnesses,
)

WAIT_S = 30.0


def wait_for_steps(one: Witness, count: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(one.acknowledged()) < count:
        assert time.monotonic() < deadline, one.events()
        time.sleep(POLL_S)


def test_all_is_well(tmp_path: Path) -> None:
    with witnesses(tmp_path, tmp_path / "outside") as group:
        for one in group:
            wait_for_steps(one, 10)
        for one in group:
            assert one.stop(WAIT_S)
            assert {event.kind for event in one.events()} == {"ok"}
            assert one.verify() == []


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _blot(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(50_000)
        file.write(b"XXXX")


def _forget_rows(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("delete from rows where number = 3")
    database.commit()
    database.close()


LOSSES: list[tuple[type[Witness], Callable[[Path], object]]] = [
    (Records, lambda place: _cut(place / "records")),
    (Records, lambda place: _blot(place / "records")),
    (Appends, lambda place: _cut(place / "log")),
    (Replacements, lambda place: _blot(place / "current")),
    (Replacements, lambda place: (place / "current").write_bytes(Replacements.contents(2))),
    (Names, lambda place: os.mkdir(place / "d1")),
    (Names, lambda place: [os.unlink(one / "f") for one in place.iterdir()]),
    (Reads, lambda place: _blot(place / "0")),
    (Rows, lambda place: _forget_rows(place / "db")),
]


@pytest.mark.parametrize(("kind", "lose"), LOSSES)
def test_loss_is_seen(tmp_path: Path, kind: type[Witness], lose: Callable[[Path], object]) -> None:
    with witnesses(tmp_path, tmp_path / "outside", (kind,)) as (one,):
        wait_for_steps(one, 8)
        assert one.stop(WAIT_S)
        lose(one.place)
        assert one.verify() != []


def test_wrong_bytes_are_seen_while_it_works(tmp_path: Path) -> None:
    with witnesses(tmp_path, tmp_path / "outside", (Reads,)) as (one,):
        for number in range(Reads.COUNT):
            (one.place / f"{number}").write_bytes(bytes(Reads.SIZE))
        deadline = time.monotonic() + WAIT_S
        while not any(event.kind == "wrong" for event in one.events()):
            assert time.monotonic() < deadline
            time.sleep(POLL_S)


def test_errors_are_told_and_tried_again(tmp_path: Path) -> None:
    with witnesses(tmp_path, tmp_path / "outside", (Replacements,)) as (one,):
        wait_for_steps(one, 2)
        one.place.rename(tmp_path / "away")
        moment = time.monotonic()
        deadline = moment + WAIT_S
        while not any(event.kind == "error" for event in one.events()):
            assert time.monotonic() < deadline
            time.sleep(POLL_S)
        (tmp_path / "away").rename(one.place)
        wait_for_steps(one, len(one.acknowledged()) + 2)
        assert one.stop(WAIT_S)
        assert one.verify() == []


def test_a_hang_is_told(tmp_path: Path) -> None:
    with witnesses(tmp_path, tmp_path / "outside", (Names,)) as (one,):
        wait_for_steps(one, 1)
        os.kill(one._pid, 19)  # SIGSTOP
        assert not one.stop(0.2)
