"""The longest pause of reads and writes when a storage daemon is cut off the network, and comes back.

`python -m benchmarks.cut_off [--repeat N]`, as root: the daemons live in network namespaces of their own, as in a storm
(`tests/storm`), with default settings. Nothing gets to one of them any more, and nothing of it to another or to the
manager: no refused connection tells anybody. The callers are those of `failover`.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks.failover import STOPPED_S_MIN, STORAGE, Bench, Hurt, Pauses, figures_of, shown
from benchmarks.machine import describe
from benchmarks.report import as_table
from fs_client import aio
from tests.storm.cluster import Place, StormCluster
from tests.storm.isolation import Unavailable, enter


async def measure(path: Path, repeat: int) -> list[Pauses]:
    place = Place(path, isolated=True)
    network = place.network
    assert network is not None
    cluster = StormCluster(place, storage=STORAGE, replicas=STORAGE, durability="disk", settings={}, power=False)
    pauses = []
    try:
        await cluster.start()
        bench = Bench(await aio.connect(cluster.address))
        await bench.start()
        for turn in range(repeat):
            for node, member in enumerate(cluster.storage, 1):
                name = member.name
                hurt = Hurt(
                    node,
                    name,
                    lambda name=name: network.isolate(name),
                    lambda name=name: network.join(name),
                    STOPPED_S_MIN,
                )
                pauses.append(await bench.incident(hurt))
                print(f"  round {turn + 1}: {name} cut off: {shown(pauses[-1])}", file=sys.stderr)
        await bench.close()
        await cluster.end()
    finally:
        await cluster.kill()
    return pauses


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cut_off", description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=2, help="rounds over all daemons")
    arguments = parser.parse_args()
    try:
        enter(sys.argv[1:], "benchmarks.cut_off")
    except Unavailable as error:
        print(f"no network is cut: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="emberfs-cut-") as name:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            pauses = runner.run(measure(Path(name), arguments.repeat))
        from rich.console import Console

        Console(width=170).print(as_table(figures_of("cut off", pauses, 13.0), describe(Path(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
