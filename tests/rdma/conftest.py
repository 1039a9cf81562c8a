"""Tests of RDMA. Those marked `rdma` use devices: without them they are skipped; `tests/rdma/run.sh` has a guest."""

import os
from collections.abc import Iterator

import pytest

from fs_common.transports.rdma import bindings
from fs_common.transports.rdma.verbs import Binding
from tests.rdma.soft_verbs import Fabric

DEVICES = "/sys/class/infiniband"


def device_names() -> list[str]:
    """Of this machine's RDMA devices, as the kernel has them: no binding is asked."""
    return sorted(os.listdir(DEVICES)) if os.path.isdir(DEVICES) else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    count = len(device_names())
    for item in items:
        marker = item.get_closest_marker("rdma")
        if marker is None:
            continue
        needed = marker.kwargs.get("devices", 1)
        if count < needed:
            reason = (
                f"needs {needed} RDMA device(s), and this machine has {count}: tests/rdma/run.sh has a guest with them"
            )
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(
    params=[
        "soft",
        "soft-1",
        "soft-2",
        pytest.param("pyverbs", marks=pytest.mark.rdma),
        pytest.param("ibverbs", marks=pytest.mark.rdma),
    ]
)
def binding(request: pytest.FixtureRequest) -> Iterator[Binding]:
    """In memory in order, in memory by two seeds, and each real one that can be had: only the one that the environment
    names, if it does."""
    kind, _, seed = request.param.partition("-")
    if kind != "soft":
        if os.environ.get(bindings.VARIABLE, kind) != kind:
            pytest.skip(f"{bindings.VARIABLE} names another one")
        pytest.importorskip(kind)
        yield bindings.load(kind)
        return
    fabric = Fabric({"soft0": "10.77.0.1"}, seed=int(seed) if seed else None, late_turns=20)
    yield fabric.binding()
    assert fabric.counts() == (0, 0, 0), "everything is closed"
    assert not fabric.faults
