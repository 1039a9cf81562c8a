"""The table of promises: states, what is not promised, news, leases, bounds; and that nobody believes what is over."""

import itertools
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fs_meta import promises, schema
from fs_meta.promises import (
    FORGET_S,
    LEASE_S,
    PAUSE_S,
    Follower,
    Promises,
    attributes_of,
    names_of,
    removed_by,
    split,
    subjects_of,
)

A, B, NOBODY = b"a" * 16, b"b" * 16, b""
F, G, D = attributes_of(7), attributes_of(8), names_of(7)
LATER = PAUSE_S
"""A pause is over, a lease is not."""


class Table:
    """Promises, with a clock that stands still until a test moves it."""

    def __init__(self, held_max: int = 1000, held_by_all: int = 100_000) -> None:
        numbers = itertools.count(100)
        self.promises = Promises(lambda: next(numbers), held_max=held_max, held_by_all=held_by_all)
        self.now = 50.0

    def call(self, client: bytes = A, heard: int = 0, generation: int | None = None) -> Follower:
        """A call of the follower's own generation, unless it says another."""
        known = self.promises.follower(client)
        if generation is None:
            generation = 0 if known is None else known.generation
        return self.promises.call(client, generation, heard, self.now)

    def promise(self, follower: Follower, *subjects: int, stamp: int | None = None) -> bool:
        return self.promises.promise(follower, subjects, self.promises.stamp() if stamp is None else stamp, self.now)

    def change(self, *subjects: int, by: bytes = B) -> dict[Follower, int]:
        return dict(self.promises.change(subjects, by, self.now))

    def news(self, follower: Follower) -> tuple[int, list[int]]:
        return self.promises.news(follower)


def test_subjects_are_what_the_keys_of_the_schema_belong_to() -> None:
    writes = [
        schema.inode_key(7),
        schema.entry_key(7, b"name"),
        schema.xattr_key(8, b"user.a"),
        schema.session_key(9, b"s" * 16),
        schema.locks_key(9),
        schema.answer_key(b"r" * 16),
        schema.garbage_key(1, 9),
        schema.NEXT_INODE_KEY,
        schema.FOLLOWED_KEY,
        b"\x02manager",
    ]
    assert subjects_of(writes) == {F, D, G}
    assert split([F, D, G]) == ([7, 8], [7])


# The table of states


def test_free_is_promised_and_then_held() -> None:
    t = Table()
    a = t.call()
    assert t.promise(a, F, D)
    assert t.promises.held == 2 and t.news(a) == (0, [])
    assert t.promise(a, F) and t.promises.held == 2


def test_what_is_free_is_changed_without_anybody_waiting() -> None:
    t = Table()
    a = t.call()
    assert t.change(F) == {} and t.news(a) == (0, [])


def test_held_is_told_with_a_change_by_others_who_wait() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    assert t.change(F) == {a: 1}
    assert t.news(a) == (1, [F])
    assert t.change(D, by=NOBODY) == {a: 2}
    assert t.news(a) == (2, [F, D])


def test_told_is_not_promised_and_further_changes_wait_for_the_same_news() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    t.change(F)
    t.now += LATER
    assert not t.promise(a, F) and not t.promise(a, D, F)
    assert t.change(F) == {a: 1} and t.news(a) == (1, [F])


def test_news_that_are_taken_make_a_subject_free() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    t.change(F)
    assert t.call(heard=1) is a and a.heard == 1
    assert t.promises.held == 1 and t.change(F) == {}
    t.now += LATER
    assert t.promise(a, F) and t.change(F) == {a: 2}


def test_a_promise_is_of_all_or_of_none() -> None:
    t = Table()
    a = t.call()
    stamp = t.promises.stamp()
    t.change(G)
    assert not t.promise(a, F, G, stamp=stamp) and t.promises.held == 0


def test_several_followers_are_told_each_with_numbers_of_its_own() -> None:
    t = Table()
    a, b = t.call(A), t.call(B)
    t.promise(a, F)
    t.promise(b, D)
    t.promise(b, F)
    t.change(D, by=A)
    assert t.change(F, by=NOBODY) == {a: 1, b: 2}
    t.call(B, heard=2)
    assert t.promises.untold(NOBODY) == {a: 1} and t.promises.untold(A) == {}


# Own changes and those of others


def test_own_changes_are_not_told_and_end_no_promise() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F)
    assert t.change(F, by=A) == {} and t.news(a) == (0, [])
    assert t.change(F, by=B) == {a: 1}


def test_an_answer_from_before_a_change_by_others_is_not_promised() -> None:
    t = Table()
    a = t.call()
    stamp = t.promises.stamp()
    t.change(F)
    assert not t.promise(a, F, stamp=stamp)
    assert t.promise(a, F)


def test_an_answer_is_promised_though_the_follower_has_changed_the_subject_since() -> None:
    t = Table()
    a = t.call()
    stamp = t.promises.stamp()
    t.change(F, by=A)
    assert t.promise(a, F, stamp=stamp)


@pytest.mark.parametrize("changers", [[A, B, A], [B, A, A], [NOBODY, A]])
def test_a_change_by_others_before_an_own_one_counts(changers: list[bytes]) -> None:
    t = Table()
    a = t.call()
    stamp = t.promises.stamp()
    for by in changers:
        t.change(F, by=by)
    assert not t.promise(a, F, stamp=stamp)
    assert t.promise(a, F)


def test_a_change_by_others_before_the_answer_does_not_count() -> None:
    t = Table()
    a = t.call()
    t.change(F)
    stamp = t.promises.stamp()
    t.change(F, by=A)
    assert t.promise(a, F, stamp=stamp)


def test_when_changes_are_forgotten_everything_counts_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "CHANGES_MAX", 2)
    t = Table()
    a = t.call()
    before = t.promises.stamp()
    t.change(F)
    t.change(G, D)  # the third: all are forgotten
    assert not any(t.promise(a, subject, stamp=before) for subject in (F, G, D))
    t.change(F, by=A)
    assert not t.promise(a, F, stamp=before)
    assert t.promise(a, F, G, D)


# Pauses


def test_a_subject_that_was_told_is_not_promised_to_anybody_for_a_while() -> None:
    t = Table()
    a, b = t.call(A), t.call(B)
    t.promise(a, F)
    t.change(F, by=NOBODY)
    t.call(A, heard=1)
    t.now += PAUSE_S - 0.1
    assert not t.promise(a, F) and not t.promise(b, F)
    t.now += 0.2
    assert t.promise(a, F) and t.promise(b, F)


def test_each_change_begins_the_pause_anew() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, G)
    t.change(F)
    t.change(G)
    t.now += PAUSE_S - 0.1
    t.change(F)
    t.call(heard=2)
    t.now += 0.2
    assert t.promise(a, G) and not t.promise(a, F)


def test_what_nobody_was_told_of_has_no_pause() -> None:
    t = Table()
    a = t.call()
    t.change(F)
    assert t.promise(a, F)


# Leases and generations


def test_a_follower_whose_lease_is_over_is_dropped_and_nobody_waits() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    t.now += LEASE_S
    assert t.change(F) == {}
    assert t.promises.follower(A) is None and t.promises.held == 0 and len(t.promises) == 0
    assert t.call(generation=a.generation).generation != a.generation


def test_a_call_begins_the_lease_anew() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F)
    t.now += LEASE_S - 0.1
    t.call()
    assert t.promises.lease_ends() == t.now + LEASE_S
    t.now += LEASE_S - 0.1
    assert t.change(F) == {a: 1}


def test_a_lease_that_no_change_met_goes_on_with_the_next_call() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F)
    t.now += 2 * LEASE_S
    assert t.call() is a and t.change(F) == {a: 1}


def test_a_follower_that_was_dropped_is_waited_for_no_longer_and_promised_nothing() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    number = t.change(F)[a]
    t.promises.drop(a)
    assert a.heard >= number and not t.promise(a, G)
    b = t.call()
    assert b is not a and not t.promise(a, G) and t.change(D) == {}


def test_a_call_of_another_generation_takes_no_news_and_ends_no_promise() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    t.change(F)
    for generation in (0, a.generation - 1):
        assert t.call(heard=1, generation=generation) is a
        assert t.news(a) == (1, [F]) and t.promises.held == 2
    assert t.change(D) == {a: 2}


def test_those_that_are_gone_for_long_are_forgotten() -> None:
    t = Table()
    a, b = t.call(A), t.call(B)
    t.promise(a, F, D)
    t.promise(b, F)
    t.now += LEASE_S + FORGET_S - 0.1
    t.call(B)
    t.promises.forget(t.now)
    assert len(t.promises) == 2
    t.now += 0.2
    t.promises.forget(t.now)
    assert t.promises.follower(A) is None and t.promises.held == 1
    assert t.change(F, by=NOBODY) == {b: 1}


# News


def test_news_that_were_not_taken_are_told_again() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    t.change(F)
    assert t.news(t.call()) == (1, [F])
    t.change(D)
    assert t.news(t.call()) == (2, [F, D])
    assert t.news(t.call(heard=1)) == (2, [D])
    assert t.news(t.call(heard=2)) == (2, [])


def test_a_late_call_takes_nothing_back() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F, D)
    t.change(F)
    t.call(heard=1)
    t.change(D)
    assert t.news(t.call(heard=0)) == (2, [D]) and a.heard == 1


def test_nothing_is_taken_that_was_not_told() -> None:
    t = Table()
    a = t.call()
    t.promise(a, F)
    t.call(heard=9)
    assert t.change(F) == {a: 1} and a.heard == 0


def test_news_come_in_parts_that_fit_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "NEWS_MAX", 2)
    t = Table()
    a = t.call()
    subjects = [attributes_of(inode) for inode in range(5)]
    t.promise(a, *subjects)
    for subject in subjects:
        t.change(subject)
    parts = []
    while (part := t.news(a))[1]:
        parts.append(part)
        t.call(heard=part[0])
    assert parts == [(2, subjects[:2]), (4, subjects[2:4]), (5, subjects[4:])]


# Bounds


def test_the_oldest_promises_make_room() -> None:
    t = Table(held_max=16)
    a = t.call()
    subjects = [attributes_of(inode) for inode in range(17)]
    for subject in subjects[:16]:
        t.promise(a, subject)
    assert t.news(a) == (0, [])
    assert t.promise(a, subjects[16]) and t.news(a) == (1, subjects[:1])
    assert t.change(subjects[0]) == {a: 1} and t.change(subjects[1]) == {a: 2}


def test_many_followers_share_what_there_is() -> None:
    t = Table(held_by_all=40)
    a = t.call()
    subjects = [attributes_of(inode) for inode in range(30)]
    assert t.promise(a, *subjects) and t.news(a) == (0, [])
    b = t.call(B)
    assert t.promise(b, *subjects[:20]) and t.news(b) == (0, [])
    assert t.promise(a, attributes_of(99)) and t.news(a) == (1, subjects[:1]), "31 of 20: room for the next"


def test_room_is_made_once_whether_or_not_its_news_are_taken() -> None:
    t = Table(held_max=32)
    a = t.call()
    subjects = [attributes_of(inode) for inode in range(34)]
    for subject in subjects:
        t.promise(a, subject)
    assert t.news(a) == (2, subjects[:2])
    t.promise(a, *[attributes_of(inode) for inode in (34, 35, 36)])
    assert t.news(a) == (4, subjects[:4])


# Nobody believes what is over


@dataclass
class Read:
    """A call whose answer says something of subjects; a change is one, too."""

    client: bytes
    subjects: list[int]
    born: int
    """When it was sent, in news that its client had taken."""
    follower: Follower | None = None
    stamp: int = 0
    values: list[int] = field(default_factory=list)
    promised: bool = False
    is_change: bool = False


@dataclass
class FollowCall:
    client: bytes
    generation: int
    heard: int
    sent: float
    follower: Follower | None = None
    number: int = 0
    news: list[int] = field(default_factory=list)


@dataclass
class Change:
    read: Read
    waits: dict[Follower, int] | None = None
    """None: it is in the store, and the table does not know yet."""


class Believer:
    """A client that follows, by the rules of the records."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.generation = 0
        self.heard = 0
        self.lease_ends = 0.0
        self.call: FollowCall | None = None
        """The one whose answer it awaits; answers to those that it has given up are nothing to it."""
        self.beliefs: dict[int, int] = {}
        """Subject to value."""
        self.time = 0
        """Counts what makes answers to earlier calls worthless."""
        self.over: dict[int, int] = {}
        """Subject to the last such time; `forgotten` for all."""
        self.forgotten = 0
        self.due: dict[int, int] = {}
        """Subject to the oldest value that it may believe."""

    def take_news(self, call: FollowCall, generation: int) -> None:
        self.call = None
        self.lease_ends = max(self.lease_ends, call.sent + LEASE_S)
        self.time += 1
        if generation != self.generation:
            self.generation = generation
            self.beliefs.clear()
            self.forgotten = self.time
        self.heard = call.number
        for subject in call.news:
            self.beliefs.pop(subject, None)
            self.over[subject] = self.time

    def take_answer(self, read: Read) -> None:
        for subject, value in zip(read.subjects, read.values, strict=True):
            if read.promised and read.born >= max(self.forgotten, self.over.get(subject, 0)):
                self.beliefs[subject] = max(value, self.beliefs.get(subject, 0))
            elif subject in self.beliefs:
                self.beliefs[subject] = max(value, self.beliefs[subject])
        if read.is_change:
            self.time += 1
            for subject, value in zip(read.subjects, read.values, strict=True):
                self.over[subject] = self.time
                self.due[subject] = max(self.due.get(subject, 0), value)


CLIENTS = [b"a" * 16, b"b" * 16, b"c" * 16]
SUBJECTS = [F, G, D]
picks = st.integers(0, 2**16)
clients = st.sampled_from(CLIENTS)
changers = st.sampled_from([*CLIENTS, NOBODY])
TROUBLES: list[str | float] = [
    "lose a request",
    "lose an answer",
    "repeat",
    "restart",
    LEASE_S,
    LEASE_S / 2,
    PAUSE_S,
    0.1,
]
STEPS = ["arrive", "work", "receive", "follow", "read", "change", "come to believe", "take all news", "trouble"]
WEIGHTS = [20, 25, 20, 10, 10, 6, 3, 3, 3]
subjects = st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=2, unique=True)


class Beliefs(RuleBasedStateMachine):
    """Followers read, change and follow; each message is lost, late or overtaken as it comes. A follower that was
    promised a subject, has taken no news of it and has its lease believes nothing older than the last change that
    somebody else was told to be done, or that it was told itself."""

    @initialize(changes_max=st.sampled_from([1, 1000]))
    def begin(self, changes_max: int) -> None:
        promises.CHANGES_MAX = changes_max
        self.generations = itertools.count(100)
        self.now = 50.0
        self.values = dict.fromkeys(SUBJECTS, 0)
        self.believers = {name: Believer(name) for name in CLIENTS}
        self.quiet_until = 0.0
        self.asked: list[Read | FollowCall] = []
        """On their way to the service, as are:"""
        self.answers: list[Read | FollowCall] = []
        self.start()

    def start(self) -> None:
        self.promises = Promises(lambda: next(self.generations), held_max=2)
        self.at_work: list[Read | FollowCall | Change] = []
        """At the service: reads that have seen values, calls that are held, changes."""

    @rule(kind=st.sampled_from(["follow", "read", "read", "change"]), client=clients, subjects=subjects)
    def ask(self, kind: str, client: bytes, subjects: list[int]) -> None:
        if kind == "follow":
            self.follow(client)
        elif kind == "read":
            self.read(client, subjects)
        else:
            self.change(client, subjects)

    def follow(self, client: bytes) -> None:
        """Its call before, if it is still out, is given up."""
        believer = self.believers[client]
        believer.call = FollowCall(client, believer.generation, believer.heard, self.now)
        self.asked.append(believer.call)

    def read(self, client: bytes, subjects: list[int]) -> None:
        self.asked.append(Read(client, subjects, self.believers[client].time))

    def change(self, client: bytes, subjects: list[int]) -> None:
        born = self.believers[client].time if client else 0
        self.asked.append(Read(client, subjects, born, is_change=True))

    @rule(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
    def live(self, seed: int, steps: int) -> None:
        """Much happens. (A rule for each step would find less in the same time.)"""
        random = Random(seed)
        for _ in range(steps):
            step = random.choices(STEPS, WEIGHTS)[0]
            client, subjects, pick = (
                random.choice(CLIENTS),
                random.sample(SUBJECTS, random.choice([1, 1, 2])),
                random.random(),
            )
            match step:
                case "follow" | "read" | "change":
                    self.ask(step, client, subjects)
                case "come to believe":
                    self.come_to_believe(client, subjects)
                case "take all news":
                    self.take_all_news(client)
                case "trouble":
                    self.trouble(random.choice(TROUBLES), int(pick * 2**16))
                case _:
                    stage = {"arrive": self.arrive, "work": self.work, "receive": self.receive}[step]
                    stage(int(pick * 2**16))
            self.nobody_believes_what_is_over()

    def arrive(self, pick: int) -> None:
        if not self.asked:
            return
        asked = self.asked.pop(pick % len(self.asked))
        if isinstance(asked, FollowCall):
            asked.follower = self.promises.call(asked.client, asked.generation, asked.heard, self.now)
            self.at_work.append(asked)
            return
        asked.follower = self.promises.follower(asked.client)
        asked.stamp = self.promises.stamp()
        if asked.is_change:
            for subject in asked.subjects:
                self.values[subject] += 1
            self.at_work.append(Change(asked))
        else:
            self.at_work.append(asked)
        asked.values = [self.values[subject] for subject in asked.subjects]

    def work(self, pick: int) -> None:
        if not self.at_work:
            return
        item = self.at_work.pop(pick % len(self.at_work))
        if isinstance(item, FollowCall):
            assert item.follower is not None
            item.number, item.news = self.promises.news(item.follower)
            self.answers.append(item)
        elif isinstance(item, Read):
            self.answer(item)
        elif item.waits is None:
            item.waits = dict(self.promises.change(item.read.subjects, item.read.client, self.now))
            self.at_work.append(item)
        elif self.may_end(item.waits):
            for client, believer in self.believers.items():
                for subject, value in zip(item.read.subjects, item.read.values, strict=True):
                    if client != item.read.client:
                        believer.due[subject] = max(believer.due.get(subject, 0), value)
            self.answer(item.read)
        else:
            self.at_work.append(item)

    def may_end(self, waits: dict[Follower, int]) -> bool:
        for follower, number in waits.items():
            if follower.heard < number and follower.until <= self.now:
                self.promises.drop(follower)
        return self.now >= self.quiet_until and all(follower.heard >= number for follower, number in waits.items())

    def answer(self, read: Read) -> None:
        if read.follower is not None:
            read.promised = self.promises.promise(read.follower, read.subjects, read.stamp, self.now)
        if read.client:
            self.answers.append(read)

    def repeat(self, pick: int) -> None:
        """Whoever changes something gives its call up and sends it again; what it is answered promises nothing."""
        changes = [item for item in self.at_work if isinstance(item, Change) and item.waits is not None]
        if changes:
            change = changes[pick % len(changes)]
            change.waits = dict(self.promises.untold(change.read.client))
            change.read.follower = None

    def receive(self, pick: int) -> None:
        if not self.answers:
            return
        answer = self.answers.pop(pick % len(self.answers))
        believer = self.believers[answer.client]
        if isinstance(answer, Read):
            believer.take_answer(answer)
        elif answer is believer.call:
            assert answer.follower is not None
            believer.take_news(answer, answer.follower.generation)

    @rule(trouble=st.sampled_from(TROUBLES), pick=picks)
    def trouble(self, trouble: str | float, pick: int) -> None:
        match trouble:
            case "lose a request":
                self.lose(self.asked, pick)
            case "lose an answer":
                self.lose(self.answers, pick)
            case "repeat":
                self.repeat(pick)
            case "restart":
                self.restart()
            case float():
                self.now += trouble
                self.promises.forget(self.now)

    def lose(self, messages: list[Any], pick: int) -> None:
        if messages:
            del messages[pick % len(messages)]

    @rule(client=clients, subjects=subjects)
    def come_to_believe(self, client: bytes, subjects: list[int]) -> None:
        """It takes its news, follows and reads, with nothing between."""
        for ask in (self.follow, self.follow, partial(self.read, subjects=subjects)):
            ask(client)
            self.arrive(-1)
            self.work(-1)
            if self.answers:
                self.receive(-1)

    @rule(client=changers, subjects=subjects)
    def change_begins(self, client: bytes, subjects: list[int]) -> None:
        """Those who hold a promise are told."""
        self.change(client, subjects)
        self.arrive(-1)
        self.work(-1)

    @rule(client=clients)
    def take_all_news(self, client: bytes) -> None:
        for _ in range(3):
            self.follow(client)
            self.arrive(-1)
            self.work(-1)
            self.receive(-1)

    @rule()
    def end_changes(self) -> None:
        """Those that wait for nobody any more."""
        for _ in range(2 * len(self.at_work)):
            index = next((i for i, item in enumerate(self.at_work) if isinstance(item, Change)), None)
            if index is not None:
                self.work(index)

    def restart(self) -> None:
        """What it was doing is lost; changes that are in its store are answered when somebody repeats them."""
        changes = [item for item in self.at_work if isinstance(item, Change)]
        self.start()
        self.quiet_until = self.now + LEASE_S
        for change in changes:
            change.waits = {}
            change.read.follower = None
            self.at_work.append(change)

    @invariant()
    def nobody_believes_what_is_over(self) -> None:
        for believer in getattr(self, "believers", {}).values():
            if self.now < believer.lease_ends:
                for subject, value in believer.beliefs.items():
                    assert value >= believer.due.get(subject, 0), (believer.name, subject)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "NEWS_MAX", 1)
    monkeypatch.setattr(promises, "CHANGES_MAX", 1)  # the machine sets it anew


@pytest.mark.usefixtures("small")
def test_nobody_believes_what_is_over() -> None:
    run_state_machine_as_test(Beliefs, settings=settings(max_examples=150, stateful_step_count=40))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_nobody_believes_what_is_over_in_many_histories() -> None:
    run_state_machine_as_test(Beliefs, settings=settings(max_examples=2000, stateful_step_count=60))


def test_who_has_removed_something_is_promised_nothing_of_it_any_more() -> None:
    table = Table()
    mine, other = table.call(A), table.call(B)
    assert table.promise(mine, F, D, G) and table.promise(other, F)
    waits = table.change(F, by=A)
    table.promises.removed(removed_by({schema.inode_key(7): None, schema.inode_key(8): b"value"}), A)
    assert set(mine.held) == {G}
    assert list(waits) == [other] and table.news(other) == (1, [F]), "others are told"
    table.call(B, heard=1)
    assert not other.held and table.promises.held == 1


def test_what_its_remover_was_told_of_stays_until_it_has_heard() -> None:
    table = Table()
    mine = table.call(A)
    assert table.promise(mine, F)
    table.change(F, by=B)
    table.promises.removed([7], A)
    assert table.news(mine) == (1, [F])
    table.call(A, heard=1)
    assert not table.promises.held
