import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fs_client
from fs_client import FileSystem
from fs_client.identity import program_name
from fs_client.options import Address, make_options, parse_cluster
from fs_common.errors import Code, EmberError
from fs_common.security.tokens import make_token, token_text
from tests.client.fake_cluster import FakeCluster

TOKEN = token_text(make_token(bytes(range(36))))
OTHER = token_text(make_token(bytes(36)))


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBERFS_TOKEN", raising=False)
    monkeypatch.delenv("EMBERFS_TOKEN_FILE", raising=False)


def test_addresses_of_a_cluster() -> None:
    assert parse_cluster("a:1, b:2") == (Address("a", 1), Address("b", 2))
    assert parse_cluster("a") == (Address("a", 9700),)
    assert parse_cluster("[::1]:7,::1") == (Address("::1", 7), Address("::1", 9700))
    assert str(Address("::1", 7)) == "[::1]:7"


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ("a:1,b:2", "a:1,b:2"),
        ("ember://a:1", "a:1"),
        ("ember://a:1,b/data/x", "a:1,b"),
        ("ember://[::1]:7/", "[::1]:7"),
        (("a", 1), "a:1"),
        (("::1", 7), "[::1]:7"),
        (("a", np.int64(1)), "a:1"),
        (["a:1", "b:2"], "a:1,b:2"),
        (("a:1", "b:2"), "a:1,b:2"),
        ([("a", 1), "ember://b:2"], "a:1,b:2"),
        ("ember:///data", "there:1"),
        ("ember:/data", "there:1"),
        ("ember:", "there:1"),
    ],
)
def test_a_cluster_has_many_names(monkeypatch: pytest.MonkeyPatch, cluster: Any, expected: str) -> None:
    monkeypatch.setenv("EMBERFS_CLUSTER", "there:1")
    assert make_options(cluster, None, "auto", 1).cluster == expected
    assert FileSystem(cluster).options.cluster == expected


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("http://a:1", ValueError),
        ("emberfs://a:1", ValueError),
        ("a:1/data", ValueError),
        ("a/data", ValueError),
        ([], ValueError),
        ([""], ValueError),
        ("", ValueError),
        (("a", 0), ValueError),
        (("a", 1.0), TypeError),
        (("a", True), TypeError),
        (b"a:1", TypeError),
        (7, TypeError),
        ([7], TypeError),
    ],
)
def test_what_names_no_cluster_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"cluster|port must be"):
        make_options(wrong, None, "auto", 1)


def test_timeout_is_timeout_s(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout=5) as fs:
        assert fs.options.timeout_s == 5.0
    with pytest.raises(ValueError, match="give one"):
        fs_client.connect(cluster.address, timeout=5, timeout_s=6)


def test_file_systems_of_the_same_options_are_equal() -> None:
    fs = FileSystem("a:1")
    assert pickle.loads(pickle.dumps(fs)) == fs == FileSystem([("a", 1)]) and len({fs, FileSystem("a:1")}) == 1
    assert fs != FileSystem("a:2") and fs != "a:1"


@pytest.mark.parametrize("wrong", ["", ",", "a:b", ":9", "a:0", "a:65536", "a:٣"])
def test_a_wrong_address_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match="cluster address"):
        parse_cluster(wrong)


def test_the_cluster_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBERFS_CLUSTER", raising=False)
    assert make_options(None, None, "auto", 1).cluster == "127.0.0.1:9700"
    monkeypatch.setenv("EMBERFS_CLUSTER", "there:1")
    assert make_options(None, None, "auto", 1).cluster == "there:1"
    assert make_options("here:2", None, "auto", 1).cluster == "here:2"


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="transport 'ipoib' is none of auto, tcp, rdma"):
        make_options("a:1", None, "ipoib", 1)
    with pytest.raises(ValueError, match="timeout_s"):
        make_options("a:1", None, "auto", 0)


def test_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_options("a:1", None, None, 1).transport == ("auto", (), ())
    given = make_options("a:1", None, "rdma", 1, rdma_devices=["rxe0", "rxe1:2"], rdma_subnets="10.0.0.0/8+fe80::/64")
    assert given.transport == ("rdma", ("rxe0", "rxe1:2"), ("10.0.0.0/8", "fe80::/64"))
    assert pickle.loads(pickle.dumps(given)) == given
    monkeypatch.setenv("EMBERFS_TRANSPORT", "rdma")
    monkeypatch.setenv("EMBERFS_RDMA_DEVICES", "rxe0, rxe1")
    monkeypatch.setenv("EMBERFS_RDMA_SUBNETS", "10.1.0.0/16")
    assert make_options("a:1", None, None, 1).transport == ("rdma", ("rxe0", "rxe1"), ("10.1.0.0/16",))
    assert make_options("a:1", None, "tcp", 1, rdma_devices="", rdma_subnets=[]).transport == ("tcp", (), ())
    monkeypatch.setenv("EMBERFS_TRANSPORT", "pigeon")
    with pytest.raises(ValueError, match="transport 'pigeon' is none of"):
        make_options("a:1", None, None, 1)


@pytest.mark.parametrize(("name", "value"), [("rdma_devices", "/dev/x"), ("rdma_subnets", "10.0.0.1/8")])
def test_what_goes_with_the_transport_is_checked(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        make_options("a:1", None, "auto", 1, **{name: value})  # type: ignore[arg-type]


def test_rdma_and_tls_do_not_go_together() -> None:
    assert make_options("a:1", None, "auto", 1, tls_ca="ca.pem").transport.transport == "tcp"
    with pytest.raises(ValueError, match="RDMA is not encrypted"):
        make_options("a:1", None, "rdma", 1, tls_ca="ca.pem")


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert make_options("a:1", None, "auto", 1).read_token() == ""
    monkeypatch.setenv("EMBERFS_TOKEN_FILE", str(file))
    assert make_options("a:1", None, "auto", 1).read_token() == TOKEN
    monkeypatch.setenv("EMBERFS_TOKEN", OTHER)
    assert make_options("a:1", None, "auto", 1).read_token() == OTHER
    assert make_options("a:1", None, "auto", 1, token_file=file).read_token() == TOKEN
    assert make_options("a:1", TOKEN, "auto", 1).read_token() == TOKEN
    with pytest.raises(ValueError, match="leave one out"):
        make_options("a:1", TOKEN, "auto", 1, token_file=file)


def test_a_token_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    options = make_options("a:1", None, "auto", 1, token_file=file)
    file.write_text(OTHER)
    assert options.read_token() == OTHER


@pytest.mark.parametrize("wrong", ["secret", TOKEN[:-1], TOKEN.replace("0001", "0002")])
def test_what_is_no_token_is_one_clear_error(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"token: (this is no token|token 0002\w+ is damaged)") as refused:
        make_options("a:1", wrong, "auto", 1)
    assert wrong not in str(refused.value) or wrong == "secret"
    monkeypatch.setenv("EMBERFS_TOKEN", wrong)
    with pytest.raises(ValueError, match="token: "):
        make_options("a:1", None, "auto", 1)
    file = tmp_path / "token"
    file.write_text(wrong)
    with pytest.raises(EmberError, match=r"token_file .*: ") as unreadable:
        make_options("a:1", None, "auto", 1, token_file=file)
    assert unreadable.value.code is Code.UNAUTHENTICATED and str(file) in str(unreadable.value)
    with pytest.raises(FileNotFoundError):
        make_options("a:1", None, "auto", 1, token_file=tmp_path / "missing")


def test_options_print_no_token() -> None:
    assert TOKEN not in repr(make_options("a:1", TOKEN, "auto", 1))


@pytest.mark.parametrize(
    ("started_as", "shown"),
    [
        ("/home/a/train.py", "train.py"),
        ("/usr/lib/python3/pytest/__main__.py", "pytest"),
        ("-c", "python"),
        ("", "python"),
    ],
)
def test_operators_see_the_name_of_the_program(monkeypatch: pytest.MonkeyPatch, started_as: str, shown: str) -> None:
    monkeypatch.setattr(sys, "argv", [started_as])
    assert program_name() == shown
