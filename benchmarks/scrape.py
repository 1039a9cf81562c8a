"""`/metrics` of each daemon, as a collector of figures asks for it. Limit: the same server's `/healthz`, an answer
without figures."""

import http.client
import statistics
import time
from functools import partial
from itertools import pairwise

from benchmarks.context import Context
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from fs_client.cli.local.directory import ClusterDirectory

_ASKED = 20
"""Times in one value, which is their median."""


def run(context: Context) -> list[Figure]:
    record = ClusterDirectory(context.directory / "cluster").load() if context.processes else None
    if record is None:
        return []
    figures = []
    for daemon in (record.meta, record.storage[0]):
        port, count = daemon.http_port, context.count(_ASKED)
        asked = (partial(_ms, record.host, port, path, count) for path in ("/metrics", "/healthz"))
        metrics, health = alternate(context.repeat, *asked)
        title = "metadata server" if daemon is record.meta else "storage daemon"
        figures.append(
            Figure(
                f"scrape.{daemon.role}",
                f"/metrics of a {title}",
                Series("ms", metrics),
                (Limit("/healthz", Series("ms", health)),),
                Goal("value", "<=", 20),
            )
        )
    return figures


def _ms(host: str, port: int, path: str, count: int) -> float:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        moments = [time.perf_counter()]
        for _ in range(count):
            connection.request("GET", path)
            connection.getresponse().read()
            moments.append(time.perf_counter())
        return statistics.median(after - before for before, after in pairwise(moments)) * 1e3
    finally:
        connection.close()
