"""Modes as chmod(1) takes them, compared with what chmod(1) itself does."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from fs_client.cli.modes import change_of, octal

MODES = [
    "755", "0", "7777", "00755", "u+x", "go-w", "a+rX", "+x", "-w", "=r", "u=rwx,g=rx,o=", "g=u", "o+g", "u+s", "g+s",
    "+t", "a=rx", "u-s", "ug+s,o-t", "a-x+X", "u=,g=u+x", "g=s", "u=rws", "o=t", "a=", "+", "o+tx", "ug=o",
]  # fmt: skip
BEFORE = [0o644, 0o755, 0o6754, 0o1770, 0, 0o111, 0o3640]


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("mode", MODES)
def test_as_chmod_does(tmp_path: Path, mode: str, umask: int) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    wrong = []
    for path in (tmp_path / "file", tmp_path / "directory"):
        for before in BEFORE:
            path.chmod(before)
            subprocess.run(
                ["chmod", "--", mode, str(path)],
                check=False,
                stderr=subprocess.DEVNULL,
                preexec_fn=lambda: _mask(umask),
            )  # it ends with 1 where the umask has kept something back
            expected = stat.S_IMODE(path.stat().st_mode)
            found = change_of(mode, umask)(before, path.is_dir())
            if found != expected:
                wrong.append(f"{path.name} {before:o} {mode}: {found:o}, not {expected:o}")
    assert not wrong


def _mask(umask: int) -> None:
    os.umask(umask)


@pytest.mark.parametrize("text", ["", "u", "u+y", "888", "77777", "u+x,", "rwx", "u++q", "-", "x+u+"])
def test_what_is_no_mode(text: str) -> None:
    if text in ("-",):
        assert change_of(text)(0o644, False) == 0o644
        return
    with pytest.raises(ValueError, match="is not a mode like 755"):
        change_of(text)


def test_octal() -> None:
    assert octal("755") == 0o755 and octal("8") is None and octal("-1") is None and octal("17777") is None
