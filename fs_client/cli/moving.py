"""What the commands that move targets share: asking the manager, showing moves, waiting for them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.remote import run
from fs_client.cli.text import counted, human_size, put, put_json

if TYPE_CHECKING:
    import msgspec

    from fs_client.aio import AsyncFileSystem
    from fs_common.methods import Method
    from fs_common.records.targets import ListTargetsReply, MovesReply, MoveView

LOOK_S = 0.5
"""Pause between two looks at moves that are waited for."""
ASK_TIMEOUT_S = 60.0
"""A plan for hundreds of nodes takes seconds."""

wait_option = click.option("--wait", is_flag=True, help="Return when the moves are over, and show how far they are.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would move.")


async def ask(fs: "AsyncFileSystem", method: "Method", request: "msgspec.Struct") -> Any:
    """The manager's answer. Raises `Failure`."""
    from fs_common.errors import EmberError

    try:
        return await fs.metadata.call(method, request, timeout_s=ASK_TIMEOUT_S)
    except EmberError as error:
        raise Failure(error.message) from None


def move_targets(
    cluster: str,
    method: "Method",
    requests: "msgspec.Struct | Sequence[msgspec.Struct]",
    said: Callable[["MovesReply"], str],
    *,
    wait: bool = False,
    as_json: bool = False,
) -> None:
    """Ask for moves, show them, and wait for them if that is wanted. `said`: one line about what was ordered.

    Of several requests the later ones are not sent when one is refused.
    """
    asked = requests if isinstance(requests, Sequence) else [requests]
    run(_move_targets(cluster, method, asked, said, wait=wait, as_json=as_json))


async def connected(cluster: str) -> "AsyncFileSystem":
    from fs_client import aio

    try:
        return await aio.connect(cluster)
    except ValueError as error:
        raise Usage(str(error)) from None


async def _move_targets(
    cluster: str,
    method: "Method",
    requests: "Sequence[msgspec.Struct]",
    said: Callable[["MovesReply"], str],
    *,
    wait: bool,
    as_json: bool,
) -> None:
    async with await connected(cluster) as fs:
        replies: list[MovesReply] = []
        numbers: set[int] = set()
        for request in requests:
            reply: MovesReply = await ask(fs, method, request)
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
            await wait_for(fs, numbers)


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
    return f"{move.doing}: {share}, {human_size(sync.bytes_sent)}B sent"


def _target(target: int, node: int) -> str:
    if not target and not node:
        return "-"
    return f"{target or 'new'} on node {node}" if node else str(target)


async def wait_for(fs: "AsyncFileSystem", numbers: set[int]) -> None:
    """Until these moves are over. Raises `Failure` if some were cancelled; interrupted, they go on."""
    import asyncio

    from fs_client.cli.progress import Progress
    from fs_common.methods import LIST_TARGETS
    from fs_common.records.targets import ListTargets

    with Progress("moving", len(numbers), "targets") as progress:
        left = set(numbers)
        said: dict[int, str] = {}
        while True:
            listed: ListTargetsReply = await ask(fs, LIST_TARGETS, ListTargets())
            present = {move.move: move for move in listed.moves}
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
