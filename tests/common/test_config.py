"""A configuration that cannot be used says so in one line that names the file and the key."""

from pathlib import Path

import msgspec
import pytest

from fs_common.config import ConfigError, load, origins
from fs_common.settings import KINDS, MountConfig, Settings, defaults_of


class Log(msgspec.Struct, forbid_unknown_fields=True):
    level: str = "INFO"
    json: bool = False


class Example(msgspec.Struct, forbid_unknown_fields=True):
    cluster: str
    port: int = 9700
    log: Log = msgspec.field(default_factory=Log)
    lease_ms: int = 8000
    failure_ms: int = 10_000

    def __post_init__(self) -> None:
        if self.failure_ms <= self.lease_ms:
            raise ValueError(f"failure_ms {self.failure_ms} must be more than lease_ms {self.lease_ms}")


def test_a_file_becomes_a_record(tmp_path: Path) -> None:
    path = tmp_path / "meta.toml"
    path.write_text('cluster = "c"\nport = 1\n[log]\njson = true\n')
    assert load(path, Example) == Example("c", 1, Log(json=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing required field `cluster`"),
        ('cluster = "c"\nprot = 1', "unknown field `prot`"),
        ('cluster = "c"\nport = "9700"', "port: Expected `int`, got `str`"),
        ('cluster = "c"\n[log]\njson = 1', "log.json: Expected `bool`, got `int`"),
        ('cluster = "c"\n[log]\nlevle = "DEBUG"', "log: Object contains unknown field `levle`"),
        ('cluster = "c"\nlease_ms = 10000', "failure_ms 10000 must be more than lease_ms 10000"),
        ('cluster = "c', "is not TOML"),
        ('cluster = "c"\ncluster = "d"', "is not TOML"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "meta.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, Example)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line
    assert "$" not in line


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(tmp_path / "none.toml", Example)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, Example)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: is not UTF-8"):
        load(path, Example)


def test_variables_win_over_the_file_and_need_none(tmp_path: Path) -> None:
    path = tmp_path / "meta.toml"
    path.write_text('cluster = "c"\nport = 1\nlease_ms = 7\n')
    variables = {"X_PORT": "9800", "X_FAILURE_MS": "20000", "Y_PORT": "1", "PATH": "/bin"}
    assert load(path, Example, "X_", variables) == Example("c", 9800, lease_ms=7, failure_ms=20_000)
    assert load(None, Example, "X_", {"X_CLUSTER": "9"}) == Example("9")
    assert load(path, Example).port == 1
    assert origins(path, Example, "X_", variables) == {
        "cluster": str(path),
        "port": "X_PORT",
        "log": "default",
        "lease_ms": str(path),
        "failure_ms": "X_FAILURE_MS",
    }


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_switch_as_a_variable(text: str, value: bool) -> None:
    assert load(None, Log, "X_", {"X_JSON": text}).json is value


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"X_CLUSTER": "c", "X_PROT": "1"}, "X_PROT: there is no setting prot; unset it"),
        ({"X_CLUSTER": "c", "X_PORT": "much"}, "X_PORT: Expected `int`, got `str`"),
        ({"X_CLUSTER": "c", "X_PORT": ""}, "X_PORT: Expected `int`, got `str`"),
        ({}, "the environment (X_...): Object missing required field `cluster`"),
        ({"X_CLUSTER": "c", "X_LEASE_MS": "10000"}, "failure_ms 10000 must be more than lease_ms 10000"),
    ],
)
def test_what_is_wrong_with_a_variable_names_it(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, Example, "X_", variables)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", KINDS.values(), ids=list(KINDS))
def test_no_number_is_more_than_records_hold(settings: type[Settings]) -> None:
    numbers = [name for name, value in defaults_of(settings).items() if type(value) is int]
    assert len(numbers) > 8 or (settings is MountConfig and numbers)
    for name in numbers:
        with pytest.raises(msgspec.ValidationError, match=f"{name}: at most "):
            msgspec.convert({name: 10**20}, settings)
