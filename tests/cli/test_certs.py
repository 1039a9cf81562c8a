"""`emberfs certs`: what it makes, who trusts whom through a rotation, and what it says."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fs_client.cli.main import commands
from fs_common.tls import making
from fs_common.tls.files import TlsFiles
from tests.common.test_tls import handshake


def certs(*words: object) -> Result:
    return CliRunner().invoke(commands, ["certs", *map(str, words)], standalone_mode=False)


def output(*words: object) -> str:
    result = certs(*words)
    assert result.exception is None, result.exception
    return result.output


def refused(*words: object) -> str:
    result = certs(*words)
    assert result.exception is not None
    return str(getattr(result.exception, "message", result.exception))


def test_one_command_makes_all_of_a_cluster(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    said = output(
        "init", directory, "--cluster", "prod", "--storage", 2, "--host", "meta=fs.example.org", "--host", "::2"
    )
    assert "EMBERFS_TLS_CA=" in said
    assert [daemon.directory for daemon in making.daemons(directory)] == ["meta", "storage-1", "storage-2"]
    assert making.show(directory / "meta" / "cert.pem").names == [
        "emberfs.internal",
        "meta.emberfs.internal",
        *("meta", "localhost", "127.0.0.1", "::1", "fs.example.org", "::2"),
    ]
    assert "fs.example.org" not in making.show(directory / "storage-2" / "cert.pem").names
    assert "has an authority already" in refused("init", directory, "--cluster", "prod")


def test_a_new_certificate_keeps_its_hosts(tmp_path: Path) -> None:
    output("init", tmp_path / "c", "--cluster", "prod", "--storage", 0)
    output("issue", tmp_path / "c", "storage-7", "--host", "ten.example.org")
    before = making.show(tmp_path / "c" / "storage-7" / "cert.pem")
    output("rotate", tmp_path / "c")
    after = making.show(tmp_path / "c" / "storage-7" / "cert.pem")
    assert after.names == before.names
    assert after.own_key != before.own_key and after.serial != before.serial
    output("issue", tmp_path / "c", "storage-7", "--host", "other.example.org")
    names = making.show(tmp_path / "c" / "storage-7" / "cert.pem").names
    assert "other.example.org" in names and "ten.example.org" not in names


def test_nobody_is_cut_off_while_an_authority_takes_over(tmp_path: Path) -> None:
    """After each step everybody has either the files of before or those of now: all of them trust each other."""
    directory, old = tmp_path / "certs", tmp_path / "old"
    output("init", directory, "--cluster", "prod", "--storage", 1)
    for words in (("--authority",), (), ("--forget",)):
        shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(directory, old)
        output("rotate", directory, *words)
        for one, other in ((directory, old), (old, directory), (directory, directory)):
            handshake(TlsFiles.of_daemon(one / "meta"), TlsFiles.of_daemon(other / "storage-1"))
            handshake(TlsFiles.of_daemon(one / "meta"), TlsFiles.of_client(other / "client" / "ca.pem"))
    assert "until" in output("show", directory)
    assert len(making.authorities(directory)) == 1


def test_an_authority_that_is_needed_is_not_forgotten(tmp_path: Path) -> None:
    output("init", tmp_path / "c", "--cluster", "prod", "--storage", 1)
    output("rotate", tmp_path / "c", "--authority")
    output("issue", tmp_path / "c", "meta")
    assert "storage-1 still has a certificate of an earlier authority" in refused("rotate", tmp_path / "c", "--forget")
    assert "two steps" in refused("rotate", tmp_path / "c", "--forget", "--authority")


def test_what_ends_soon_is_said(tmp_path: Path) -> None:
    output("init", tmp_path / "c", "--cluster", "prod", "--storage", 1)
    assert certs("show", tmp_path / "c").exit_code == 0
    output("issue", tmp_path / "c", "storage-1", "--days", 5)
    result = CliRunner().invoke(commands, ["certs", "show", str(tmp_path / "c")])
    assert result.exit_code == 1
    assert "certificates end soon" in result.output
    result = CliRunner().invoke(commands, ["certs", "show", "--json", str(tmp_path / "c" / "storage-1" / "cert.pem")])
    (shown,) = json.loads(result.stdout)
    assert (shown["role"], shown["node"]) == ("storage", 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("issue", "none", "meta"), "none has no authority"),
        (("rotate", "none"), "none has no daemon's certificate"),
        (("issue", ".", "storage-0"), "is no daemon's name"),
        (("issue", ".", "../meta"), "is no daemon's name"),
        (("init", "x", "--cluster", "c", "--host", "storage-9=h"), "there is no daemon 'storage-9'"),
        (("init", "x", "--cluster", "c", "--host", "ä"), "is neither a host's name nor an address"),
        (("show", "."), "has no certificates"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(*words)
    assert line in said and "\n" not in said
    assert not list(tmp_path.iterdir()), "nothing is begun"


def test_damaged_files_are_named(tmp_path: Path) -> None:
    output("init", tmp_path / "c", "--cluster", "prod", "--storage", 1)
    for name in ("ca-key.pem", "ca.pem"):
        kept = (tmp_path / "c" / name).read_bytes()
        (tmp_path / "c" / name).write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n")
        assert name in refused("issue", tmp_path / "c", "meta")
        (tmp_path / "c" / name).write_bytes(kept)
