"""sqlite: its own integrity check, several processes at once, and a writer that is killed."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.posix.battery.place import Failed, Place

JOURNALS = ("delete", "truncate", "persist", "wal")
_WRITER = """
import sqlite3, sys
path, journal, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = sqlite3.connect(path, timeout=60, isolation_level=None)
database.execute(f"pragma journal_mode={journal}")
database.execute("pragma synchronous=full")
number = first
while True:
    database.execute("begin immediate")
    database.execute("insert into entries values (?, ?)", (number, "x" * (number % 3000)))
    database.execute("update total set value = value + 1")
    database.execute("commit")
    print(number, flush=True)
    number += 1
"""


def sqlite_killed(place: Place) -> None:
    """A writer is killed again and again. What it had committed is there, and the database is whole."""
    for journal in JOURNALS:
        path = place.path / f"{journal}.db"
        _create(path, journal)
        committed = 0
        chance = random.Random(journal)
        for _ in range(8):
            committed = _write_until_killed(path, journal, committed, chance.randrange(1, 40))
            _check(path, committed)


def sqlite_together(place: Place) -> None:
    """Several processes add to one database: none of their rows is lost."""
    for journal in ("delete", "wal"):
        path = place.path / f"together-{journal}.db"
        _create(path, journal)
        writers = [_start(path, journal, 1_000_000 * number) for number in range(3)]
        counts = [0] * len(writers)
        try:
            for _ in range(40):
                for index, writer in enumerate(writers):
                    _read_number(writer)
                    counts[index] += 1
        finally:
            for writer in writers:
                writer.send_signal(signal.SIGKILL)
        for index, writer in enumerate(writers):
            assert writer.stdout is not None
            counts[index] += len(writer.stdout.read().split())
            writer.wait()
            writer.stdout.close()
        with sqlite3.connect(path, timeout=60) as database:
            _whole(database, path)
            for index, count in enumerate(counts):
                low = 1_000_000 * index
                (found,) = database.execute(
                    "select count(*) from entries where number >= ? and number < ?", (low, low + 1_000_000)
                ).fetchone()
                if not count <= found <= count + 1:
                    raise Failed(f"{path}: {found} rows of writer {index}, which has committed {count}")
        database.close()


def _create(path: Path, journal: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    (found,) = database.execute(f"pragma journal_mode={journal}").fetchone()
    if found != journal:
        raise Failed(f"{path}: sqlite does not get journal_mode={journal} here, but {found}")
    database.execute("create table entries (number integer primary key, text text)")
    database.execute("create index by_text on entries (text)")
    database.execute("create table total (value integer)")
    database.execute("insert into total values (0)")
    database.close()


def _start(path: Path, journal: str, first: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-I", "-c", _WRITER, str(path), journal, str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _read_number(writer: "subprocess.Popen[bytes]") -> int:
    assert writer.stdout is not None
    line = writer.stdout.readline()
    if not line.strip().isdigit():
        raise Failed(f"the writer ended: {(line + writer.stdout.read()).decode(errors='replace')}")
    return int(line)


def _write_until_killed(path: Path, journal: str, committed: int, count: int) -> int:
    """How many rows were certainly committed."""
    with _start(path, journal, committed) as writer:
        try:
            for _ in range(count):
                _read_number(writer)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
        assert writer.stdout is not None
        rest = writer.stdout.read().split(b"\n")[:-1]
    acknowledged = committed + count + len(rest)
    # It may have committed one more, and been killed before it said so.
    with sqlite3.connect(path, timeout=60) as database:
        (found,) = database.execute("select count(*) from entries").fetchone()
    database.close()
    if not acknowledged <= found <= acknowledged + 1:
        raise Failed(f"{path}: {found} rows, {acknowledged} were committed")
    return int(found)


def _check(path: Path, committed: int) -> None:
    database = sqlite3.connect(path, timeout=60)
    _whole(database, path)
    (count,) = database.execute("select count(*) from entries").fetchone()
    (total,) = database.execute("select value from total").fetchone()
    (highest,) = database.execute("select max(number) from entries").fetchone()
    database.close()
    if not count == total == highest + 1 == committed:
        raise Failed(f"{path}: {count} rows, total {total}, highest {highest}, committed {committed}")


def _whole(database: sqlite3.Connection, path: Path) -> None:
    answer = database.execute("pragma integrity_check").fetchall()
    if answer != [("ok",)]:
        raise Failed(f"{path}: integrity check: {answer[:5]}")
