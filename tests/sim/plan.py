"""How bad one run is: quiet ones and terrible ones, from the seed."""

from dataclasses import dataclass, replace
from random import Random

KINDS = (
    "kill",
    "kill",
    "kill several",
    "stop",
    "cut from manager",
    "cut from manager",
    "cut from another",
    "cut off",
    "cut from clients",
    "power",
    "power",
    "power of several",
    "power of all",
    "manager dies",
    "goodbye",
    "disk fails",
    "disk full",
    "replaced",
    "forget",
)


@dataclass(frozen=True)
class Plan:
    replicas: int = 3
    clients: int = 3
    steps: int = 8
    """Of each client."""
    chunks: int = 2
    memory: bool = False
    """What is stored is durable some time later only."""
    suspicious: bool = False
    """A store is not whole after any loss of power."""
    loss: float = 0.0
    slow: float = 0.0
    duplication: float = 0.0
    pace_ms: float = 3.0
    """Of a message, and of a write to a disk; usually."""
    drift: float = 0.05
    """The most that a machine's clock runs fast or slow."""
    late_news: float = 0.0
    """Share of routings that reach a node seconds late."""
    busy: float = 0.5
    """Share of a client's pauses that end when a chain changes, and of faults that wait for an update under way."""
    faults: int = 3
    together: float = 0.3
    """Share of faults that come right after the one before."""
    length_ms: float = 40_000.0
    """Faults are over then."""
    kinds: tuple[str, ...] = KINDS
    back_ms: tuple[float, ...] = (50.0, 800.0, 2_000.0, 5_000.0, 15_000.0)
    """After how long a process is started again, about."""


def plan_of(random: Random) -> Plan:
    made = _broad(random)
    return hard(random, made) if random.random() < 0.25 else made


def hard(random: Random, plan: Plan) -> Plan:
    """One chunk, and chains that change all the time, while updates are under way."""
    return replace(
        plan,
        replicas=random.choice((2, 3, 3)),
        chunks=1,
        steps=25,
        faults=20,
        busy=0.9,
        together=0.1,
        late_news=0.3,
        pace_ms=random.choice((20.0, 60.0)),
        loss=random.choice((0.0, 0.05)),
        back_ms=(1_500.0,),
        length_ms=40_000.0,
        kinds=(
            "kill",
            "kill",
            "kill",
            "cut from manager",
            "power",
            "stop",
            "cut from another",
            "disk full",
            "manager dies",
        ),
    )


def _broad(random: Random) -> Plan:
    kinds: tuple[str, ...] = KINDS
    if random.random() < 0.4:
        kinds = tuple(random.sample(sorted(set(KINDS)), random.choice((1, 2, 3))))
    return Plan(
        replicas=random.choice((2, 3, 3, 3, 4)),
        clients=random.choice((2, 3, 4)),
        steps=random.choice((6, 12, 20)),
        chunks=random.choice((1, 1, 2, 3)),
        memory=random.random() < 0.3,
        suspicious=random.random() < 0.4,
        loss=random.choice((0.0, 0.0, 0.02, 0.1)),
        slow=random.choice((0.0, 0.01, 0.05)),
        duplication=random.choice((0.0, 0.2)),
        late_news=random.choice((0.0, 0.0, 0.3)),
        busy=random.choice((0.0, 0.5, 0.9)),
        pace_ms=random.choice((2.0, 20.0, 100.0)),
        faults=random.choice((0, 1, 2, 3, 4, 6, 9)),
        together=random.choice((0.1, 0.5)),
        length_ms=random.choice((20_000.0, 40_000.0)),
        kinds=kinds,
        back_ms=random.choice(((50.0, 800.0, 2_000.0, 5_000.0, 15_000.0), (1_500.0,))),
    )
