"""What every transport promises to those who call over it: each test of this folder runs over all of them."""

import pytest

from tests.common.transports import CONTRACT, Transport


@pytest.fixture(params=[pytest.param(make, id=name) for name, make in CONTRACT])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param()
    return made
