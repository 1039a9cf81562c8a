"""The words for states, as the command line has them."""

from typing import Literal

NodeState = Literal["up", "failed", "left"]
TargetState = Literal["serving", "lastsrv", "syncing", "waiting", "offline"]
TargetStanding = Literal["able", "lacking", "held", "dead"]
ChainState = Literal["serving", "degraded", "mending", "offline"]
MoveState = Literal["queued", "filling", "leaving", "done", "cancelled"]
MoveCause = Literal["operator", "rebalance", "drain", "lost"]
