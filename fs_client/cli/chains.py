"""`emberfs chains`."""

from typing import TYPE_CHECKING

import click

from fs_client.cli.failure import Failure
from fs_client.cli.manager_api import TIMEOUT_S, Administered, ManagerApi
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.suggest import SuggestingGroup
from fs_client.cli.text import put, put_json, size_words

if TYPE_CHECKING:
    from fs_common.records.chains import ListChainsReply


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.option("--degraded", is_flag=True, help="Only those that are not as they should be.")
@json_option
@cluster_option
@click.pass_context
def chains(ctx: click.Context, degraded: bool, as_json: bool, cluster: str) -> None:
    """Show the chains of a cluster, and what is done about those that are degraded.

    For each target: its state on the chain, and how the manager sees it. A target that serves has everything that was
    acknowledged; one that is syncing is being filled up, which is shown with its progress.

    \b
    Example:
      emberfs chains
      emberfs chains --degraded --json | jq '.chains[].what'
      emberfs chains rotate 5
    """
    ctx.obj = cluster
    if ctx.invoked_subcommand is None:
        run(_list(cluster, degraded, as_json))


@chains.command()
@click.argument("chain", type=click.IntRange(1))
@click.option("--target", type=click.IntRange(1), help="Who is to serve, where no last replica is alive.")
@click.option("--accept-loss", is_flag=True, help="Do it. Without this it only says what may be lost.")
@cluster_option
@click.pass_context
def rotate(ctx: click.Context, chain: int, target: int | None, accept_loss: bool, cluster: str) -> None:
    """Give up the last replicas of a chain that are gone for good.

    A chain whose last replicas are dead, or have lost power, serves nothing until they are back: what was written last
    may be on them alone. If they never come back, this lets the others serve. It is refused while any replica that has
    everything is there, or may still come by itself.

    \b
    Example:
      emberfs chains rotate 5                  says what may be lost
      emberfs chains rotate 5 --accept-loss
    """
    given = ctx.get_parameter_source("cluster") is click.core.ParameterSource.COMMANDLINE
    run(_rotate(cluster if given else ctx.obj, chain, target or 0, accept_loss))


async def _list(cluster: str, degraded: bool, as_json: bool) -> None:
    from fs_common import chain_words
    from fs_common.cluster_words import RESTING

    async with Administered(cluster) as api:
        reply = await listed_chains(api, degraded=degraded)
    if as_json:
        put_json(chain_words.as_json(reply), indent=2)
        return
    put("chain  version  state     targets, head first")
    for chain in reply.chains:
        targets = "  ".join(
            f"{target.target} ({target.state.name.lower()}, {size_words(target.used_bytes)})"
            for target in chain.targets
        )
        put(f"{chain.chain:>5}  {chain.version:>7}  {chain_words.state_of_chain(chain):<8}  {targets}")
        for line in chain_words.what_happens(chain):
            put(f"{'':>16}{line}")
    if reply.resting:
        put(f"\n{RESTING}")
    for line in chain_words.what_helps(reply):
        put(line)


async def listed_chains(api: ManagerApi, *, degraded: bool, timeout_s: float = TIMEOUT_S) -> "ListChainsReply":
    """All chains; `degraded`: only those that are not as they should be."""
    import msgspec

    from fs_common.admin_records import list_chains_record

    pages = api.pages("ListChains", degraded=degraded, timeout_s=timeout_s)
    replies = [list_chains_record(page) async for page in pages]
    return msgspec.structs.replace(replies[-1], chains=[chain for reply in replies for chain in reply.chains])


async def _rotate(cluster: str, chain: int, target: int, accept_loss: bool) -> None:
    from fs_common.records.routing import PublicState

    async with Administered(cluster) as api:
        from fs_common.admin_records import rotate_chain_record

        message = await api.order("RotateChain", chain=chain, accept_loss=accept_loss, target=target)
        reply = rotate_chain_record(message)
    serving = ", ".join(str(one.target) for one in reply.chain.targets if one.state is PublicState.SERVING)
    gone = ", ".join(str(one) for one in reply.given_up)
    put(f"chain {chain}: gives up target {gone}, serves from target {serving}")
    put(reply.loses)
    if not accept_loss:
        raise Failure(f"nothing was changed; `emberfs chains rotate {chain} --accept-loss` does it")
