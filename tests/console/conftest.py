"""The browser that all tests of the page share, and clusters that are played for it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.console.browser import Browser, BrowserGone, Page, program
from tests.console.stage import Stage, scene

SCREENSHOTS = os.environ.get("EMBERFS_SCREENSHOTS", "")
"""A directory: tests leave pictures of what they saw there, for people to look at."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = program()
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="ember-browser-", ignore_cleanup_errors=True) as directory:
        running = Browser(path, Path(directory))
        try:
            try:
                running.call("Browser.getVersion")
            except (BrowserGone, TimeoutError):
                said = (Path(directory) / "browser.log").read_text(errors="replace").strip().splitlines()
                pytest.skip(f"{path} does not start: {said[-1] if said else 'it says nothing'}")
            yield running
        finally:
            running.close()


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """`stage("degraded", token="...")`: a server that plays this scene."""
    stages: list[Stage] = []

    def start(name: str = "healthy", *, token: str = "", port: int = 0) -> Stage:
        stages.append(Stage(*scene(name), token=token, port=port))
        return stages[-1]

    yield start
    for each in stages:
        each.close()


@pytest.fixture
def page(browser: Browser, stage: object) -> Iterator[Page]:
    """A page of its own, as wide as a laptop. It may complain about nothing. It is over before its server is."""
    opened = browser.page()
    yield opened
    complaints = opened.complaints(allowed=opened.expected)
    opened.close()
    assert not complaints


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Keep a picture, where that is wished."""

    def keep(page: Page, name: str) -> None:
        if SCREENSHOTS:
            page.screenshot(Path(SCREENSHOTS) / f"{name}.png")

    return keep
