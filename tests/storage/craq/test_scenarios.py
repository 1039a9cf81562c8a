"""Each story in `scenarios/` goes as it is written there (`scenario.py` has the language)."""

from pathlib import Path

import pytest

from tests.storage.craq.scenario import FOLDER, tell

STORIES = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=[path.stem for path in STORIES])
def test_a_story(path: Path) -> None:
    text = path.read_text()
    assert tell(text) == text, "python -m tests.storage.craq.scenario FILE writes what happens now"


def test_a_story_that_goes_otherwise_is_noticed() -> None:
    story = "chain A\nhear A\nwrite A x one\nrun\n----\n"
    told = tell(story)
    assert "update 1 is stored as v1" in told and tell(told) == told
    assert tell(told.replace("stored as v1", "stored as v2")) == told
