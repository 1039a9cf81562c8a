import pytest

from fs_client.options import Address, make_options, parse_cluster


def test_addresses_of_a_cluster() -> None:
    assert parse_cluster("a:1, b:2") == (Address("a", 1), Address("b", 2))
    assert parse_cluster("a") == (Address("a", 9700),)
    assert parse_cluster("[::1]:7,::1") == (Address("::1", 7), Address("::1", 9700))
    assert str(Address("::1", 7)) == "[::1]:7"


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
    with pytest.raises(ValueError, match="transport 'rdma' is not available"):
        make_options("a:1", None, "rdma", 1)
    with pytest.raises(ValueError, match="timeout_s"):
        make_options("a:1", None, "auto", 0)
