"""Which device, port and address a connection goes over."""

from ipaddress import ip_address

import pytest

from fs_common.transports.rdma.devices import PENALTY_MAX_S, PENALTY_S, Choice, reach, usable, wanted
from fs_common.transports.rdma.verbs import Device, Gid, GidKind, Port, PortState


def gid(address: str, index: int = 1, kind: GidKind = GidKind.ROCE_V2) -> Gid:
    number = ip_address(address)
    packed = b"\0" * 10 + b"\xff\xff" + number.packed if number.version == 4 else number.packed
    return Gid(index, packed, kind)


def device(name: str, *ports: Port) -> Device:
    return Device(name, ports, 1000, 1000, 1000, 1000, 2**40, 16)


def port(number: int, *gids: Gid, state: PortState = PortState.ACTIVE) -> Port:
    return Port(number, state, 4096, 0, 2**31, gids)


def plain(name: str, address: str, **more: PortState) -> Device:
    """As Linux has it: a link-local address first, of both kinds, then the real one, of both kinds."""
    gids = [gid("fe80::1", 0), gid("fe80::1", 1, GidKind.ROCE_V1), gid(address, 2, GidKind.ROCE_V1), gid(address, 3)]
    return device(name, port(1, *gids, **more))


def used(*devices: Device, names: tuple[str, ...] = (), subnets: tuple[str, ...] = ()) -> list[str]:
    return [str(way) for way in usable(devices, wanted(names, subnets)).ways]


def test_what_is_usable() -> None:
    there = [plain("rxe0", "10.77.0.1"), plain("rxe1", "10.78.0.1")]
    assert used(*there) == ["rxe0:1 (10.77.0.1)", "rxe1:1 (10.78.0.1)"]
    assert used(*there, names=("rxe1",)) == ["rxe1:1 (10.78.0.1)"]
    assert used(*there, names=("rxe1:1",)) == ["rxe1:1 (10.78.0.1)"]
    assert used(*there, names=("rxe1:2",)) == []
    assert used(*there, subnets=("10.78.0.0/16",)) == ["rxe1:1 (10.78.0.1)"]
    assert used(*there, subnets=("fe80::/64",)) == ["rxe0:1 (fe80::1)", "rxe1:1 (fe80::1)"]


@pytest.mark.parametrize(
    ("there", "names", "subnets", "words"),
    [
        ([], (), (), "no RDMA device"),
        ([plain("rxe0", "10.0.0.1", state=PortState.DOWN)], (), (), "rxe0:1: its link is down"),
        ([device("rxe0", port(1, gid("fe80::1")))], (), (), "of its link alone"),
        ([device("rxe0", port(1))], (), (), "no address"),
        ([plain("rxe0", "10.0.0.1")], ("mlx5_0",), (), "mlx5_0: there is no such RDMA device; there are: rxe0"),
        ([plain("rxe0", "10.0.0.1")], ("rxe0:2",), (), "rxe0:2: there is no such port"),
        ([plain("rxe0", "10.0.0.1")], (), ("10.1.0.0/16",), "in rdma_subnets"),
    ],
)
def test_why_something_is_not_used(
    there: list[Device], names: tuple[str, ...], subnets: tuple[str, ...], words: str
) -> None:
    found = usable(there, wanted(names, subnets))
    assert not found.ways
    assert any(words in line for line in found.obstacles), found.obstacles


@pytest.mark.parametrize("text", ["", "/dev/infiniband", "rxe0:", "rxe0:0", "rxe0:one", "rxe0:999"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="rdma_devices"):
        wanted([text])


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "somewhere"])
def test_subnets_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="rdma_subnets"):
        wanted((), [text])


def test_who_reaches_whom() -> None:
    here = gid("10.77.0.1")
    assert reach(here, gid("10.77.0.2")) == 30
    assert reach(here, gid("192.168.0.1")) == 0
    assert reach(here, gid("2001:db8::1")) is None
    assert reach(here, gid("10.77.0.2", kind=GidKind.INFINIBAND)) is None
    within = wanted((), ["10.77.0.0/24", "10.78.0.0/24"]).subnets
    assert reach(here, gid("10.77.0.2"), within) is not None
    assert reach(here, gid("10.78.0.2"), within) is None, "both are known, and neither is the other's"
    infiniband = [gid(f"fe80:0:0:{subnet}::1", kind=GidKind.INFINIBAND) for subnet in (0, 1)]
    assert reach(infiniband[0], infiniband[0]) is not None
    assert reach(infiniband[0], infiniband[1]) is None


def test_a_caller_is_answered_over_the_nearest_way() -> None:
    there = [plain("rxe0", "10.77.0.1"), plain("rxe1", "10.77.1.1"), plain("ib0", "2001:db8::1")]
    choice = Choice()
    for address, device_name in (("10.77.0.9", "rxe0"), ("10.77.1.9", "rxe1"), ("2001:db8::9", "ib0")):
        way = choice.to_caller(there, gid(address), 0.0)
        assert way is not None and way.device == device_name
    assert choice.to_caller(there, gid("10.77.0.9", kind=GidKind.INFINIBAND), 0.0) is None
    assert Choice(wanted((), ["10.77.0.0/24"])).to_caller(there, gid("10.77.1.9"), 0.0) is None


def test_connections_are_spread() -> None:
    there = [plain(f"rxe{n}", f"10.77.0.{n + 1}") for n in range(3)]
    caller, server = Choice(), Choice()
    for _ in range(9):
        way = caller.to_server(there, "server", 0.0)[0]
        caller.opened(way)
        answer = server.to_caller(there, way.gid, 0.0)
        assert answer is not None
        server.opened(answer)
    even = {"rxe0:1": 3, "rxe1:1": 3, "rxe2:1": 3}
    assert caller.connections == server.connections == even
    caller.closed(way)
    assert caller.to_server(there, "server", 0.0)[0] == way


def test_a_port_is_one_way_to_a_server() -> None:
    there = [device("rxe0", port(1, gid("2001:db8::1"), gid("10.0.0.1"), gid("10.0.0.2")), port(2, gid("2001:db8::2")))]
    assert [str(way) for way in Choice().to_server(there, "server", 0.0)] == [
        "rxe0:1 (10.0.0.1)",
        "rxe0:2 (2001:db8::2)",
    ]


def test_what_failed_is_tried_last_for_a_while() -> None:
    there = [plain("rxe0", "10.0.0.1"), plain("rxe1", "10.0.0.2")]
    choice = Choice()
    first = choice.to_server(there, "server", 0.0)[0]
    assert first.device == "rxe0"

    def order(now_s: float) -> list[str]:
        return [way.device for way in choice.to_server(there, "server", now_s)]

    choice.failed(first, 0.0)
    assert order(PENALTY_S - 0.1) == ["rxe1", "rxe0"]
    answer = choice.to_caller(there, gid("10.0.0.9"), PENALTY_S - 0.1)
    assert answer is not None and answer.device == "rxe1"
    assert order(PENALTY_S) == ["rxe0", "rxe1"]
    # Each failure in a row counts twice as long, up to a bound; success ends it.
    choice.failed(first, 10.0)
    assert order(10.0 + 2 * PENALTY_S - 0.1) == ["rxe1", "rxe0"]
    for _ in range(10):
        choice.failed(first, 100.0)
    assert order(100.0 + PENALTY_MAX_S) == ["rxe0", "rxe1"]
    choice.failed(first, 200.0)
    choice.worked(first, "server")
    assert order(200.0) == ["rxe0", "rxe1"]


def test_a_server_that_is_not_reached_over_a_way_is_not_tried_over_it_for_a_while() -> None:
    there = [plain("rxe0", "10.0.0.1")]
    choice = Choice()
    (way,) = choice.to_server(there, "far", 0.0)
    choice.unreached(way, "far", 0.0)
    assert choice.to_server(there, "far", PENALTY_S - 0.1) == []
    assert choice.to_server(there, "near", 0.0) == [way]
    assert choice.to_server(there, "far", PENALTY_S) == [way]
