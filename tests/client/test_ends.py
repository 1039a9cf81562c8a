"""A file whose close cannot be told to the metadata service."""

import pytest

import fs_client
from fs_client import file as file_module
from fs_common.errors import Code, EmberError
from fs_common.methods import Method
from tests.client.fake_cluster import FakeCluster

TIMEOUT_S = 0.2


def no_close(method: Method) -> EmberError | None:
    return EmberError(Code.BUSY, "later") if method.name == "close" else None


def test_the_length_of_a_file_whose_close_failed_is_told_later(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "TELL_PAUSE_MIN_S", 0.01)
    with fs_client.connect(cluster.address, timeout_s=TIMEOUT_S) as fs:
        file = fs.open("/f", "wb")
        file.write(b"x" * 100)
        cluster.metadata.fault = no_close
        with pytest.raises(OSError, match=r"gave up after 0\.2 s: later"):
            file.close()
        assert fs.stat("/f").st_size == 0
        cluster.metadata.fault = lambda method: None
        assert cluster.when_called("close").wait(30)
        assert fs.stat("/f").st_size == 100
        assert not cluster.metadata.sessions


def test_a_client_that_is_closed_does_not_wait_for_the_service(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=TIMEOUT_S) as fs:
        file = fs.open("/f", "wb")
        cluster.metadata.fault = no_close
        with pytest.raises(OSError, match="later"):
            file.close()


def test_what_the_service_refuses_is_not_told_again(cluster: FakeCluster) -> None:
    with fs_client.connect(cluster.address, timeout_s=TIMEOUT_S) as fs:
        file = fs.open("/f", "wb")
        cluster.metadata.sessions.clear()
        with pytest.raises(OSError, match="no such session"):
            file.close()
        again = cluster.when_called("close")
        fs.write_file("/g", b"x")
        assert [name for name, _ in cluster.metadata.calls].count("close") == 2, "this one, and that of the other file"
        assert again.is_set()
