"""Wrong words of -o: one line that says what would be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client.fuse.options import BadOption, parse

WORDS = (
    "ro",
    "cache",
    "max_write",
    "timeout",
    "consistency",
    "attr_timeout",
    "uid",
    "x-mine",
    "nosuid",
    "=",
    ",",
    "1K",
)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("consistancy=strict", r"'consistancy=strict' is not known; did you mean consistency="),
        ("whatever", r"'whatever' is not known; use any of allow_other, .*, token=, token_file=, transport=$"),
        ("writeback", "the kernel would keep lengths of files to itself"),
        ("uid=3", "'uid' is not there: owners and modes are those of the cluster; use chown and chmod"),
        ("cache", "'cache' needs a value: write cache=..."),
        ("ro=1", "'ro=1': ro takes no value"),
        ("max_write=32M", "max_write=32M: from 4096 to 16777216 bytes"),
        ("consistency=loose", "consistency=loose is none of strict, close-to-open, dataset"),
        ("transport=ipoib", "transport=ipoib is none of auto, tcp, rdma"),
        ("cache=much", "cache=much: write a size, for example 64K, 16M or 1G"),
        ("timeout=soon", "timeout=soon: write a number of seconds"),
    ],
)
def test_messages(word: str, message: str) -> None:
    with pytest.raises(BadOption, match=message) as caught:
        parse([word])
    assert "\n" not in str(caught.value)


@given(text=st.text(max_size=40) | st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=8).map("".join))
def test_any_text_gives_settings_or_one_clean_error(text: str) -> None:
    try:
        options = parse([text])
    except BadOption as error:
        assert str(error)
    else:
        assert options.timeout_s > 0
        assert 4096 <= options.max_write_bytes <= 16 << 20


def test_sizes() -> None:
    assert parse(["max_write=256K"]).max_write_bytes == 256 << 10
    assert parse(["max_write=4MiB"]).max_write_bytes == 4 << 20
    assert parse([]).max_write_bytes == 1 << 20
