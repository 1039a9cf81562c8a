"""`python -m benchmarks`, which is `emberfs bench`: every figure beside its limit, in one run, on one machine."""

import contextlib
import importlib
import io
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.context import Context, cluster_in, say
from benchmarks.machine import describe
from benchmarks.measure import Figure
from benchmarks.report import as_json, as_table


class Entry(NamedTuple):
    """One benchmark: `benchmarks.<name>.run(context)` gives its figures."""

    name: str
    help: str


BENCHMARKS = (
    Entry("idle_memory", "resident memory of idle daemons"),
    Entry("read_large", "1-MiB reads of a large file"),
    Entry("read_small", "batches of 256 random 4-KiB reads"),
    Entry("read_one", "one 4-KiB read at a time"),
    Entry("tls", "reads and writes over TLS, and over plain TCP"),
    Entry("tokens", "creates and reads where callers say who they are, and where they need not"),
    Entry("write", "a large file to three replicas"),
    Entry("overwrite_amplification", "disk bytes of small overwrites"),
    Entry("metadata", "create and stat, 64 in flight"),
    Entry("collector", "a removed tree freed in the background"),
    Entry("mount_reads", "4-KiB direct reads through a mount"),
    Entry("mount_stream", "a large file through a mount"),
    Entry("mount_files", "small files through a mount"),
    Entry("mount_names", "stat, ls -l, find, du through a mount"),
    Entry("mount_memory", "memory of a mount after a million files were listed"),
    Entry("load", "loader samples over memory"),
    Entry("copy_in", "emberfs cp -r of a source tree"),
    Entry("resync", "a replica that was away is filled up"),
    Entry("failover", "pauses when a daemon is killed or stopped"),
    Entry("scrape", "/metrics of the daemons, after all that was done"),
    Entry("start_time", "start of commands, import of the client"),
)
"""In this order: memory of idle daemons first, while they are idle."""
_NAMES = [entry.name for entry in BENCHMARKS]


@click.command(
    "bench",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Benchmarks: " + "; ".join(f"{entry.name}: {entry.help}" for entry in BENCHMARKS) + ".",
)
@click.argument(
    "paths", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True), metavar="[PATH]..."
)
@click.option("--only", multiple=True, type=click.Choice(_NAMES), metavar="NAME", help="Run this one (repeatable).")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True, help="Runs of each measurement.")
@click.option("--quick", is_flag=True, help="A small run that shows whether everything works; its figures mean little.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the report there; -: stdout."
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Measure on the disk of this directory.  [default: that of temporary files]",
)
@click.option("--cluster", metavar="HOST:PORT", help="Measure this cluster instead of one that is started for the run.")
def bench(
    paths: tuple[Path, ...],
    only: tuple[str, ...],
    repeat: int,
    quick: bool,
    json_path: Path | None,
    directory: Path | None,
    cluster: str | None,
) -> None:
    """Measure EmberFS beside the limits of this machine; or the same calls in any directories, side by side.

    Without a PATH, figures and limits are measured alternately, medians are shown with the spread of all runs. A
    cluster with three storage daemons is started for the run in a temporary directory, and removed at the end.

    With PATHs, which may be mounts of any file systems: random and sequential reads, a large write, small files, names,
    in a directory that is made in each of them and removed. --repeat, --quick and --json apply.

    \b
    Example:
      emberfs bench
      emberfs bench /mnt/ember /mnt/nfs /tmp --repeat 3 --json table.json
      emberfs bench --only read_large --only write --dir /mnt/ssd --json report.json
    """
    if paths:
        if only or cluster is not None or directory is not None:
            raise click.UsageError("--only, --cluster and --dir are for runs without a PATH")
        with _removed_when_told_to_end():
            _measure_places(paths, repeat, quick, json_path)
        return
    started = time.monotonic()
    with _removed_when_told_to_end(), tempfile.TemporaryDirectory(prefix="emberfs-bench-", dir=directory) as name:
        scratch = Path(name)
        machine = describe(scratch)
        figures: list[Figure] = []
        failed: dict[str, str] = {}
        chosen = [entry for entry in BENCHMARKS if not only or entry.name in only]
        if cluster is not None:
            _run_all(chosen, Context(cluster, {}, scratch, repeat, quick), figures, failed)
        else:
            with cluster_in(scratch) as (address, processes):
                _run_all(chosen, Context(address, processes, scratch, repeat, quick), figures, failed)
    settings = {"repeat": repeat, "quick": quick, "own_cluster": cluster is None, "seconds": time.monotonic() - started}
    report = as_json(figures, machine, settings, failed)
    if json_path is not None and str(json_path) != "-":
        json_path.write_text(report)
    _show(figures, machine, report if str(json_path) == "-" else None)
    if failed:
        raise click.ClickException(f"did not finish: {', '.join(failed)}")


@contextlib.contextmanager
def _removed_when_told_to_end() -> Iterator[None]:
    """SIGTERM ends the run as an error does: what was made is removed, and what was started is stopped."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure_places(paths: tuple[Path, ...], repeat: int, quick: bool, json_path: Path | None) -> None:
    from benchmarks import places

    comparison, report, machine = places.measure(paths, repeat, quick)
    if json_path is not None and str(json_path) != "-":
        json_path.write_text(report)
    if str(json_path) == "-":
        click.echo(report, nl=False)
    else:
        places.show(comparison, machine, sys.stdout.isatty())
    if comparison.failed:
        raise click.ClickException(f"did not finish: {', '.join(comparison.failed)}")


def _run_all(chosen: list[Entry], context: Context, figures: list[Figure], failed: dict[str, str]) -> None:
    for number, entry in enumerate(chosen, 1):
        say(f"[{number}/{len(chosen)}] {entry.name}: {entry.help}")
        try:
            figures += importlib.import_module(f"benchmarks.{entry.name}").run(context)
        except Exception as error:
            # One that fails must not cost the figures of the others.
            traceback.print_exc()
            failed[entry.name] = f"{type(error).__name__}: {error}"


def _show(figures: list[Figure], machine: dict[str, object], report: str | None) -> None:
    if report is not None:
        click.echo(report, nl=False)
        return
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 170)
    console.print(as_table(figures, machine))
    for figure in figures:
        if figure.note:
            console.print(f"{figure.title}: {figure.note}", highlight=False)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A locale that cannot write the table's lines must not end a run of minutes.
        sys.stdout.reconfigure(errors="replace")
    bench(prog_name="emberfs bench")
