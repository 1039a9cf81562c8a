"""Each planted defect is found."""

import pytest

from tests.sim.checks import Violation
from tests.sim.defects import DIRECTED, PLANTED, Directed, Planted
from tests.sim.script import Script
from tests.sim.world import World


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_it_is_found(planted: Planted) -> None:
    assert any(planted.finds(seed) for seed in range(planted.seeds))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("directed", DIRECTED, ids=lambda directed: directed.planted.name)
def test_its_story_finds_it(directed: Directed, seed: int) -> None:
    directed.story(Script(World(seed, directed.plan)))
    with pytest.raises(Violation) as found:
        directed.story(Script(directed.planted.into(World(seed, directed.plan))))
    assert "the script waits" not in str(found.value), "it comes to what it is about"
