"""`python -m benchmarks.peers`: one table, EmberFS, the local disk and what a user would otherwise mount."""

import contextlib
import fcntl
import io
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from benchmarks.context import Context, cluster_in, say
from benchmarks.machine import describe
from benchmarks.peers.comparison import Comparison, as_json, as_table
from benchmarks.peers.glusterfs import GlusterFS
from benchmarks.peers.juicefs import JuiceFS
from benchmarks.peers.measurements import FULL, MEASUREMENTS, QUICK, fill
from benchmarks.peers.moosefs import MooseFS
from benchmarks.peers.processes import Ports
from benchmarks.peers.seaweedfs import SeaweedFS
from benchmarks.peers.system import EmberFS, Local, System

PEERS: dict[str, Callable[[Context, Ports], System]] = {
    kind.name: kind for kind in (GlusterFS, MooseFS, SeaweedFS, JuiceFS)
}


@click.command("peers", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="This one (repeatable).  [default: all]"
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="All servers keep their files on the disk of this directory.  [default: that of temporary files]",
)
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Rounds.")
@click.option("--quick", is_flag=True, help="A small run that shows whether everything works; its figures mean little.")
@click.option("--limit-s", type=float, default=1800.0, show_default=True, help="Begin nothing after so much measuring.")
@click.option(
    "--lock",
    "lock_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Measure, but neither start nor fill, under this flock(1): others on the machine wait meanwhile.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the report there too."
)
def main(
    peers: tuple[str, ...],
    directory: Path | None,
    repeat: int,
    quick: bool,
    limit_s: float,
    lock_path: Path | None,
    json_path: Path | None,
) -> None:
    """Measure an EmberFS mount beside other file systems and the local disk, taking turns, with three copies each.

    Peers are installed (Debian packages by root, wheels into the scratch directory), started, mounted, and stopped at
    the end. See benchmarks/peers/README.md for what is equal and what is not.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends everything that was started
    started = time.monotonic()
    sizes = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="emberfs-peers-", dir=directory) as name:
        scratch = Path(name)
        machine = describe(scratch)
        with cluster_in(scratch) as (address, processes), contextlib.ExitStack() as stack:
            context = Context(address, processes, scratch, repeat, quick)
            ports = Ports()
            kinds: list[Callable[[Context, Ports], System]] = [Local, EmberFS]
            kinds += [PEERS[peer] for peer in PEERS if not peers or peer in peers]
            comparison = Comparison([kind(context, ports) for kind in kinds])
            for system in comparison.systems:
                stack.callback(system.stop)
                say(f"starting {system.title}")
                comparison.attempt(system, lambda system: _start(comparison, system))
            say(f"filling all of them, {time.monotonic() - started:.0f} s since the start")
            with ThreadPoolExecutor(len(comparison.systems)) as pool:
                for system in comparison.systems:
                    pool.submit(comparison.attempt, system, lambda system: fill(system, sizes))
            # Before anything is stopped and removed, which takes long, and whatever ends the measuring.
            settings = {"repeat": repeat, "quick": quick}
            stack.callback(lambda: _report(comparison, machine, settings, json_path))
            with _alone(lock_path):
                say(f"measuring {repeat} times, {time.monotonic() - started:.0f} s since the start")
                comparison.run(MEASUREMENTS, sizes, repeat, time.monotonic() + limit_s)
            say(f"measured, {time.monotonic() - started:.0f} s since the start")
    if comparison.failed:
        raise click.ClickException(f"did not finish: {', '.join(comparison.failed)}")


@contextlib.contextmanager
def _alone(lock_path: Path | None) -> Iterator[None]:
    """With the lock, if there is one."""
    if lock_path is None:
        yield
        return
    with open(lock_path, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(comparison: Comparison, system: System) -> None:
    comparison.versions[system.name] = system.start()


def _report(comparison: Comparison, machine: dict[str, Any], settings: dict[str, Any], json_path: Path | None) -> None:
    from rich.console import Console

    rows = [row for measurement in MEASUREMENTS for row in measurement.rows]
    if json_path is not None:
        json_path.write_text(as_json(comparison, rows, machine, settings))
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(as_table(comparison, rows, machine))
    for system in comparison.systems:
        if version := comparison.versions.get(system.name):
            console.print(f"{system.title}: {version}", highlight=False, markup=False)
    for name, why in comparison.failed.items():
        console.print(f"{name} failed: {why}", highlight=False, markup=False)
    sys.stdout.flush()


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A locale that cannot write the table's lines must not end a run of minutes.
        sys.stdout.reconfigure(errors="replace")
    main(prog_name="python -m benchmarks.peers")
