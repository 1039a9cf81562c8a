"""Tests of RDMA. Those marked `rdma` use devices: without them they are skipped; `tests/rdma/run.sh` has a guest."""

import os

import pytest

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
