"""Defects that are planted on purpose, each found within so many seeds of hard runs (`plan.hard`)."""

from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from fs_common.records.routing import Chain
from fs_meta.manager.membership import Member, Membership
from fs_meta.manager.standings import Seen, Stand, Standings
from fs_storage.craq import replica as core
from fs_storage.craq import taking
from fs_storage.craq.operation import SENDING, Failure, Operation, Step
from fs_storage.craq.position import Position
from fs_storage.craq.replica import Replica
from tests.sim import stories
from tests.sim.daemon import Defects
from tests.sim.manager import FAILURE_MS, OPENING_MS, Manager
from tests.sim.plan import Plan, hard, plan_of
from tests.sim.script import quiet
from tests.sim.stories import Story
from tests.sim.world import World

# -- the storage side's shell ------------------------------------------------------------------------------------


class BelievesALeaseTooLong(Defects):
    lease_factor = 3.0


class SkipsAChunk(Defects):
    skips_chunks = True


class SaysSyncedAtOnce(Defects):
    says_synced_at_once = True


class IsSyncedForEver(Defects):
    keeps_synced_forever = True


class AnswersBeforeItCommitted(Defects):
    tail_is_ready_at_once = True


class AsksNoPredecessor(Defects):
    asks_no_predecessor = True


class CopiesNoAnswers(Defects):
    copies_answers = False


class KeepsAnswersThatNobodyHas(Defects):
    retracts_answers = False


class ListsBesideWhatItBegan(Defects):
    waits_for_what_was_begun = False


class FillsBeforeItIsReady(Defects):
    fills_before_it_is_ready = True


class ServesBeforeItWasHeard(Defects):
    serves_at_once = True


# -- the core ----------------------------------------------------------------------------------------------------


class LosesAForwardToTheSyncing(Replica):
    def _forward(self, operation: Operation) -> None:
        position = self.position
        super()._forward(operation)
        if operation.step is Step.FORWARD and position is not None and position.fills:
            operation.step = Step.COMMIT
            operation.asked = None


class MendsBesideOneThatIsWhole(Defects):
    waits_for_the_whole = False


class TakesAnswersOfBefore(Replica):
    """Alone it does no harm: an update that was sent to another successor is not given up, and whatever an earlier
    successor has, those that serve now have too."""

    def _is_late(self, operation: Operation, asked: Position | None) -> bool:
        return operation.step not in SENDING


class TakesAnswersOfBeforeShell(Defects):
    takes_answers_of_before = True


class TakesRefusalsOfBefore(TakesAnswersOfBefore):
    """And believes that nobody has the update then."""

    def _redirect(self, operation: Operation) -> None:
        uncertain = operation.uncertain
        super()._redirect(operation)
        operation.uncertain = uncertain


class UsesANumberAgain(Replica):
    def _attempt_failed(self, operation: Operation, failure: Failure) -> None:
        super()._attempt_failed(operation, failure)
        operation.uncertain = False

    def _redirect(self, operation: Operation) -> None:
        super()._redirect(operation)
        operation.uncertain = False


class JudgesNoChainVersion(Replica):
    def _judge(self, operation: Operation) -> None:
        if self.position is not None:
            operation.chain_version = self.position.version
        super()._judge(operation)


class TakesLateCopies(Replica):
    def _judge_as_successor(self, operation: Operation, position: Position) -> None:
        real = taking.as_syncing

        def as_syncing(operation: Operation, state: Any, view: Any, chain_version: int) -> taking.Take:
            return real(operation, state, view, 0)

        vars(core)["as_syncing"] = as_syncing
        try:
            super()._judge_as_successor(operation, position)
        finally:
            vars(core)["as_syncing"] = real


class CommitsALeftoverWithoutTheSyncing(Replica):
    def _settle(self, operation: Operation, state: Any, position: Position) -> None:
        if position.is_tail:
            self._confirm(operation, state)
        else:
            super()._settle(operation, state, position)


# -- the manager -------------------------------------------------------------------------------------------------


class TakesAllForWhole(Manager):
    """A SERVING target is dropped for one that is not whole."""

    def standings(self, now_ms: int) -> Standings:
        return _Whole(now_ms, FAILURE_MS, OPENING_MS)


class _Whole(Standings):
    def see(self, chain: Chain, membership: Membership, now_ms: int) -> Seen:
        seen = super().see(chain, membership, now_ms)
        for target, stand in seen.stands.items():
            if stand.report is not None:
                seen.stands[target] = Stand(stand.report._replace(whole=True), "")
        return seen


class BelievesOldWords(Manager):
    """A dead one is dropped for one that was not heard since."""

    def standings(self, now_ms: int) -> Standings:
        return _Trusting(now_ms, FAILURE_MS, OPENING_MS)


class _Trusting(Standings):
    def _doubt(self, chain: Chain, members: Mapping[int, Member], stands: dict[int, Stand]) -> None:
        pass


class TakesLateHeartbeats(Manager):
    takes_late_heartbeats = True


class AnswersBeforeItPublishes(Manager):
    answers_before_it_publishes = True


class DropsAtOnce(Manager):
    """Whoever was silent for two heartbeats is dead."""

    def standings(self, now_ms: int) -> Standings:
        return _Impatient(now_ms, FAILURE_MS, OPENING_MS)


class _Impatient(Standings):
    def _stand(self, target: int, member: Member | None, node: int, now_ms: int) -> Stand:
        if member is not None and now_ms - member.heard_ms > 2_500:
            return Stand(None, "it is silent")
        return super()._stand(target, member, node, now_ms)


class KeepsVersions(Manager):
    """A chain changes, and its version does not grow."""

    def _look(self, chains: list[Chain]) -> tuple[list[Chain], set[int]]:
        now, looked = super()._look(chains)
        kept = [
            after if after is before else Chain(after.chain, before.version, after.targets)
            for before, after in zip(chains, now, strict=True)
        ]
        return kept, looked


class Planted:
    def __init__(
        self,
        name: str,
        *,
        defects: type[Defects] = Defects,
        replica: type[Replica] | None = None,
        manager: type[Manager] = Manager,
        seeds: int = 60,
    ) -> None:
        self.name = name
        self._defects = defects
        self._replica = replica
        self._manager = manager
        self.seeds = seeds
        """It is found within so many."""

    def world(self, seed: int) -> World:
        random = Random(seed)
        return self.into(World(seed, hard(random, plan_of(random))))

    def into(self, world: World) -> World:
        """The same world with the defect."""
        world.defects = self._defects
        world.replica_class = self._replica
        world.manager_class = self._manager
        return world

    def finds(self, seed: int) -> bool:
        try:
            self.world(seed).run()
        except Exception:
            return True
        return False


class Directed(NamedTuple):
    """A defect that a run hardly ever meets, and the story that it spoils."""

    planted: Planted
    story: Story
    plan: Plan


PLANTED = [
    Planted("a lease believed too long", defects=BelievesALeaseTooLong),
    Planted("a resync that skips a chunk", defects=SkipsAChunk),
    Planted("a promotion without sync", defects=SaysSyncedAtOnce),
    Planted("a tail that answers before it committed", defects=AnswersBeforeItCommitted),
    Planted("a promoted replica that asks nobody", defects=AsksNoPredecessor),
    Planted("answers that are not copied", defects=CopiesNoAnswers),
    Planted("a target serves before it was heard", defects=ServesBeforeItWasHeard),
    Planted("a forward to the syncing successor is lost", replica=LosesAForwardToTheSyncing),
    Planted("a number is used again", replica=UsesANumberAgain),
    Planted("a lease before the change is published", manager=AnswersBeforeItPublishes),
    Planted("dropped before the lease is over", manager=DropsAtOnce),
    Planted("a change without a new version", manager=KeepsVersions),
]
"""Each is found within `seeds`."""

RARE = [
    Planted("answers that nobody else has are kept", defects=KeepsAnswersThatNobodyHas),
    Planted("a list beside what was begun", defects=ListsBesideWhatItBegan),
    Planted("a round before the tail is ready", defects=FillsBeforeItIsReady),
    Planted("an answer of a former successor", replica=TakesAnswersOfBefore, defects=TakesAnswersOfBeforeShell),
    Planted("no chain version is judged", replica=JudgesNoChainVersion),
    Planted("a leftover is committed without the syncing", replica=CommitsALeftoverWithoutTheSyncing),
    Planted("a heartbeat that comes late", manager=TakesLateHeartbeats),
]
"""No test counts on these: what provokes them is rarer than a short run has seeds."""

DIRECTED = [
    Directed(
        Planted("dropped for one that is not whole", manager=TakesAllForWhole),
        stories.only_one_that_is_not_whole_is_left,
        quiet(replicas=2, memory=True),
    ),
    Directed(
        Planted("mended beside one that is whole", defects=MendsBesideOneThatIsWhole),
        stories.a_head_comes_back_whole_and_its_tail_does_not,
        quiet(replicas=2, memory=True),
    ),
    Directed(
        Planted("a word that is older than a death", manager=BelievesOldWords),
        stories.a_death_while_another_has_lost_its_power,
        quiet(replicas=2, memory=True),
    ),
    Directed(
        Planted("a sync that counts for every chain version", defects=IsSyncedForEver),
        stories.a_replica_that_was_filled_up_before,
        quiet(replicas=2),
    ),
    Directed(
        Planted("a late copy goes over what is newer", replica=TakesLateCopies),
        stories.a_push_that_is_late,
        quiet(replicas=2),
    ),
    Directed(
        Planted("a refusal of a former successor", replica=TakesRefusalsOfBefore, defects=TakesAnswersOfBeforeShell),
        stories.a_refusal_of_one_that_is_gone,
        quiet(replicas=3),
    ),
]
"""Each is found by its story, which ends well without it."""
