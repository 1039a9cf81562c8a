"""What every transport promises to those who call over it: each test of this folder runs over all of them."""

from collections.abc import Iterator

import pytest

from tests.common.transports import CONTRACT, Transport
from tests.rdma.conftest import device_names

OF_DEVICES = {"rdma": [pytest.mark.rdma]}


@pytest.fixture(params=[pytest.param(make, id=name, marks=OF_DEVICES.get(name, [])) for name, make in CONTRACT])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    if request.node.get_closest_marker("rdma") is not None and not device_names():
        pytest.skip("needs an RDMA device: tests/rdma/run.sh has a guest with them")
    made: Transport = request.param()
    yield made
    made.close()
