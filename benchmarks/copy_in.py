"""Copying a tree of small files into the cluster with `emberfs cp -r`: files a second, each synced on three replicas.

The tree is the Python standard library's source files. The limit is `cp -r` to a directory on the same disk, which
syncs nothing and writes each file once.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fs_client
from benchmarks.context import Context
from benchmarks.files import DIRECTORY
from benchmarks.measure import Figure, Limit, Series, alternate
from fs_client.cli.demo_data import SourceFile, source_files, standard_library


def run(context: Context) -> list[Figure]:
    files = source_files(standard_library())
    tree = context.directory / "tree"
    _lay_out(files[:50] if context.quick else files, tree)
    count = sum(len(names) for *_, names in os.walk(tree))
    with fs_client.connect(context.cluster) as fs:
        fs.makedirs(DIRECTORY, exist_ok=True)
        ours, limit = alternate(
            context.repeat,
            lambda: count / _copy_in(context.cluster, tree),
            lambda: count / _copy_locally(tree, context.directory),
        )
        for name in fs.listdir(DIRECTORY):
            if name.startswith("copy-"):
                fs.rmtree(f"{DIRECTORY}/{name}")
    shutil.rmtree(tree)
    note = f"{count} files, with the start of the command"
    return [
        Figure(
            "copy_in",
            "emberfs cp -r of a source tree",
            Series("files/s", ours),
            (Limit("cp -r on the local disk, not synced", Series("files/s", limit)),),
            note=note,
        )
    ]


def _lay_out(files: list[SourceFile], tree: Path) -> None:
    for file in files:
        path = tree / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, path)


def _copy_in(cluster: str, tree: Path) -> float:
    target = f"ember:{DIRECTORY}/copy-{secrets.token_hex(4)}"
    command = [sys.executable, "-m", "fs_client.cli", "cp", "-rq", "--cluster", cluster, str(tree), target]
    return _seconds(command, Path(__file__).parent.parent)


def _copy_locally(tree: Path, directory: Path) -> float:
    target = directory / "copy"
    seconds = _seconds(["cp", "-r", str(tree), str(target)], directory)
    shutil.rmtree(target)
    return seconds


def _seconds(command: list[str], directory: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=directory)
    return time.perf_counter() - start
