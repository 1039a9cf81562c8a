"""Rounds over targets: no target waits for another, and nothing that changes is missed."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from fs_storage.rounds import Rounds
from fs_storage.target import Target
from fs_storage.targets import Targets
from tests.storage.chain import Gate, eventually
from tests.support import run


class Looks(Rounds):
    def __init__(self, count: int) -> None:
        self.targets = [SimpleNamespace(id=number) for number in range(count)]
        super().__init__("looks", cast(Targets, SimpleNamespace(all=lambda: self.targets)), 1000.0)
        self.gates = [Gate() for _ in range(count)]
        self.ended = [0] * count
        self.errors: dict[int, Exception] = {}

    async def _look(self, target: Target) -> None:
        await self.gates[target.id].pass_through()
        for _ in range(target.id):
            await asyncio.sleep(0)
        self.ended[target.id] += 1
        if error := self.errors.pop(target.id, None):
            raise error


def test_a_slow_look_delays_no_other_target_and_is_followed_by_another() -> None:
    async def scenario() -> None:
        rounds = Looks(2)
        rounds.gates[0].hold()
        rounds.start()
        await rounds.gates[0].reached.wait()
        await eventually(lambda: rounds.ended == [0, 1])
        rounds.kick()
        await eventually(lambda: rounds.ended == [0, 2])
        rounds.gates[0].release()
        await eventually(lambda: rounds.ended[0] == 2)  # the second is of the kick that came under the first
        await rounds.close()

    run(scenario())


def test_looks_that_overlap_do_not_ask_for_each_other_again() -> None:
    """Each takes some turns of the loop, so one is always under way when another ends."""

    async def scenario() -> None:
        rounds = Looks(3)
        for gate in rounds.gates:
            gate.hold()
        rounds.start()
        for gate in rounds.gates:
            await gate.reached.wait()
        rounds.kick()
        await eventually(lambda: not rounds._kicked.is_set())
        for gate in rounds.gates:
            gate.release()
            for _ in range(5):
                await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert rounds.ended == [2, 2, 2]
        await rounds.close()

    run(scenario())


def test_a_look_that_fails_is_logged_and_looks_go_on(caplog: Any) -> None:
    async def scenario() -> None:
        rounds = Looks(2)
        rounds.errors[0] = ValueError("a defect")
        rounds.start()
        await eventually(lambda: "a defect" in caplog.text and rounds.ended[1] >= 1)
        caplog.clear()
        await eventually(lambda: rounds.kick() is None and rounds.ended[0] >= 2)
        await rounds.close()

    run(scenario())


def test_the_end_waits_for_what_is_looked_at() -> None:
    async def scenario() -> None:
        before = asyncio.all_tasks()
        rounds = Looks(1)
        rounds.gates[0].hold()
        rounds.start()
        await rounds.gates[0].reached.wait()
        await rounds.close()
        assert rounds.ended == [0] and asyncio.all_tasks() == before

    run(scenario())
