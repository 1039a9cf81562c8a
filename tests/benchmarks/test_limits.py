"""The limits move the bytes they say they move."""

from pathlib import Path

import lmdb
import pytest

from benchmarks.limits.chain import FILE, MEMORY, SYNC, Chain
from benchmarks.limits.lmdb_groups import GROUP, RECORDS, creates_per_s
from benchmarks.limits.senders import Senders

MIB = 1 << 20


def test_senders_fill_the_whole_buffer() -> None:
    into = memoryview(bytearray(3 * MIB))
    with Senders(3, MIB) as senders:
        assert senders.stream(into, 65536) > 0
        # Senders touch one byte of each page; nothing else of the buffer can hold a one.
        assert bytes(into[::4096]) == b"\x01" * (3 * MIB // 4096)
        into[:] = bytes(len(into))
        assert senders.batches([[0, 4096, 8192, 12288]], 4096, into) > 0
        assert bytes(into[: 5 * 4096 : 4096]) == b"\x01\x01\x01\x01\x00"
        assert len(senders.ping_pong([0, 4096], 4096, into)) == 2


def test_a_chain_passes_everything_on(tmp_path: Path) -> None:
    data = memoryview(bytearray(3 * MIB + 17))
    for mode in (MEMORY, FILE, SYNC):
        with Chain(3, len(data), mode, tmp_path) as chain:
            assert chain.send(data) > 0
            assert chain.send(data) > 0
            stored = [path.stat().st_size for path in tmp_path.iterdir()]
            assert stored == ([] if mode == MEMORY else [len(data)] * 3)
    assert not list(tmp_path.iterdir())


def test_lmdb_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every record of every create is put, in transactions of a group each that are synced."""
    opened = lmdb.open
    puts: list[list[tuple[bytes, int]]] = []

    class Transaction:
        def __init__(self, real: lmdb.Transaction) -> None:
            self.real = real

        def __enter__(self) -> "Transaction":
            self.real.__enter__()
            puts.append([])
            return self

        def __exit__(self, *error: object) -> None:
            self.real.__exit__(*error)

        def put(self, key: bytes, value: bytes) -> None:
            puts[-1].append((key, len(value)))
            assert self.real.put(key, value)

        def drop(self, *arguments: object, **options: object) -> None:
            assert self.real.stat(arguments[0])["entries"] == 100 * len(RECORDS)
            self.real.drop(*arguments, **options)

    class Environment:
        def __init__(self, *arguments: object, **options: object) -> None:
            assert options["sync"]
            self.real = opened(*arguments, **options)

        def __enter__(self) -> "Environment":
            return self

        def __exit__(self, *error: object) -> None:
            self.real.close()

        def begin(self, **options: object) -> Transaction:
            return Transaction(self.real.begin(**options))

        def open_db(self, *arguments: object, txn: Transaction) -> object:
            return self.real.open_db(*arguments, txn=txn.real)

    monkeypatch.setattr(lmdb, "open", Environment)
    assert creates_per_s(tmp_path / "lmdb", 100) > 0
    assert [len(group) for group in puts] == [GROUP * len(RECORDS), (100 - GROUP) * len(RECORDS), 0]
