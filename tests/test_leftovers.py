"""What tests wrote is gone once they passed: whole runs fit on the disk of a small machine."""

from pathlib import Path

import pytest

_of_test_before: list[Path] = []


def test_writes_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    _of_test_before.append(tmp_path)


def test_the_directory_of_a_test_that_passed_is_gone(tmp_path: Path) -> None:
    if not _of_test_before:
        pytest.skip("runs in the same process as the test before it, or not at all")
    assert tmp_path.exists()
    assert not _of_test_before.pop().exists()
