"""The bar of `cp` as it looks from its first moment on."""

import re

import pytest

from fs_client.cli.copy.bar import Bar
from fs_client.cli.copy.engine import Counts

MIB = 1 << 20


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)


def test_it_never_shows_questions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with Bar() as bar:
        bar.refresh()
        first = shown(capsys)
        bar.update(Counts(files=1, found_files=3, bytes=64 * MIB, found_bytes=171 * MIB))
        bar.refresh()
        later = shown(capsys)
    assert "looking for files" in first and "?" not in first and "0/" not in first
    assert "1 of 3 files" in later and "64 MiB of 171 MiB" in later
    assert "MB" not in first + later + shown(capsys)
