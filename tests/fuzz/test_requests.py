"""A bounded run of what `python -m tests.fuzz` does for as long as it is told to."""

import pytest

from tests.fuzz.control import fuzz_control_plane
from tests.fuzz.requests import fuzz_metadata, fuzz_storage
from tests.fuzz.streams import fuzz_frames, fuzz_handshakes
from tests.support import run


@pytest.mark.parametrize("seed", range(3))
def test_a_metadata_server_answers_whatever_it_is_asked(seed: int) -> None:
    run(fuzz_metadata(seed, 400))


@pytest.mark.parametrize("seed", range(2))
def test_a_storage_daemon_answers_whatever_it_is_asked(seed: int) -> None:
    run(fuzz_storage(seed, 200))


@pytest.mark.parametrize("seed", range(2))
def test_a_manager_answers_whatever_it_is_sent(seed: int) -> None:
    run(fuzz_control_plane(seed, 150))


@pytest.mark.parametrize("seed", range(2))
def test_a_server_bears_damaged_frames(seed: int) -> None:
    run(fuzz_frames(seed, 60))


def test_a_server_bears_damaged_handshakes() -> None:
    run(fuzz_handshakes(1, 60))
