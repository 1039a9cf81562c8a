"""The limits move the bytes they say they move."""

from pathlib import Path

from benchmarks.limits.chain import FILE, MEMORY, SYNC, Chain
from benchmarks.limits.lmdb_groups import creates_per_s
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


def test_lmdb_groups(tmp_path: Path) -> None:
    assert creates_per_s(tmp_path / "lmdb", 100) > 0
