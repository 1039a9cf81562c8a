"""What `emberfs config` makes of its words."""

import pytest

from fs_client.cli.config import _split, _value
from fs_client.cli.failure import Usage


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("read_threads", "16", 16),
        ("log_json", "true", True),
        ("log_level", "debug", "debug"),
        ("log_level", '"debug"', "debug"),
        ("scrub_bytes_per_s", "64M", 64 << 20),
        ("low_space_bytes", "1GiB", 1 << 30),
        ("read_threads", "many", "many"),
    ],
)
def test_values_are_numbers_truth_values_or_text(name: str, text: str, value: object) -> None:
    found = _value(name, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("key", ["read_threads", "console.cache", "storage.", ""])
def test_a_key_names_its_kind(key: str) -> None:
    with pytest.raises(Usage, match=r"is not KIND\.KEY, with meta or storage or mount"):
        _split(key)
