"""The console of a real cluster: what it shows is what the command line says, and it sees a daemon die."""

import json
import os
from collections.abc import Callable

import pytest

import fs_client
from fs_client.cli.local.launch import LaunchedCluster
from tests.console.browser import Browser, Page
from tests.system.control import emberfs, kill, start_again, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

SETTINGS = (
    "meta.heartbeat_interval_ms=100",
    "meta.lease_ms=1000",
    "meta.failure_ms=2000",
)
NAMES = ["plain.bin", "<img src=x onerror=alert(1)>", "line\nbreak", "über 🔥"]


def status(cluster: LaunchedCluster) -> dict[str, object]:
    found: dict[str, object] = json.loads(emberfs("status", "--json", cluster.address, code=None).stdout)
    return found


def test_the_console_of_a_cluster(
    browser: Browser, fresh_cluster: Callable[..., LaunchedCluster], picture: Callable[[Page, str], None]
) -> None:
    cluster = fresh_cluster(storage=3, settings=SETTINGS)
    with fs_client.connect(cluster.address) as fs:
        fs.makedirs("/data")
        for name in NAMES:
            with fs.open(f"/data/{name}", "wb") as file:
                file.write(b"x" * (3 << 20))
        page = browser.page()
        page.open(f"http://127.0.0.1:{cluster.record.meta.http_port}/")
        page.wait_live()
        page.until("document.querySelector('.health h2').textContent === 'The cluster is healthy'")
        assert page.evaluate("document.getElementById('cluster-name').textContent") == cluster.record.cluster
        page.until("document.getElementById('count-clients').textContent === '1'")

        page.evaluate("location.hash = '#/clients'")
        page.until(f"document.querySelector('tbody tr')?.textContent.includes('{os.getpid()}')")
        page.evaluate("location.hash = '#/files?path=/data'")
        page.until(f"document.querySelectorAll('.file').length === {len(NAMES)}")
        shown = page.evaluate("[...document.querySelectorAll('.file-name')].map((name) => name.textContent)")
        assert sorted(shown) == sorted(["plain.bin", "<img src=x onerror=alert(1)>", "line␊break", "über 🔥"])
        page.evaluate(
            "[...document.querySelectorAll('.file')].find((file) => /onerror/.test(file.textContent)).click()"
        )
        page.until("document.querySelectorAll('.layout-table tbody tr').length === 3")
        assert page.evaluate("document.querySelectorAll('.layout-table .replica').length") == 9
        picture(page, "real-file")

        # A daemon dies: the words change in the page that is open.
        page.evaluate("location.hash = '#/overview'")
        page.evaluate("window.same = true")
        kill(cluster, "storage-2")
        page.until("document.querySelector('.health h2').textContent === 'The cluster is degraded'")
        page.until("document.querySelector('.health-more').textContent.includes('node 2 is failed')")
        page.until("document.querySelector('.todo')?.textContent.includes('bring back node 2')")
        told = status(cluster)
        assert told["healthy"] is False
        picture(page, "real-degraded")
        page.key("3")
        page.until("document.querySelectorAll('.chain .target[data-tone=bad]').length === 3")
        picture(page, "real-degraded-chains")

        start_again(cluster)
        page.until("document.querySelectorAll('.chain > .badge[data-tone=ok]').length === 3", within_s=60)
        page.key("1")
        page.until("document.querySelector('.health h2').textContent === 'The cluster is healthy'", within_s=60)
        assert page.evaluate("window.same"), "all that without a reload"
        wait_until(lambda: bool(status(cluster)["healthy"]), "the command line says the same")
        assert not page.complaints()
        page.close()
