"""A pytest plugin: all storage daemons and clients of a test go over RDMA, by verbs in memory.

pytest -p tests.rdma.over_soft_verbs tests/storage/test_service.py
"""

from collections.abc import Iterator

import pytest

from fs_common.transports import payload
from tests.rdma.soft_verbs import Fabric


@pytest.fixture(autouse=True)
def over_soft_verbs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fabric]:
    fabric = Fabric({"soft0": "10.77.0.1", "soft1": "10.77.0.2"})
    monkeypatch.setattr(payload, "_binding", fabric.binding)
    yield fabric
    assert not fabric.faults, fabric.faults
