"""Stories that a planted defect turns out badly, and nothing else does (`defects.DIRECTED`)."""

from collections.abc import Callable

from fs_common.records.storage import UpdateKind
from tests.sim.network import Letter
from tests.sim.script import Script, held
from tests.sim.updates import Message


def only_one_that_is_not_whole_is_left(script: Script) -> None:
    """The tail loses its power, and with it what was acknowledged; the head dies in the same moment."""
    script.stored(script.write())
    script.cut_power(2)
    script.kill(1)
    script.start(2)
    script.for_ms(20_000.0)
    script.start(1)
    script.until(lambda: script.serves(1), "whoever has everything serves")
    script.end()


def a_head_comes_back_whole_and_its_tail_does_not(script: Script) -> None:
    """The head had not written that the update is committed; the tail has lost it with its disk's cache. Both are back
    before their chain has changed, and the head, whole as it is, is not heard again for a moment."""
    script.stored(script.write())
    script.kill(1)
    script.lose(2)
    of_head, of_tail = (held(name, "manager", "heartbeat", answers=False) for name in ("n1", "n2"))
    script.hold(of_tail)
    script.start(1)
    script.start(2)
    script.until(lambda: script.pending(1) == 1 and script.has_lease(1), "the head is heard")
    script.hold(lambda letter: of_head(letter) or of_tail(letter))
    script.network.let_go(of_tail)
    script.until(lambda: script.has_lease(2), "the tail is heard")
    script.for_ms(3_000.0)
    script.end()


def a_death_while_another_has_lost_its_power(script: Script) -> None:
    """Nobody knows yet that the tail has lost its power when the head dies: what it said before is no word for now."""
    script.stored(script.write())
    script.cut_power(2)
    script.kill(1)
    script.for_ms(5_000.0)
    script.start(2)
    script.for_ms(20_000.0)
    script.start(1)
    script.until(lambda: script.serves(1), "whoever has everything serves")
    script.end()


def a_replica_that_was_filled_up_before(script: Script) -> None:
    """It was filled up once, serves, is cut off the manager for a while, and misses something."""
    script.kill(2)
    script.until(lambda: script.chain() == "1:S 2:O", "the chain goes on")
    script.stored(script.write())
    script.start(2)
    script.until(lambda: script.chain() == "1:S 2:S" and script.serves(2), "it is filled up")
    script.network.cut("n2", "manager", 1e9)
    script.network.cut("manager", "n2", 1e9)
    script.until(lambda: script.chain() == "1:S 2:O", "the chain goes on without it")
    script.stored(script.write())
    lists = held("n1", "n2", "list_held", answers=False)
    script.hold(lists)
    script.network.heal_links()
    script.until(lambda: any(lists(letter) for letter, _ in script.network.kept), "it is to be filled up again")
    script.for_ms(3_000.0)
    script.end()


def a_push_that_is_late(script: Script) -> None:
    """A whole chunk is sent to the syncing replica twice, as the first one does not arrive; then it changes, and then
    the first one arrives."""
    script.kill(2)
    script.until(lambda: script.chain() == "1:S 2:O", "the chain goes on")
    script.stored(script.write())

    def first_push(letter: Letter) -> bool:
        return _pushes(letter) and not any(_pushes(other) for other, _ in script.network.kept)

    finish = held("n1", "n2", "finish_sync", answers=False)
    script.hold(lambda letter: first_push(letter) or finish(letter))
    script.start(2)
    script.until(lambda: script.committed(2) == 1, "it is sent again")
    script.stored(script.write())
    script.until(lambda: script.committed(2) == 2, "the syncing replica has what is new")
    script.network.let_go(_pushes)
    script.for_ms(1_000.0)
    script.end()


def a_refusal_of_one_that_is_gone(script: Script) -> None:
    """The middle has no room, and says so; the word takes long. The chain goes on without it: the head sends the update
    to the tail, which has it. Then the word comes."""
    script.world.disks[2].store.full = True  # type: ignore[union-attr]
    refusal = held("n2", "n1", "update", answers=True)
    answer = held("n3", "n1", "update", answers=True)
    script.hold(lambda letter: refusal(letter) or (answer(letter) and script.committed(3) == 1))
    write = script.write()
    script.until(lambda: any(refusal(letter) for letter, _ in script.network.kept), "the middle refuses")
    script.network.cut("n2", "n1", 1e9)  # that its connection is closed is not heard either
    script.stop(2)
    script.until(lambda: script.committed(3) == 1, "the tail has it")
    script.network.heal_links()
    script.network.let_go(refusal)
    script.for_ms(100.0)
    script.network.let_go()
    script.stored(write)
    script.end()


def _pushes(letter: Letter) -> bool:
    if letter[:4] != ("n1", "n2", "update", False):
        return False
    message: Message = letter.arguments[2]
    return message.version == 1 and message.kind is UpdateKind.REPLACE


Story = Callable[[Script], None]
