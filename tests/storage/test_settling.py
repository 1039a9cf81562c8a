"""A replica asks its tail and its predecessor what became of what it has pending, and may move meanwhile."""

from types import SimpleNamespace
from typing import Any, cast

from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_storage.craq.apportion import Told
from fs_storage.craq.position import position_of
from fs_storage.forward import Forwarder
from fs_storage.settling import Settling
from fs_storage.target import Target
from fs_storage.targets import Targets
from fs_storage.updates import Updates
from tests.support import run

CHUNK = b"chunk"


def _position(version: int, *targets: int) -> Any:
    chain = Chain(1, version, [ChainTarget(target, target, PublicState.SERVING) for target in targets])
    return position_of(chain, 2)


class Asked:
    """A forwarder and a chain whose head leaves it while its tail is asked."""

    def __init__(self) -> None:
        store = SimpleNamespace(digest=lambda chunk, *, pending: 5)
        replica = SimpleNamespace(unsettled=[CHUNK], holds=lambda chunk: False)
        self.target = SimpleNamespace(may_act=True, store=store, replica=replica, position=_position(1, 1, 2, 3))
        self.asked: list[int] = []
        self.done: list[str] = []

    async def committed_versions(self, position: Any, chunks: list[bytes], timeout: float) -> list[Told]:
        self.asked.append(position.tail.node)
        self.target.position = _position(2, 2, 3)
        return [Told(0, 0)]

    async def pending_before(self, position: Any, chunks: list[bytes], timeout: float) -> list[Told]:
        self.asked.append(position.predecessor.node)
        return [Told(0, 0)]

    async def confirm(self, target: Any, told: Any, timeout: float) -> None:
        self.done.append("confirm")

    async def settle(self, target: Any, chunks: list[bytes], timeout: float) -> None:
        self.done.append("settle")


def test_a_middle_that_becomes_the_head_while_it_asks_begins_anew() -> None:
    """It asks whoever was before it, not nobody, and what it hears of a place that it has left decides nothing."""
    asked = Asked()
    targets = SimpleNamespace(all=lambda: [])
    settling = Settling(cast(Targets, targets), cast(Updates, asked), cast(Forwarder, asked), 1.0)
    run(settling._settle(cast(Target, asked.target)))
    assert asked.asked == [3, 1] and asked.done == []
