"""The console of a metadata server with security: who sees what, and what becomes of a token that is revoked."""

from collections.abc import Callable, Iterator

import pytest

from fs_meta.users.records import UserFlags
from tests.console.browser import Browser, Page
from tests.http.world import World, world

pytestmark = pytest.mark.slow


@pytest.fixture
def guarded() -> Iterator[World]:
    """Alice is a user like any other, carol administers."""
    with world(security=True) as running:

        async def make() -> None:
            users = running.server.users
            await users.add("alice", 1000, 1000, [])
            await users.add("carol", 1001, 1001, [], UserFlags.ADMIN)
            for name in ("alice", "carol"):
                running.tokens[name] = await users.issue(name, lasts_s=None)
            running.server.observer.manage(running.bench.manager, running.cluster.growth)

        running.do(make)
        yield running


def sign_in(page: Page, url: str, token: str) -> None:
    page.open(url)
    page.until("document.activeElement?.matches('dialog[open] #token')")
    page.type(token)
    page.key("Enter")
    page.wait_live()


def test_who_sees_what(browser: Browser, guarded: World, picture: Callable[[Page, str], None]) -> None:
    alice, carol = guarded.tokens["alice"], guarded.tokens["carol"]
    with guarded.served() as url:
        page = browser.page()
        sign_in(page, f"{url}/#/operations", carol)
        page.until("[...document.querySelectorAll('td code')].some((code) => code.textContent === 'read_chunks')")
        picture(page, "administrator")
        page.close()

        page = browser.page()
        sign_in(page, f"{url}/#/operations", alice)
        page.until("document.body.textContent.includes('may administer the cluster')")
        page.until("document.querySelectorAll('#count-nodes')[0].textContent === '3'")
        assert "read_chunks" not in page.text()
        page.evaluate("location.hash = '#/files'")
        page.until("!document.querySelector('.files + .empty').hidden")

        guarded.do(lambda: guarded.server.users.revoke(alice.split(".")[1]))
        page.until("document.querySelector('dialog[open] .refused')")
        assert "revoked" in page.evaluate("document.querySelector('.refused').textContent")
        assert page.evaluate("document.getElementById('connection').textContent") == "Signed out"
        assert not page.evaluate("document.getElementById('view').checkVisibility()")
        picture(page, "revoked")
        assert not page.complaints(allowed=["401"])
        page.close()
