"""`emberfs top`."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fs_client.cli.failure import Usage
from fs_client.cli.options import cluster_argument, cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.text import put_json, size_words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fs_client.aio import AsyncFileSystem
    from fs_client.top import MetaRates, StorageRates

_ASK_S = 2.0
"""A process that does not answer within this time is shown without figures."""


@click.command()
@cluster_argument
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.2), default=2.0, show_default=True, metavar="SECONDS",
    help="Between two looks.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many looks.  [default: at Ctrl-C]")
@json_option
@cluster_option
def top(address: str | None, interval_s: float, count: int | None, as_json: bool, cluster: str) -> None:
    """Show live what each process of a cluster does: operations, bytes, how long they take.

    A line for each metadata server and storage daemon, and a sum. On a terminal it is drawn anew at each look,
    elsewhere one table follows another; --json prints one object a line for each look. Updates are counted at each
    replica. Refused: calls that ended with an errno, as a look at a name that is not there does.

    \b
    Example:
      emberfs top
      emberfs top --count 1 --json storage.example:9700
    """
    run(_top(address or cluster, interval_s, count, as_json))


class _Row(NamedTuple):
    name: str
    rates: "MetaRates | StorageRates | None"
    """None: it did not answer."""


class _Watched:
    """The processes of a cluster, and what they had counted at the last look."""

    def __init__(self, fs: "AsyncFileSystem") -> None:
        self._fs = fs
        self._readings: dict[str, tuple[float, Mapping[str, int]]] = {}

    async def look(self) -> list[_Row]:
        """What each did since the last look; a process that is seen for the first time is not in it."""
        from fs_client.top import meta_rates, storage_rates
        from fs_common.records.routing import NodeState

        fs = self._fs
        await fs.routing.refresh_if_possible(fs.routing.routing.version, _ASK_S)
        asked: list[tuple[str, tuple[str, int] | None, bool]] = [
            (f"meta {host}:{port}", (host, port), True) for host, port in fs.options.addresses
        ]
        for node in sorted(fs.routing.routing.nodes, key=lambda node: node.node):
            is_up = node.state is NodeState.UP
            name = f"node {node.node} {node.host}:{node.port}"
            asked.append((name, (node.host, node.port) if is_up else None, False))
        found = await asyncio.gather(*(self._ask(where) for _, where, _ in asked))
        rows = []
        for (name, _, is_meta), answer in zip(asked, found, strict=True):
            if answer is None:
                self._readings.pop(name, None)
                rows.append(_Row(name, None))
                continue
            before = self._readings.get(name)
            self._readings[name] = answer
            if before is not None:
                rates: Any = meta_rates if is_meta else storage_rates
                rows.append(_Row(name, rates(before[1], answer[1], answer[0] - before[0])))
        return rows

    async def _ask(self, where: tuple[str, int] | None) -> tuple[float, Mapping[str, int]] | None:
        from fs_common.errors import EmberError
        from fs_common.methods import STATS
        from fs_common.records.session import Empty, Stats

        if where is None:
            return None
        try:
            reply: Stats = await self._fs.pool.call(where, STATS, Empty(), timeout=_ASK_S)
        except EmberError:
            return None
        return time.monotonic(), reply.counters


async def _top(cluster: str, interval_s: float, count: int | None, as_json: bool) -> None:
    from fs_client import aio

    try:
        fs = await aio.connect(cluster)
    except ValueError as error:
        raise Usage(str(error)) from None
    async with fs:
        watched = _Watched(fs)
        await watched.look()
        name = fs.routing.routing.cluster
        if as_json:
            await _each(watched, interval_s, count, _put)
        elif sys.stdout.isatty():
            from rich.live import Live

            with Live(f"looking at {name} for {interval_s:g} s", auto_refresh=False, screen=count is None) as live:
                await _each(
                    watched, interval_s, count, lambda rows: live.update(_table(name, rows, interval_s), refresh=True)
                )
        else:
            from rich.console import Console

            console = Console(width=140)
            await _each(watched, interval_s, count, lambda rows: console.print(_table(name, rows, interval_s)))


def _put(rows: list[_Row]) -> None:
    put_json(_as_json(rows))
    sys.stdout.flush()


async def _each(watched: _Watched, interval_s: float, count: int | None, show: Callable[[list[_Row]], object]) -> None:
    """Look again and again, at times that do not drift."""
    loop = asyncio.get_running_loop()
    at = loop.time()
    looks = 0
    while count is None or looks < count:
        at += interval_s
        await _until(at)
        show(await watched.look())
        looks += 1


def _until(at: float) -> Coroutine[Any, Any, None]:
    return asyncio.sleep(max(at - asyncio.get_running_loop().time(), 0.0))


def _as_json(rows: list[_Row]) -> dict[str, Any]:
    return {
        "time": time.time(),
        "processes": [
            {"name": row.name, "answers": row.rates is not None} | ({} if row.rates is None else row.rates._asdict())
            for row in rows
        ],
    }


def _table(name: str, rows: list[_Row], interval_s: float) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table

    from fs_client.top import MetaRates, StorageRates

    names = Table(title=f"cluster {name}, {time.strftime('%H:%M:%S')}, each second over the last {interval_s:g} s")
    for heading in ("metadata", "looks", "changes", "mean ms", "refused", "slow"):
        names.add_column(heading, justify="left" if heading == "metadata" else "right", no_wrap=True)
    chunks = Table()
    for heading in (
        "storage",
        "reads",
        "read",
        "ms",
        "updates",
        "written",
        "ms",
        "resync",
        "under way",
        "callers",
        "errors",
        "slow",
    ):
        chunks.add_column(heading, justify="left" if heading == "storage" else "right", no_wrap=True)
    total: list[StorageRates] = []
    for row in rows:
        rates = row.rates
        if isinstance(rates, MetaRates):
            names.add_row(
                row.name, _rate(rates.looks), _rate(rates.changes), _ms(rates.mean_ms), *_bad(rates.refused, rates.slow)
            )
        elif isinstance(rates, StorageRates):
            total.append(rates)
            chunks.add_row(row.name, *_cells(rates))
        elif row.name.startswith("meta"):
            names.add_row(row.name, "does not answer", style="red")
        else:
            chunks.add_row(row.name, "does not answer", style="red")
    if len(total) > 1:
        chunks.add_section()
        chunks.add_row("together", *_cells(_sum(total)))
    return Group(names, chunks)


def _sum(rows: "list[StorageRates]") -> "StorageRates":
    from fs_client.top import StorageRates

    def mean(of: Callable[[StorageRates], tuple[float | None, float]]) -> float | None:
        found = [(value, weight) for value, weight in map(of, rows) if value is not None]
        weights = sum(weight for _, weight in found)
        return sum(value * weight for value, weight in found) / weights if weights else None

    return StorageRates(
        sum(row.reads for row in rows),
        sum(row.read_bytes for row in rows),
        mean(lambda row: (row.read_ms, row.reads)),
        sum(row.updates for row in rows),
        sum(row.written_bytes for row in rows),
        mean(lambda row: (row.update_ms, row.updates)),
        sum(row.resync_bytes for row in rows),
        sum(row.errors for row in rows),
        sum(row.in_flight for row in rows),
        sum(row.slow for row in rows),
        sum(row.connections for row in rows),
        sum(row.rdma_connections for row in rows),
    )


def _cells(rates: "StorageRates") -> list[str]:
    return [
        _rate(rates.reads),
        _bytes(rates.read_bytes),
        _ms(rates.read_ms),
        _rate(rates.updates),
        _bytes(rates.written_bytes),
        _ms(rates.update_ms),
        _bytes(rates.resync_bytes),
        str(rates.in_flight) if rates.in_flight else "",
        f"{rates.connections} ({rates.rdma_connections} rdma)" if rates.rdma_connections else str(rates.connections),
        *_bad(rates.errors, rates.slow),
    ]


def _bad(*rates: float) -> list[str]:
    return [f"[red]{_rate(rate)}[/red]" if rate else "" for rate in rates]


def _rate(value: float) -> str:
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _bytes(value: float) -> str:
    return f"{size_words(int(value))}/s" if value >= 1 else ""


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:,.0f}"
