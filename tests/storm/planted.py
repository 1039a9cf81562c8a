"""A storage daemon with a defect, to show that a storm finds it: `python -m tests.storm.planted DEFECT --config FILE`.

| defect | what is wrong |
| --- | --- |
| lost-commit | one commit in forty is not made, and said to be |
| believes-copies | the manager's word that an old copy was put in a store's place is taken for "serve" |
| no-lease | it believes that its lease never ends |
| dies-committed | it dies when it has committed and told nobody, once there is a file `die` beside its directory |
| asks-nobody | a replica answers readers with what it has committed, and does not ask the tail about what is pending |
"""

import os
import random
import signal
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from fs_common.manager_client import ManagerClient
from fs_common.records.routing import StoreVerdict
from fs_storage.__main__ import main
from fs_storage.engine.store import EngineStore
from fs_storage.target import Target
from fs_storage.targets import Targets


def lost_commit() -> None:
    commit = EngineStore.commit

    async def some(self, chunks):  # type: ignore[no-untyped-def]
        await commit(self, [chunk for chunk in chunks if random.random() > 1 / 40])

    EngineStore.commit = some  # type: ignore[method-assign]


def dies_committed() -> None:
    commit = EngineStore.commit
    config = tomllib.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    word = Path(config["directory"]).with_name("die")

    async def last(self, chunks):  # type: ignore[no-untyped-def]
        await commit(self, chunks)
        if word.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    EngineStore.commit = last  # type: ignore[method-assign]


def believes_copies() -> None:
    judge = Targets.judge

    def believing(self, verdicts):  # type: ignore[no-untyped-def]
        rolled = StoreVerdict.ROLLED_BACK
        judge(self, [v._replace(verdict=StoreVerdict.SERVE) if v.verdict is rolled else v for v in verdicts])

    Targets.judge = believing  # type: ignore[method-assign]


def no_lease() -> None:
    ManagerClient.lease_valid = lambda self: self._lease_s > 0  # type: ignore[method-assign]


def asks_nobody() -> None:
    place = Target.place

    def certain(self, position):  # type: ignore[no-untyped-def]
        place(self, position)
        self.uncertain = frozenset()

    Target.place = certain  # type: ignore[method-assign]


DEFECTS: dict[str, Callable[[], None]] = {
    "lost-commit": lost_commit,
    "dies-committed": dies_committed,
    "believes-copies": believes_copies,
    "no-lease": no_lease,
    "asks-nobody": asks_nobody,
}

if __name__ == "__main__":
    DEFECTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
