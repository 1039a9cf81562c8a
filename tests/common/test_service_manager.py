"""What systemd hears of a daemon that serves."""

import socket
from pathlib import Path

import pytest

from fs_common.service_manager import VARIABLE, tell_ready


@pytest.mark.parametrize("abstract", [False, True])
def test_whoever_named_a_socket_hears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + path if abstract else path)
        listening.settimeout(10)
        monkeypatch.setenv(VARIABLE, "@" + path if abstract else path)
        tell_ready()
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "nonsense", "/no/such/socket"])
def test_nobody_to_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if address is not None:
        monkeypatch.setenv(VARIABLE, address)
    tell_ready()
