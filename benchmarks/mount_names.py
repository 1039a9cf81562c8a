"""Looking at many names through a mount that knows nothing yet: stat, `ls -l`, find, du.

The mount is made anew before each run. The limits are the same on the local disk; for find and du over the Python
standard library's tree with cold caches (dropped before each run, which only root may; otherwise they are warm, and
the report says so).
"""

import secrets
import shutil
import sysconfig
from collections.abc import Callable

import fs_client
from benchmarks.context import Context
from benchmarks.file_calls import seconds, stat_samples, touch_samples
from benchmarks.files import DIRECTORY
from benchmarks.measure import Figure, Goal, Limit, Series, alternate
from benchmarks.mounted import Mount, drop_local_caches, mounted


def run(context: Context) -> list[Figure]:
    few, many = context.count(10_000), context.count(100_000)
    with fs_client.connect(context.cluster) as fs, mounted(context, "names") as mount:
        name = f"{DIRECTORY}/mount-names-{secrets.token_hex(4)}"
        fs.makedirs(name)
        for directory, count in (("few", few), ("many", many)):
            fs.mkdir(f"{name}/{directory}")
            fs.create_many(f"{name}/{directory}", [f"sample-{i:06}" for i in range(count)])
        top = mount.path / name.lstrip("/")
        shutil.copytree(sysconfig.get_paths()["stdlib"], top / "stdlib", symlinks=True, ignore=_LARGE)
        local = context.directory / "local-names"
        shutil.copytree(sysconfig.get_paths()["stdlib"], local / "stdlib", symlinks=True, ignore=_LARGE)
        touch_samples(local / "few", few)
        dropped = drop_local_caches()
        stats, local_stats, listing, find, local_find, du, local_du = alternate(
            context.repeat,
            _cold(mount, lambda: stat_samples(top / "few", few)),
            _local(lambda: stat_samples(local / "few", few)),
            _cold(mount, lambda: seconds(["ls", "-l", str(top / "many")])),
            _cold(mount, lambda: seconds(["find", str(top / "stdlib"), "-size", "+1k"])),
            _local(lambda: seconds(["find", str(local / "stdlib"), "-size", "+1k"])),
            _cold(mount, lambda: seconds(["du", "-s", str(top / "stdlib")])),
            _local(lambda: seconds(["du", "-s", str(local / "stdlib")])),
        )
        fs.rmtree(name)
        shutil.rmtree(local)
    cold = "local disk, cold" if dropped else "local disk, warm (only root may drop caches)"
    return [
        Figure(
            "mount_names.stat",
            f"stat of {few:,} files through a cold mount",
            Series("1/s", stats),
            (Limit(cold, Series("1/s", local_stats)),),
            Goal("value", ">=", 10_000),
        ),
        Figure(
            "mount_names.list",
            f"ls -l of {many:,} files through a cold mount",
            Series("s", listing),
            goal=Goal("value", "<=", 3.0),
        ),
        Figure(
            "mount_names.find",
            "find -size over the standard library, cold",
            Series("s", find),
            (Limit(cold, Series("s", local_find)),),
            Goal("ratio", "<=", 5.0),
        ),
        Figure(
            "mount_names.du",
            "du -s over the standard library, cold",
            Series("s", du),
            (Limit(cold, Series("s", local_du)),),
            Goal("ratio", "<=", 5.0),
        ),
    ]


_LARGE = shutil.ignore_patterns("site-packages", "__pycache__", "config-*")


def _cold(mount: Mount, measure: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        mount.again()
        return measure()

    return run


def _local(measure: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        drop_local_caches()
        return measure()

    return run
