"""`emberfs demo`: everything at once: a cluster, real data, two epochs of training, every byte compared."""

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import Failure
from fs_client.cli.text import size_words

if TYPE_CHECKING:
    from fs_client.cli.demo_data import SourceFile
    from fs_client.cli.demo_training import EpochResult
    from fs_client.cli.local.launch import LaunchedCluster
    from fs_client.cli.progress import Progress
    from fs_client.loader.dataset import SampleDataset

TREE = "/demo/stdlib"
PACKED = "/demo/stdlib.pack"


@click.command()
@click.option("--keep", is_flag=True, help="Leave the cluster running at the end, and say how to use it.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True, help="Passes over each dataset.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes of the DataLoader.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of samples.")
@click.option("--storage", type=click.IntRange(1, 99), default=3, show_default=True, help="Storage daemons.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Where to keep the cluster; it must not exist, and is kept.  [default: a temporary directory]",
)
def demo(keep: bool, epochs: int, workers: int, seed: int, storage: int, directory: Path | None) -> None:
    """Start a cluster, fill it with samples and train from it.

    The samples are the source files of this Python's standard library, once as a tree of files and once in a packed
    file. A PyTorch DataLoader reads both, shuffled, with several workers; every sample is compared with its source.
    Everything that was started is stopped, and the exit code is 0 only if all of it held.

    \b
    Example:
      emberfs demo
      emberfs demo --epochs 3 --workers 4 --keep
    """
    if importlib.util.find_spec("torch") is None:
        raise Failure("the demo trains with PyTorch, which is not installed: pip install 'emberfs[torch]'")
    if directory is not None and directory.exists():
        raise Failure(f"{directory} exists; name a new directory with --dir, or leave the option out")
    with _cluster(directory, storage, keep) as cluster:
        _run(cluster.address, epochs, workers, seed)
        click.echo("OK")
        if keep:
            _introduce(cluster)


@contextlib.contextmanager
def _cluster(directory: Path | None, storage: int, keep: bool) -> Iterator["LaunchedCluster"]:
    """A running cluster. It is stopped, its temporary directory removed, unless all went well and `keep`."""
    from fs_client.cli.local.configuration import Options
    from fs_client.cli.local.launch import launch

    path = directory or Path(tempfile.mkdtemp(prefix="emberfs-demo-"))
    kept = False
    try:
        click.echo(f"starting a metadata server and {storage} storage daemons in {path}")
        cluster = launch(path, Options(port=0, storage=storage, replicas=min(storage, 3)))
        try:
            yield cluster
            kept = keep
        finally:
            if not kept:
                cluster.stop()
    finally:
        if not kept and directory is None:
            shutil.rmtree(path, ignore_errors=True)


def _run(address: str, epochs: int, workers: int, seed: int) -> None:
    import fs_client
    from fs_client.cli.demo_data import copy_in, source_files, standard_library
    from fs_client.cli.progress import Progress
    from fs_client.cli.remote import run
    from fs_client.loader.file_dataset import FileDataset
    from fs_client.loader.packed_dataset import PackedDataset
    from fs_client.loader.packing import pack

    root = standard_library()
    files = source_files(root)
    total = sum(file.size for file in files)
    click.echo(f"source: {len(files)} files, {size_words(total)}, below {root}")
    with fs_client.connect(address) as fs:
        with Progress("copying the tree", len(files), "files") as progress:
            run(copy_in(address, files, TREE, lambda file: progress.advance()))
        with Progress("packing it into one file", len(files), "files") as progress:
            pack(fs, _counted(((file.name, file.path) for file in files), progress), PACKED)
        with FileDataset(fs, TREE) as tree:
            _train("tree", tree, files, epochs, workers, seed)
        with PackedDataset(fs, PACKED) as packed:
            _train("packed file", packed, files, epochs, workers, seed)


def _counted(sources: Iterator[tuple[str, Path]], progress: "Progress") -> Iterator[tuple[str, Path]]:
    for source in sources:
        yield source
        progress.advance()


def _train(
    title: str, dataset: "SampleDataset", files: list["SourceFile"], epochs: int, workers: int, seed: int
) -> None:
    from fs_client.cli.demo_training import run_epochs

    for number, result in enumerate(run_epochs(title, dataset, files, epochs=epochs, workers=workers, seed=seed)):
        click.echo(_line(title, number, result))


def _line(title: str, epoch: int, result: "EpochResult") -> str:
    samples_per_s = result.samples / result.elapsed_s
    speed = size_words(int(result.sample_bytes / result.elapsed_s))
    return (
        f"{title:<12} epoch {epoch}: {result.samples} samples, {size_words(result.sample_bytes)}, all equal to their "
        f"sources, in {result.elapsed_s:.2f} s: {samples_per_s:,.0f} samples/s, {speed}/s"
    )


def _introduce(cluster: "LaunchedCluster") -> None:
    click.echo(f"The cluster is left running at {cluster.address}, data in {cluster.path}.")
    click.echo(f"  look:    emberfs ls -l --cluster {cluster.address} ember:{TREE}")
    click.echo(f'  Python:  import emberfs; fs = emberfs.connect("{cluster.address}")')
    click.echo(f"  stop:    emberfs down --dir {cluster.path}")
