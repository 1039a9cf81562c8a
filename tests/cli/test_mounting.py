"""What a mount in the background is started with: no secret where others can read it, and files named from the root."""

import os

import pytest

from fs_client.cli.mounting import for_daemon, split_source


@pytest.mark.parametrize(
    ("source", "address", "directory"),
    [
        ("127.0.0.1:9700", "127.0.0.1:9700", "/"),
        ("a:1,b:2", "a:1,b:2", "/"),
        ("a:1,b:2:/", "a:1,b:2", "/"),
        ("meta1:9700:/data sets//x/./", "meta1:9700", "/data sets/x"),
        ("meta1:/x", "meta1", "/x"),
        ("[::1]:9700:/x:/y", "[::1]:9700", "/x:/y"),
        ("ember://meta1:9700/x/y", "meta1:9700", "/x/y"),
        ("ember://meta1:9700", "meta1:9700", "/"),
    ],
)
def test_what_is_mounted_is_a_cluster_and_a_directory_of_it(source: str, address: str, directory: str) -> None:
    assert split_source(source) == (address, directory)


@pytest.mark.parametrize("source", ["meta1:9700/x", "/x", ":/x", "ember:///x", ""])
def test_what_names_no_server_or_no_directory_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="names no"):
        split_source(source)


def test_a_token_goes_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBERFS_TOKEN_FILE", raising=False)
    monkeypatch.delenv("EMBERFS_TLS_CA", raising=False)
    shown, environment = for_daemon(["ro,token=ember.00000000.secret", "noatime"])
    assert shown == ["ro", "noatime"]
    assert environment == {"EMBERFS_TOKEN": "ember.00000000.secret"}


def test_files_are_named_from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERFS_TOKEN_FILE", "other.token")
    monkeypatch.delenv("EMBERFS_TLS_CA", raising=False)
    shown, environment = for_daemon(["token_file=a.token,tls_ca=", "tls_ca=ca.pem"])
    here = os.getcwd()
    assert shown == [f"token_file={here}/a.token", "tls_ca=", f"tls_ca={here}/ca.pem"]
    assert environment == {"EMBERFS_TOKEN": "", "EMBERFS_TOKEN_FILE": f"{here}/other.token"}
