"""Each planted defect is found."""

import pytest

from tests.sim.defects import PLANTED, Planted


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_it_is_found(planted: Planted) -> None:
    assert any(planted.finds(seed) for seed in range(planted.seeds))
