"""The empty FUSE server is read as often as the readers say."""

from pathlib import Path

import pytest

from benchmarks import fuse_requests
from benchmarks.limits import empty_fuse
from benchmarks.limits.process import Worker
from tests.fuse.mounting import needs_mount

MIB = 1 << 20


@pytest.mark.system
@needs_mount
def test_readers_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(empty_fuse.serve, str(tmp_path), 4 * MIB)
    try:
        path = str(tmp_path / "file")
        monkeypatch.setenv("PATH", "/nonexistent")
        value, who = fuse_requests.reads_per_s(path, 4 * MIB, 2, 0.01)
        assert value > 0
        assert who == "Python processes"
    finally:
        worker.stop()
