"""Looking ahead of walks: where a page begins."""

import pytest

from fs_client.fuse.look_ahead import before
from fs_common.limits import NAME_BYTES_MAX


@pytest.mark.parametrize(
    "name", [b"a", b"\x01", b"\xff", b"abc", b"ab\x01", b"x" * 254, b"x" * 255, b"\xff" * 255, b"0" * 253 + b"\x02"]
)
def test_a_page_begins_before_its_name_and_close_to_it(name: bytes) -> None:
    after = before(name)
    assert after < name
    assert len(after) <= NAME_BYTES_MAX
    assert after[: len(name) - 1] == name[:-1], "only names that begin like it lie between"
