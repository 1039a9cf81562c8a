"""What the commands that move targets share: asking the manager, showing moves, waiting for them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Failure
from fs_client.cli.manager_api import Administered, ManagerApi
from fs_client.cli.remote import run
from fs_client.cli.text import counted, put, put_json, size_words

if TYPE_CHECKING:
    from fs_common.records.targets import MovesReply, MoveView

LOOK_S = 0.5
"""Pause between two looks at moves that are waited for."""

wait_option = click.option("--wait", is_flag=True, help="Return when the moves are over, and show how far they are.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would move.")


def move_targets(
    cluster: str,
    method: str,
    requests: dict[str, Any] | Sequence[dict[str, Any]],
    said: Callable[["MovesReply"], str],
    *,
    wait: bool = False,
    as_json: bool = False,
) -> None:
    """Ask for moves (`method` of the manager's API, with the fields of its request), show them, and wait for them if
    that is wanted. `said`: one line about what was ordered.

    Of several requests the later ones are not sent when one is refused.
    """
    asked = [requests] if isinstance(requests, dict) else requests
    run(_move_targets(cluster, method, asked, said, wait=wait, as_json=as_json))


async def _move_targets(
    cluster: str,
    method: str,
    requests: Sequence[dict[str, Any]],
    said: Callable[["MovesReply"], str],
    *,
    wait: bool,
    as_json: bool,
) -> None:
    async with Administered(cluster) as api:
        from fs_common.admin_records import moves_record  # needs what `Administered` has looked for

        replies: list[MovesReply] = []
        numbers: set[int] = set()
        for request in requests:
            reply = moves_record(await api.order(method, **request))
            replies.append(reply)
            numbers |= {move.move for move in reply.moves if move.move}
            if not as_json:
                put(said(reply))
        if as_json:
            plans = [plan_of(reply) for reply in replies]
            put_json(plans[0] if len(plans) == 1 else plans, indent=2)
        else:
            show_moves([move for reply in replies for move in reply.moves])
        if wait and numbers:
            await wait_for(api, numbers)


async def listed_moves(api: ManagerApi, *, active: bool = False) -> "list[MoveView]":
    """All moves, also the last ones that are over; `active`: only the others."""
    from fs_common.admin_records import list_moves_record

    pages = api.pages("ListMoves", active=active)
    return [move async for page in pages for move in list_moves_record(page).moves]


def plan_of(reply: "MovesReply") -> dict[str, Any]:
    """The value of `--json`."""
    return {
        "moves": [move_of(move) for move in reply.moves],
        "new_chains": reply.new_chains,
        "least_moves": reply.least_moves,
        "most_over_mean_before": reply.spread_before,
        "most_over_mean_after": reply.spread_after,
        "least_possible_over_mean": reply.spread_possible,
    }


def move_of(move: "MoveView") -> dict[str, Any]:
    value: dict[str, Any] = {
        "move": move.move or None,
        "chain": move.chain,
        "joins": move.joins or None,
        "node": move.node or None,
        "leaves": move.leaves or None,
        "source": move.source or None,
        "cause": move.cause,
        "state": move.state,
        "doing": move.doing,
    }
    if move.sync is not None:
        value["sync"] = {
            "chunks_done": move.sync.chunks_done,
            "chunks_total": move.sync.chunks_total,
            "chunks_sent": move.sync.chunks_sent,
            "bytes_sent": move.sync.bytes_sent,
        }
    return value


def show_moves(moves: "Sequence[MoveView]") -> None:
    if not moves:
        return
    put("move  chain  joins             leaves            cause      state")
    for move in moves:
        joins = _target(move.joins, move.node)
        leaves = _target(move.leaves, move.source)
        number = move.move or "-"
        doing = f": {doing_of(move)}" if move.move and move.state not in ("done", "cancelled") else ""
        put(f"{number:>4}  {move.chain:>5}  {joins:<16}  {leaves:<16}  {move.cause:<9}  {move.state}{doing}")


def doing_of(move: "MoveView") -> str:
    if move.sync is None:
        return move.doing
    sync = move.sync
    share = f"{sync.chunks_done:,} of {counted(sync.chunks_total, 'chunk')}"
    return f"{move.doing}: {share}, {size_words(sync.bytes_sent)} sent"


def _target(target: int, node: int) -> str:
    if not target and not node:
        return "-"
    return f"{target or 'new'} on node {node}" if node else str(target)


async def wait_for(api: ManagerApi, numbers: set[int]) -> None:
    """Until these moves are over. Raises `Failure` if some were cancelled; interrupted, they go on."""
    import asyncio

    from fs_client.cli.progress import Progress

    with Progress("moving", len(numbers), "targets") as progress:
        left = set(numbers)
        said: dict[int, str] = {}
        while True:
            present = {move.move: move for move in await listed_moves(api)}
            over = {n for n in left if n not in present or present[n].state in ("done", "cancelled")}
            left -= over
            progress.advance(len(over))
            for number in sorted(left):
                # Who waits for something that does not come hears why.
                doing = present[number].doing
                if doing.startswith(("waits", "target")) and said.get(number) != doing:
                    said[number] = doing
                    click.echo(f"move {number}: {doing}", err=True)
            if not left:
                break
            await asyncio.sleep(LOOK_S)
    undone = sorted(n for n in numbers if n in present and present[n].state == "cancelled")
    if undone:
        raise Failure(f"{counted(len(undone), 'move')} of {len(numbers)} cancelled: {', '.join(map(str, undone))}")
