"""Names: any bytes but `/` and NUL, 1 to 255 of them, compared byte by byte."""

import errno
import os
import unicodedata
from pathlib import Path

import pytest

from tests.posix.files import make, names, refused


@pytest.mark.parametrize("first", range(1, 256, 16))
def test_every_byte(directory: Path, first: int) -> None:
    here = os.fsencode(directory)
    wanted = {bytes([byte]) + b"x" for byte in range(first, min(first + 16, 256)) if byte != ord("/")}
    for name in wanted:
        os.close(os.open(os.path.join(here, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    assert set(os.listdir(here)) == wanted
    for name in wanted:
        os.rename(os.path.join(here, name), os.path.join(here, name + name))
        assert os.stat(os.path.join(here, name + name)).st_size == 0


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe",
        b"\xc3\x28",
        b"\x80" * 255,
        b"\n",
        b" ",
        b"-rf",
        b"...",
        b"..x",
        b".x",
        b"a\\b",
        b"*?[]",
        b"\x7f\x01",
        b"con:",
    ],
)
def test_odd_names(directory: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(directory), name)
    os.mkdir(path)
    os.close(os.open(os.path.join(path, name), os.O_WRONLY | os.O_CREAT))
    os.symlink(name, os.path.join(path, b"link"))
    assert set(os.listdir(path)) == {name, b"link"}
    assert os.readlink(os.path.join(path, b"link")) == name
    assert os.stat(os.path.join(path, b"link")).st_size == 0


@pytest.mark.parametrize("length", [1, 2, 127, 128, 254, 255])
def test_lengths(directory: Path, length: int) -> None:
    name = "n" * length
    make(directory / name, b"abc")
    assert names(directory) == {name}
    assert (directory / name).read_bytes() == b"abc"


def test_length_counts_bytes(directory: Path) -> None:
    make(directory / ("\u4e2d" * 85))
    with refused(errno.ENAMETOOLONG):
        make(directory / ("\u4e2d" * 86))


def test_case_matters(directory: Path) -> None:
    for name in ("name", "Name", "NAME"):
        make(directory / name, name.encode())
    for name in ("name", "Name", "NAME"):
        assert (directory / name).read_bytes() == name.encode()


def test_unicode_is_not_normalised(directory: Path) -> None:
    composed, decomposed = "\u00fc", unicodedata.normalize("NFD", "\u00fc")
    make(directory / composed, b"composed")
    make(directory / decomposed, b"decomposed")
    assert names(directory) == {composed, decomposed}
    assert (directory / composed).read_bytes() == b"composed"


def test_names_that_begin_alike(directory: Path) -> None:
    """Also those that differ in the last byte, or are the beginning of another."""
    wanted = {"a" * length for length in range(1, 256, 11)} | {"b" * 254 + end for end in "xyz"}
    for name in wanted:
        make(directory / name, name.encode())
    assert names(directory) == wanted
    for name in wanted:
        assert (directory / name).read_bytes() == name.encode()
