"""A cluster that is taken down as a whole, and comes back: while it rests no chain changes. Pure.

The record is in the store from before the first node leaves, so it outlives the manager. It ends when every node that
was up is back, or `failure_ms` after the first of them is: from then on who is missing is dead as ever. A node is back
when a new process of it was heard, or when the old one is still there after `failure_ms`: it was not taken down then.
"""

from collections.abc import Mapping

from fs_common.records.routing import NodeState
from fs_meta.manager.membership import Member
from fs_meta.manager.records import RestRecord


class Resting:
    def __init__(self, record: RestRecord, failure_ms: int, now_ms: int) -> None:
        """`now_ms`: when it was told, or when this manager began."""
        self._incarnations = dict(record.nodes)
        self._failure_ms = failure_ms
        self._began_ms = now_ms
        self._first_ms: int | None = None
        """When the first node was back."""

    def over(self, members: Mapping[int, Member], now_ms: int) -> bool:
        """Whether it has ended."""
        late = now_ms - self._began_ms >= self._failure_ms
        back = 0
        for node, incarnation in self._incarnations.items():
            member = members.get(node)
            if member is not None and member.beat and member.state is NodeState.UP:
                back += late or member.identity.incarnation != incarnation
        if not self._incarnations or back == len(self._incarnations):
            return True
        if back and self._first_ms is None:
            self._first_ms = now_ms
        return self._first_ms is not None and now_ms - self._first_ms >= self._failure_ms


def record_of(members: Mapping[int, Member]) -> RestRecord:
    """Of a cluster that is about to be taken down."""
    up = [member.identity for member in members.values() if member.state is NodeState.UP]
    return RestRecord([(who.node, who.incarnation) for who in up])
