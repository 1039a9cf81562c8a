"""What commands on files take as words: times, owners, formats of `stat`, targets of links, sorting."""

import os
import pwd
import subprocess
import time
from pathlib import Path

import pytest

from fs_client.cli.chown import ids_of
from fs_client.cli.failure import Usage
from fs_client.cli.ln import relative
from fs_client.cli.ls import Look
from fs_client.cli.stat_format import check_format, formatted
from fs_client.cli.touch import time_of
from fs_client.stat_result import StatResult
from fs_common.records.meta import Attributes, FileType


def found(size: int = 5, mtime_ns: int = 10**18 + 7) -> StatResult:
    return StatResult(
        Attributes(
            inode=9, type=FileType.FILE, mode=0o640, uid=0, gid=0, links=1, length=size,
            atime_ns=1, mtime_ns=mtime_ns, ctime_ns=1, btime_ns=1,
        )
    )  # fmt: skip


def test_times() -> None:
    assert time_of("@0") == 0 and time_of("@1.5") == 1_500_000_000 and time_of("@-2") == -2_000_000_000
    assert time_of("2026-01-31T12:00:00+00:00") == 1_769_860_800 * 10**9
    assert time_of("2026-01-31 12:00") == int(time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))) * 10**9
    for text in ("yesterday", "", "@", "@1e3", "2026-13-01"):
        with pytest.raises(Usage, match="is no time; write 2026-01-31"):
            time_of(text)


def test_owners() -> None:
    me = pwd.getpwuid(0)
    assert ids_of("root") == (0, None) and ids_of("root:") == (0, me.pw_gid)
    assert ids_of("1234567:7") == (1_234_567, 7) and ids_of(":7") == (None, 7)
    for text in ("", ":", "nobody-of-this-name", "-5", "0:no-such-group", "1234567:", str(2**32)):
        with pytest.raises(Usage):
            ids_of(text)


def test_formats_are_those_of_stat(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"12345")
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 7))
    template = "%n|%s|%a|%A|%f|%F|%Y|%y|%%|%10s|%-10s|%05a"
    expected = subprocess.run(["stat", "-c", template, str(path)], check=True, capture_output=True, text=True).stdout
    assert formatted(template, str(path), found()) + "\n" == expected
    check_format(template)
    with pytest.raises(Usage, match="%q is not known"):
        check_format("%n %q")
    with pytest.raises(Usage):
        check_format("100%")


def test_links_are_relative_to_where_they_are() -> None:
    assert relative("/data/run-1", "/data/latest") == "run-1"
    assert relative("/a/b", "/c/d/link") == "../../a/b"
    assert relative("/a", "/link") == "a"


def test_the_order_of_listings() -> None:
    small_new, large_old = ("small", found(1, 200)), ("large", found(9, 100))
    plain = Look(reverse=True)
    assert plain.sorted and plain.key(*small_new) > plain.key(*large_old)
    by_time, by_size = Look(by_time=True), Look(by_size=True)
    assert by_time.key(*small_new) < by_time.key(*large_old)
    assert by_size.key(*small_new) > by_size.key(*large_old)
    assert by_size.key("b", found(1)) > by_size.key("a", found(1))
