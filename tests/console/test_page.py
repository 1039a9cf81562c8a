"""The console in a real browser, with clusters that are played.

`EMBERFS_SCREENSHOTS=DIR pytest tests/console` leaves pictures of what the tests saw.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.console.browser import Browser, Page
from tests.console.played import observation
from tests.console.stage import HOSTILE, Stage

pytestmark = pytest.mark.slow
Start = Callable[..., Stage]
Picture = Callable[[Page, str], None]
VIEWS = ("overview", "nodes", "chains", "clients", "operations", "files")
FILES_SHOWN = "document.querySelectorAll('.files a').length > 5"


def visible_text(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''"))


def test_health_is_said_in_words_and_signs(page: Page, stage: Start, picture: Picture) -> None:
    page.open(stage().url)
    page.wait_live()
    assert visible_text(page, ".health h2") == "The cluster is healthy"
    assert visible_text(page, "#health") == "healthy"
    assert page.evaluate("document.querySelector('.health-sign svg') !== null"), "colour is not the only sign"
    assert page.evaluate("document.title") == "lab – Overview – EmberFS"
    page.until("document.querySelectorAll('.chart path.line').length >= 8")
    picture(page, "healthy-overview")


def test_what_changes_is_shown_without_a_reload(page: Page, stage: Start, picture: Picture) -> None:
    played = stage()
    page.open(played.url)
    page.wait_live()
    page.evaluate("window.same = true")
    played.play(observation(failed=frozenset((2,)), version=8))
    page.until("document.querySelector('.health h2').textContent === 'The cluster is degraded'")
    assert "node 2 is failed" in visible_text(page, ".health-more")
    assert "bring back node 2: node 2 has failed" in visible_text(page, ".todo")
    assert visible_text(page, "#count-nodes") == "2/3"
    assert "The cluster is degraded: node 2 is failed" in str(
        page.evaluate("document.getElementById('announced').textContent")
    ), "who cannot see hears it"
    picture(page, "degraded-overview")
    played.play(observation(version=9))
    page.until("document.querySelector('.health h2').textContent === 'The cluster is healthy'")
    assert page.evaluate("window.same"), "the page is the one that was opened"


def test_a_chain_is_a_row_of_targets_with_their_states_and_progress(page: Page, stage: Start, picture: Picture) -> None:
    played = stage("degraded")
    page.open(f"{played.url}/#/chains")
    page.wait_live()
    page.until("document.querySelectorAll('.chain').length === 8")
    rows = page.evaluate(
        "[...document.querySelectorAll('.chain')].map((row) => [...row.querySelectorAll('.target')]"
        ".map((target) => target.innerText.replace(/\\s+/g, ' ')))"
    )
    assert len(rows) == 8 and all(len(row) == 3 for row in rows)
    assert any("syncing" in target and " %" in target for row in rows for target in row)
    assert any(target.endswith("offline") for row in rows for target in row)
    meters = page.evaluate(
        "[...document.querySelectorAll('.target-fill [role=meter]')].map((bar) => [bar.ariaValueNow, bar.ariaLabel])"
    )
    assert all(30 < int(now) < 100 and "is filled up" in label for now, label in meters) and meters
    picture(page, "degraded-chains")


def test_names_may_hold_anything(page: Page, stage: Start, picture: Picture) -> None:
    page.open(f"{stage().url}/#/files")
    page.wait_live()
    page.until(FILES_SHOWN)
    page.evaluate("document.querySelector('button.more').click()")
    page.until("document.querySelectorAll('.files a').length > 14")
    names = page.evaluate("[...document.querySelectorAll('.file-name')].map((name) => name.textContent)")
    for name in HOSTILE:
        if name.isprintable():
            assert name in names
    assert "new␊line␉tab␛[31mred" in names
    assert "right\\u{202e}to\\u{202d}left.gpj.exe" in names, "nothing turns the letters around"
    assert "zero\\u{200b}width\\u{feff}" in names
    assert "raw-\\xff\\xfe.bin" in names
    assert not page.evaluate("document.querySelectorAll('.files img, .files script, .files svg').length")
    # Each is found again by its exact name.
    page.evaluate(
        "[...document.querySelectorAll('.file')].find((file) => file.textContent.includes('<script>')).click()"
    )
    page.until("document.querySelector('.details h2')?.textContent === '<script>alert(1)</script>.txt'")
    assert "%3Cscript%3Ealert%281%29%3C%2Fscript%3E.txt" in page.evaluate("location.hash")
    picture(page, "hostile-names")


def test_how_a_file_lies_on_chains(page: Page, stage: Start, picture: Picture) -> None:
    page.open(f"{stage().url}/#/files?path=/datasets/plain.txt")
    page.wait_live()
    page.until("document.querySelectorAll('.layout-table tbody tr').length === 120")
    heads = page.evaluate("[...document.querySelectorAll('.layout-table thead th')].map((head) => head.textContent)")
    assert heads == ["Chunk", "Bytes", "Chain", "Head", "Replica 2", "Tail"]
    second = visible_text(page, ".layout-table tbody tr:nth-child(2)")
    assert "102" in second and "node 3" in second and "syncing" in second
    page.evaluate("document.querySelector('.layout button.more').click()")
    page.until("document.querySelectorAll('.layout-table tbody tr').length === 240")
    picture(page, "file-on-chains")
    page.key("Escape")
    page.until("location.hash === '#/files?path=/datasets' && document.querySelector('.details').hidden")


def test_everything_is_reached_with_the_keyboard(page: Page, stage: Start, picture: Picture) -> None:
    page.open(stage("degraded").url)
    page.wait_live()
    page.key("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.key("Tab")
    order = []
    for _ in range(12):
        order.append(page.evaluate("(document.activeElement.ariaLabel || document.activeElement.textContent).trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", order[-1]
        page.key("Tab")
    assert [each.rstrip("0123456789/") for each in order[2:10]] == [
        "Theme: as the system",
        "Keyboard shortcuts",
        "Overview",
        "Nodes",
        "Chains",
        "Clients",
        "Operations",
        "Files",
    ]
    for number, view in [*enumerate(VIEWS[1:], 2), (1, VIEWS[0])]:
        page.key(str(number))
        page.until(f"location.hash === '#/{view}' && document.activeElement.tagName === 'H1'")
    page.key("3")
    page.until("document.querySelector('.chain')")
    page.key("/")
    page.until("document.activeElement.id === 'chain-filter'")
    page.type("node:5")
    page.until("document.querySelector('.found').textContent.startsWith('4 chains')")
    page.key("Escape")
    page.until("document.activeElement === document.body")
    page.key("?")
    page.until("document.querySelector('dialog[open]')")
    picture(page, "keys")
    page.key("Escape")
    page.until("!document.querySelector('dialog')")
    page.key("t")
    page.until("document.documentElement.dataset.theme === 'light'")
    page.key("t")
    page.until("document.documentElement.dataset.theme === 'dark'")


def test_a_chart_is_read_with_the_keyboard(page: Page, stage: Start, picture: Picture) -> None:
    page.open(stage().url)
    page.wait_live()
    label = page.until("document.querySelector('.plot-frame').ariaLabel?.match(/.*at most.*/)?.[0]")
    assert label.startswith("Throughput, the last 5 minutes. read: ")
    page.evaluate("document.querySelector('.plot-frame').focus()")
    before = visible_text(page, ".chart .moment")
    page.key("Home")
    page.key("ArrowRight")
    page.until("document.querySelector('.chart [aria-live]').textContent.includes('read')")
    assert before == "now" and visible_text(page, ".chart .moment") != "now"
    picture(page, "chart-read-out")
    page.key("Escape")
    page.until("document.querySelector('.chart .moment').textContent === 'now'")
    page.evaluate("document.activeElement.blur()")
    page.key("r")
    page.key("r")
    page.until("document.querySelector('.plot-frame').ariaLabel.includes('60 minutes')")
    assert page.evaluate("localStorage.getItem('ember.span')") == "60"
    picture(page, "overview-an-hour")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("played", ["degraded", "empty"])
def test_every_view_fits(browser: Browser, stage: Start, picture: Picture, width: int, played: str) -> None:
    shown = stage(played)
    page = browser.page(width, 900, dark=played == "degraded")
    page.open(shown.url)
    page.wait_live()
    for view in VIEWS:
        page.evaluate(f"location.hash = '#/{view}'")
        page.until(f"document.querySelector('#views [aria-current]').dataset.view === '{view}'")
        if view == "files":
            page.until(FILES_SHOWN)
        page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        assert page.evaluate("document.documentElement.scrollWidth") == width, f"{view} is wider than the page"
        assert page.evaluate("document.querySelectorAll('#view h1').length") == 1
        picture(page, f"{played}-{view}-{width}")
    assert not page.complaints()
    page.close()


CONTRAST = """
(() => {
  const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const colour = (text) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = text;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const found = colour(getComputedStyle(each).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest('.hidden, .skip')) continue;
    const style = getComputedStyle(node);
    const paint = node instanceof SVGElement ? style.fill : style.color;
    const [one, other] = [light(colour(paint)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) poor.push(`${walk.currentNode.data.trim().slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out(browser: Browser, stage: Start, theme: str) -> None:
    """4.5 : 1, as the guidelines for accessible pages (WCAG 2, AA) have it."""
    shown = stage("degraded")
    page = browser.page(dark=theme == "dark")
    page.open(shown.url)
    page.wait_live()
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (theme == "dark")
    for view in VIEWS:
        page.evaluate(f"location.hash = '#/{view}'")
        page.until(f"document.querySelector('#views [aria-current]').dataset.view === '{view}'")
        page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        assert page.evaluate(CONTRAST) == [], view
    page.close()


def test_everything_that_can_be_operated_has_a_name(page: Page, stage: Start) -> None:
    page.open(stage("degraded").url)
    page.wait_live()
    for view in VIEWS:
        page.evaluate(f"location.hash = '#/{view}'")
        page.until(f"document.querySelector('#views [aria-current]').dataset.view === '{view}'")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        nameless = [
            node["role"]["value"]
            for node in nodes
            if node.get("role", {}).get("value") in ("button", "link", "textbox", "searchbox", "radio", "meter", "img")
            and not node.get("ignored")
            and not node.get("name", {}).get("value", "").strip()
        ]
        assert not nameless, view


def test_dark_is_chosen_by_the_system_and_by_the_switch(page: Page, stage: Start, picture: Picture) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.open(stage().url)
    page.wait_live()
    light = page.evaluate(background)
    page.theme("dark")
    page.until(f"{background} !== '{light}'")
    dark = page.evaluate(background)
    page.theme("light")
    page.until(f"{background} === '{light}'")
    for _ in range(2):
        page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(background) == dark
    page.call("Page.reload")
    page.wait_live()
    assert page.evaluate(background) == dark, "it is remembered"
    picture(page, "dark-overview")


def test_a_server_that_is_gone_is_told_and_found_again(page: Page, stage: Start, picture: Picture) -> None:
    page.expected += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE"]
    page.expected += ["ERR_CONNECTION_RESET"]
    first = stage()
    page.open(first.url)
    page.wait_live()
    page.evaluate("window.same = true")
    first.close()
    page.until("document.getElementById('connection').dataset.state === 'lost'")
    page.until("!document.getElementById('lost').hidden")
    banner = visible_text(page, "#lost")
    assert banner.startswith("Disconnected:") and "What is shown is from" in banner and "Try now" in banner
    assert "Disconnected" in page.evaluate("document.getElementById('announced').textContent")
    picture(page, "disconnected")
    again = stage(port=first.port)
    page.evaluate("document.querySelector('#lost button')?.click()")
    page.until("document.getElementById('connection').dataset.state === 'live'")
    page.until("document.getElementById('lost').hidden")
    again.play(observation(name="another"))
    page.until("document.getElementById('cluster-name').textContent === 'another'")
    assert page.evaluate("window.same")


def test_a_page_that_nobody_sees_gives_its_connection_back(page: Page, stage: Start) -> None:
    played = stage()
    page.open(played.url)
    page.wait_live()
    page.evaluate("""
        const later = window.setTimeout;
        window.setTimeout = (work, ms) => later(work, ms === 60000 ? 0 : ms);
        window.see = (hidden) => {
          Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        };
        see(true);
    """)
    page.until("document.getElementById('connection').dataset.state === 'connecting'")
    assert page.evaluate("document.getElementById('lost').hidden"), "that is no failure"
    played.play(observation(name="another"))
    page.evaluate("see(false)")
    page.until("document.getElementById('cluster-name').textContent === 'another'")
    page.wait_live()


def test_a_token_is_asked_for_and_kept_for_this_tab_at_most(page: Page, stage: Start, picture: Picture) -> None:
    page.expected.append("401")
    page.open(stage(token="ember.00000000.right").url)

    def sign_in(token: str, keep: bool) -> None:
        page.until("document.activeElement?.matches('dialog[open] #token')")
        page.type(token)
        if keep:
            page.evaluate("document.getElementById('token-keep').click()")
            page.evaluate("document.getElementById('token').focus()")
        page.key("Enter")

    page.until("document.querySelector('dialog[open]')")
    picture(page, "token")
    page.key("Escape")
    page.until("document.querySelector('dialog[open]')")  # there is nothing to see without it
    sign_in("ember.00000000.wrong", False)
    page.until("document.querySelector('dialog[open] .refused')?.textContent === 'nobody knows this token'")
    sign_in("ember.00000000.right", False)
    page.wait_live()
    everything = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    assert "00000000" not in page.evaluate(everything), "in memory alone"
    page.evaluate("location.hash = '#/files'")
    page.until(FILES_SHOWN)

    page.call("Page.reload")
    sign_in("ember.00000000.right", True)
    page.wait_live()
    assert page.evaluate("sessionStorage.getItem('ember.token')") == "ember.00000000.right"
    assert "00000000" not in page.evaluate("JSON.stringify([{...localStorage}, document.cookie, location.href])")
    page.call("Page.reload")
    page.wait_live()
    assert all("00000000" not in url for url in page.requests())


def test_thousands_of_chains_are_shown(page: Page, stage: Start, picture: Picture) -> None:
    page.open(f"{stage('large').url}/#/chains")
    page.wait_live()
    page.until("document.querySelectorAll('.chain').length === 60")
    assert visible_text(page, "#count-chains") == "1,910/2,000"
    assert page.evaluate("document.querySelectorAll('*').length") < 6000
    assert page.evaluate("document.querySelector('.map canvas').height") > 100
    states = page.evaluate("[...document.querySelectorAll('.chain > .badge')].map((badge) => badge.textContent)")
    assert set(states) == {"degraded"}, "what is not well comes first"
    page.evaluate("document.querySelector('[name=chain-state][value=serving]').click()")
    page.until("document.querySelector('.found').textContent === '1,910 chains'")
    page.evaluate("document.querySelector('[name=chain-state][value=all]').click()")
    page.key("/")
    page.type("node:7")
    page.until("document.querySelector('.found').textContent.endsWith(' chains')")
    rows = page.evaluate("[...document.querySelectorAll('.chain')].map((row) => row.innerText)")
    assert rows and all("node 7" in row for row in rows)
    picture(page, "large-chains")
    page.key("Escape")
    page.key("2")
    page.until("document.querySelectorAll('tbody tr').length === 100")
    assert "failed" in visible_text(page, "tbody tr")
    picture(page, "large-nodes")


def test_nothing_comes_from_elsewhere(page: Page, stage: Start) -> None:
    played = stage("degraded")
    page.open(played.url)
    page.wait_live()
    for view in VIEWS:
        page.evaluate(f"location.hash = '#/{view}'")
        page.until(f"document.querySelector('#views [aria-current]').dataset.view === '{view}'")
    urls = page.requests()
    assert len(urls) > 10 and all(url.startswith(played.url) for url in urls)


def test_the_page_runs_no_script_but_its_own(page: Page, stage: Start) -> None:
    page.expected += ["Content Security Policy", "TrustedHTML", "requires"]
    page.open(stage().url)
    page.wait_live()

    def refused(script: str) -> Any:
        return page.evaluate(f"(() => {{ try {{ {script}; return 'done' }} catch (error) {{ return error.name }} }})()")

    assert refused("document.body.innerHTML = '<b>x</b>'") == "TypeError"
    assert refused("document.createElement('script').text = 'window.bad = 1'") == "TypeError"
    assert refused("document.body.setAttribute('onclick', 'window.bad = 1')") == "TypeError"
    assert page.evaluate("window.bad") is None
    assert page.evaluate("fetch('https://192.0.2.1/').then(() => 'sent', () => 'refused')") == "refused"
