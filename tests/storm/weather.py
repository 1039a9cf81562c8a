"""The faults of a storm: what is done to whom, for how long, from one random sequence.

A fault takes members (nobody hurts one that another fault has), does its worst, waits, and puts everything right again:
the process runs, is not stopped, and is reached by all. What it does not wait for is that the cluster is well again.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tests.storm.cluster import Member, remove_data

if TYPE_CHECKING:
    from tests.storm.storm import Storm


class Fault(NamedTuple):
    name: str
    weight: float
    run: Callable[["Weather"], Awaitable[None]]
    alone: bool = False
    """No other fault meanwhile, and everything is well before and after."""


class Weather:
    def __init__(self, storm: "Storm", random: Random, lease_s: float, failure_s: float) -> None:
        self.storm = storm
        self.cluster = storm.cluster
        self.random = random
        self.lease_s = lease_s
        self.failure_s = failure_s
        self.kills = 0
        self.counts: dict[str, int] = {}
        self.free: set[Member] = set(self.cluster.members)

    # --- choosing ------------------------------------------------------------------------------------------------

    def choose(self, faults: list[Fault]) -> Fault:
        return self.random.choices(faults, [fault.weight for fault in faults])[0]

    def storage(self, most: int = 1) -> list[Member]:
        """Up to so many storage daemons that nobody has, one at least if there is one; they are ours from now on."""
        there = [member for member in self.cluster.storage if member in self.free]
        taken = self.random.sample(there, min(len(there), self.random.randint(1, most)))
        self.free -= set(taken)
        return taken

    def meta(self) -> list[Member]:
        taken = [self.cluster.meta] if self.cluster.meta in self.free else []
        self.free -= set(taken)
        return taken

    def some(self) -> int:
        """How many at once: mostly one, all of them now and then."""
        return self.random.choice([1, 1, 1, 2, 2, 3, len(self.cluster.storage)])

    def short_or_long_s(self) -> float:
        """Within the lease, so that nobody need notice; or longer than the failure time, so that all do."""
        if self.random.random() < 0.5:
            return self.random.uniform(0.05, self.lease_s)
        return self.failure_s * self.random.uniform(1.1, 2.0)

    def delay_s(self) -> float:
        return self.random.choice([0.0, 0.0, 0.2, 1.0, self.failure_s * 1.3])

    # --- doing ---------------------------------------------------------------------------------------------------

    def note(self, what: str, members: list[Member], text: str = "") -> None:
        self.counts[what] = self.counts.get(what, 0) + len(members)
        self.storm.note(f"{what} {' '.join(member.name for member in members)} {text}".rstrip())

    async def start(self, members: list[Member]) -> None:
        """Each after a time of its own, in any order."""

        async def one(member: Member, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            self.storm.note(f"start {member.name}")
            await member.start()
            self.free.add(member)

        await asyncio.gather(*(one(member, self.delay_s()) for member in members))

    async def kill(self, members: list[Member]) -> None:
        if members:
            self.kills += len(members)
            self.note("kill", members)
            await asyncio.gather(*(member.kill() for member in members))
            await self.start(members)

    async def pause(self, members: list[Member]) -> None:
        """SIGSTOP. What the others sent meanwhile is in its sockets when it goes on."""
        if not members:
            return
        seconds = self.short_or_long_s()
        self.note("stop", members, f"for {seconds:.2f} s")
        for member in members:
            member.stop()
        await asyncio.sleep(seconds)
        for member in members:
            member.go_on()
            self.storm.note(f"continue {member.name}")
            self.free.add(member)

    async def terminate(self, members: list[Member]) -> None:
        if members:
            self.note("end", members)
            await asyncio.gather(*(member.terminate() for member in members))
            await self.start(members)

    async def cut_power(self, members: list[Member]) -> None:
        """Nobody hears the end of their processes: their network goes with them."""
        if not members:
            return
        self.kills += len(members)
        self.note("power", members)
        silent = self.random.random() < 0.5
        pairs = [pair for member in members for pair in self.around(member, None)] if silent else []
        self.cut(pairs)
        await asyncio.gather(*(member.kill() for member in members))
        for member in members:
            assert member.disk is not None
            member.disk.cut()
        await asyncio.sleep(self.delay_s())
        self.mend(pairs)
        await self.start(members)

    def around(self, member: Member, others: list[str] | None) -> list[tuple[str, str]]:
        """Both ways between it and others (None: everybody)."""
        network = self.storm.place.network
        assert network is not None
        names = [name for name in (network.addresses if others is None else others) if name != member.name]
        return [pair for name in names for pair in ((member.name, name), (name, member.name))]

    def cut(self, pairs: list[tuple[str, str]]) -> None:
        for pair in pairs:
            self.storm.place.network.cut(*pair)  # type: ignore[union-attr]

    def mend(self, pairs: list[tuple[str, str]]) -> None:
        for pair in pairs:
            self.storm.place.network.mend(*pair)  # type: ignore[union-attr]

    async def cut_off(self, members: list[Member]) -> None:
        if not members:
            return
        (member,) = members
        kind = self.random.choice(["manager", "manager", "clients", "peer", "peers", "everybody"])
        peers = [other.name for other in self.cluster.storage if other is not member]
        others = {
            "manager": [self.cluster.meta.name],
            "clients": [client.name for client in self.storm.clients],
            "peer": [self.random.choice(peers)],
            "peers": peers,
            "everybody": None,
        }[kind]
        pairs = self.around(member, others)
        way = self.random.choice(["both ways", "both ways", "what it says", "what it is told"])
        if way != "both ways":
            pairs = [pair for pair in pairs if (pair[0] == member.name) == (way == "what it says")]
        seconds = self.short_or_long_s()
        self.note("cut", members, f"from {kind if kind != 'peer' else (others or [''])[0]}, {way}, for {seconds:.2f} s")
        self.cut(pairs)
        await asyncio.sleep(seconds)
        self.mend(pairs)
        self.storm.note(f"mend {member.name}")
        self.free.add(member)

    async def old_copy(self, members: list[Member]) -> None:
        """A directory is put back as it was: of a daemon that was killed then, and is killed now."""
        if not members:
            return
        (member,) = members
        self.kills += 2
        self.note("old copy", members)
        await member.kill()
        copy = member.directory / "copy"
        shutil.copytree(member.data, copy)
        await member.start()
        self.storm.note(f"start {member.name}")
        await asyncio.sleep(self.random.uniform(1.0, 2.0) * self.failure_s)
        await member.kill()
        remove_data(member)
        copy.rename(member.data)
        await asyncio.to_thread(subprocess.run, ["sync", "-f", str(member.data)], check=True)
        await self.start(members)

    async def replace(self, members: list[Member]) -> None:
        if not members:
            return
        (member,) = members
        self.kills += 1
        self.note("replace", members)
        await member.kill()
        remove_data(member)
        await self.storm.replace(member)
        self.free.add(member)

    async def kill_client(self) -> None:
        self.counts["client"] = self.counts.get("client", 0) + 1
        await self.storm.replace_client()


def faults(*, isolated: bool, power: int, replace: bool) -> list[Fault]:
    """`power`: how many may lose what they did not sync, at once."""
    found = [
        Fault("kill", 10, lambda w: w.kill(w.storage(w.some()))),
        Fault("stop", 4, lambda w: w.pause(w.storage(w.some()))),
        Fault("end", 1.5, lambda w: w.terminate(w.storage(w.some()))),
        Fault("kill meta", 1, lambda w: w.kill(w.meta())),
        Fault("stop meta", 0.7, lambda w: w.pause(w.meta())),
        Fault("end meta", 0.3, lambda w: w.terminate(w.meta())),
        Fault("kill all", 0.5, lambda w: w.kill(w.meta() + w.storage(100))),
        Fault("kill client", 0.7, lambda w: w.kill_client()),
    ]
    if power:
        found.append(Fault("old copy", 0.7, lambda w: w.old_copy(w.storage()), alone=True))
    if isolated:
        found.append(Fault("cut", 4, lambda w: w.cut_off(w.storage())))
    if isolated and power:
        found.append(Fault("power", 2, lambda w: w.cut_power(w.storage(power)), alone=power == 1))
    if replace:
        found.append(Fault("replace", 1, lambda w: w.replace(w.storage()), alone=True))
    return found
