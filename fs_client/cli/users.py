"""`emberfs users`: who is known to a cluster, and by which tokens."""

import os
import re
import time
from pathlib import Path
from typing import Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.manager_api import Administered
from fs_client.cli.options import cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.suggest import SuggestingGroup
from fs_client.cli.text import counted, local_time, put, put_json

DAY_S = 86_400
LASTS_DEFAULT = "90d"
GRACE_DEFAULT = "1d"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S}
_TOKEN_ID = re.compile(r"[0-9a-f]{8}")


class Duration(click.ParamType[int]):
    """Seconds, or a number with a unit: 90d, 12h, 30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([smhdw]?)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration; write for example 90d, 12h or 30m", param, ctx)
        return int(match[1]) * _UNITS[match[2] or "s"]


class TokenId(click.ParamType[str]):
    """A token's id. Who pastes the whole token has put a secret into the process list: he is told, and not helped."""

    name = "token id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _TOKEN_ID.fullmatch(value):
            return str(value)
        if str(value).startswith("ember."):
            self.fail("name a token by its id, the 8 hex digits: the rest is secret", param, ctx)
        self.fail("a token's id has 8 hex digits; `emberfs users list --tokens` shows them", param, ctx)


output_option = click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Write the token to this new file, which only you may read."
)


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@json_option
@cluster_option
@click.pass_context
def users(ctx: click.Context, as_json: bool, cluster: str) -> None:
    """Manage the users and tokens of a cluster.

    A token is what a person, a mount or a storage daemon is known by, where the cluster has security on. Its text is
    shown once, when it is made. All of this takes an administrator's token.

    \b
    Example:
      export EMBERFS_TOKEN_FILE=./emberfs-data/tokens/admin.token
      emberfs users add ada --uid 1000 --gid 1000
      emberfs users token ada -o ada.token                a token for 90 days
      emberfs users token ada --mount -o mount.token      one for a mount
      emberfs users list --tokens
      emberfs users revoke 3f9a0c11
    """
    ctx.obj = cluster
    if ctx.invoked_subcommand is None:
        run(_list(cluster, tokens=False, as_json=as_json))


def _cluster(ctx: click.Context, cluster: str) -> str:
    given = ctx.get_parameter_source("cluster") is click.core.ParameterSource.COMMANDLINE
    return cluster if given else str(ctx.obj)


@users.command("list")
@click.option("--tokens", is_flag=True, help="Each token, those of storage daemons included.")
@json_option
@cluster_option
@click.pass_context
def list_(ctx: click.Context, tokens: bool, as_json: bool, cluster: str) -> None:
    """List users, or tokens."""
    run(_list(_cluster(ctx, cluster), tokens=tokens, as_json=as_json))


@users.command()
@click.argument("name")
@click.option("--uid", type=click.IntRange(0), required=True)
@click.option("--gid", type=click.IntRange(0), required=True)
@click.option("--group", "groups", type=click.IntRange(0), multiple=True, help="Another group; may be repeated.")
@click.option("--admin", is_flag=True, help="It may administer the cluster.")
@click.option("--root", is_flag=True, help="It may act as any user, whom its programs name.")
@json_option
@cluster_option
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    uid: int,
    gid: int,
    groups: tuple[int, ...],
    admin: bool,
    root: bool,
    as_json: bool,
    cluster: str,
) -> None:
    """Make a user. It needs a token to be let in: `emberfs users token NAME`."""
    fields = {"name": name, "uid": uid, "gid": gid, "groups": groups, "admin": admin, "root": root}

    def say(reply: Any) -> None:
        put(f"user {name} is made; `emberfs users token {name}` issues a token")

    run(_order(_cluster(ctx, cluster), "AddUser", fields, _user_json if as_json else say))


@users.command()
@click.argument("name")
@json_option
@cluster_option
@click.pass_context
def remove(ctx: click.Context, name: str, as_json: bool, cluster: str) -> None:
    """Remove a user and all its tokens. Who is connected with one of them is cut off."""

    def say(reply: Any) -> None:
        if as_json:
            put_json({"tokens": list(reply.tokens)})
        else:
            put(f"user {name} is removed, with {counted(len(reply.tokens), 'token')}")

    run(_order(_cluster(ctx, cluster), "RemoveUser", {"name": name}, say))


@users.command()
@click.argument("name", required=False)
@click.option("--lasts", type=Duration(), default=LASTS_DEFAULT, show_default=True, help="For how long it is good.")
@click.option("--endless", is_flag=True, help="It never expires.")
@click.option("--mount", is_flag=True, help="For a mount: it acts as whoever uses the mount, and administers nothing.")
@click.option("--squash-root", is_flag=True, help="With --mount: root becomes nobody (65534).")
@click.option("--storage", "node", type=click.IntRange(0), help="Instead of a user: for storage daemon NODE; 0: any.")
@output_option
@json_option
@cluster_option
@click.pass_context
def token(
    ctx: click.Context,
    name: str | None,
    lasts: int,
    endless: bool,
    mount: bool,
    squash_root: bool,
    node: int | None,
    output: Path | None,
    as_json: bool,
    cluster: str,
) -> None:
    """Issue a token. Its text is shown now and never again."""
    if (name is None) == (node is None):
        raise Usage("name a user, or a storage daemon with --storage NODE")
    if endless and ctx.get_parameter_source("lasts") is click.core.ParameterSource.COMMANDLINE:
        raise Usage("--endless and --lasts contradict each other")
    if not endless and lasts < 1:
        raise Usage("--lasts 0: use --endless for a token that never expires")
    fields = {
        "user": name or "",
        "node": node or 0,
        "mount": mount,
        "squash_root": squash_root,
        "lasts_s": 0 if endless else lasts,
    }
    _issue(_cluster(ctx, cluster), "IssueToken", fields, output, as_json)


@users.command()
@click.argument("token", type=TokenId())
@click.option(
    "--grace", type=Duration(), default=GRACE_DEFAULT, show_default=True, help="How long the old one is good."
)
@output_option
@json_option
@cluster_option
@click.pass_context
def rotate(ctx: click.Context, token: str, grace: int, output: Path | None, as_json: bool, cluster: str) -> None:
    """Issue a token like TOKEN, which expires after a while."""
    _issue(_cluster(ctx, cluster), "RotateToken", {"id": token, "grace_s": grace}, output, as_json)


@users.command()
@click.argument("token", type=TokenId())
@cluster_option
@click.pass_context
def revoke(ctx: click.Context, token: str, cluster: str) -> None:
    """Make a token void at once. Who is connected with it is cut off."""
    run(_order(_cluster(ctx, cluster), "RevokeToken", {"id": token}, lambda reply: put(f"token {token} is void")))


@users.command("rotate-keys")
@cluster_option
@click.pass_context
def rotate_keys(ctx: click.Context, cluster: str) -> None:
    """Give passes a new key now. It happens by itself, too (`key_rotation_h`)."""

    def say(reply: Any) -> None:
        put(f"passes are made under key {reply.key} once every storage daemon has it")

    run(_order(_cluster(ctx, cluster), "RotateKeys", {}, say))


def _issue(cluster: str, method: str, fields: dict[str, Any], output: Path | None, as_json: bool) -> None:
    file = None if output is None else _new_file(output)
    issued = False

    def say(reply: Any) -> None:
        nonlocal issued
        if file is not None:
            os.write(file, f"{reply.text}\n".encode())
            os.fsync(file)
            issued = True
        if as_json:
            shown = _token_json(reply.token)
            put_json(shown if file is not None else shown | {"token": reply.text})
            return
        expires = f"until {local_time(reply.token.expires_ns)}" if reply.token.expires_ns else "for ever"
        if file is None:
            put(reply.text)
        click.echo(f"token {reply.token.id} is good {expires}", err=True)

    try:
        run(_order(cluster, method, fields, say))
    finally:
        if file is not None and output is not None:
            os.close(file)
            if not issued:
                output.unlink(missing_ok=True)


def _new_file(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Failure(f"{path} exists; name a file that does not, or remove it") from None


async def _order(cluster: str, method: str, fields: dict[str, Any], say: Any) -> None:
    async with Administered(cluster) as api:
        say(await api.order(method, **fields))


async def _list(cluster: str, *, tokens: bool, as_json: bool) -> None:
    async with Administered(cluster) as api:
        reply = await (api.read("ListTokens") if tokens else api.read("ListUsers"))
    if as_json:
        if tokens:
            put_json({"tokens": [_token_json(each) for each in reply.tokens]}, indent=2)
        else:
            put_json({"security": reply.security, "users": [_user_fields(each) for each in reply.users]}, indent=2)
        return
    if tokens:
        put(f"{'id':<8}  {'of':<20}  {'kind':<20}  {'made':<19}  expires")
        for each in reply.tokens:
            put(f"{each.id}  {_owner(each):<20}  {_kind(each):<20}  {local_time(each.created_ns)}  {_expiry(each)}")
        return
    put(f"{'name':<20}  {'uid':>10}  {'gid':>10}  {'tokens':>6}  {'may':<12}  groups")
    for each in reply.users:
        may = " ".join(word for word, has in (("admin", each.admin), ("root", each.root)) if has) or "-"
        groups = ",".join(map(str, each.groups))
        put(f"{each.name:<20}  {each.uid:>10}  {each.gid:>10}  {each.tokens:>6}  {may:<12}  {groups}".rstrip())
    if not reply.security:
        put("\nSecurity is off: nobody is asked for a token, and everybody may administer.")


def _owner(token: Any) -> str:
    if token.user:
        return str(token.user)
    return f"storage node {token.node}" if token.node else "storage daemons"


def _kind(token: Any) -> str:
    if not token.user:
        return "daemon"
    if not token.mount:
        return "plain"
    return "mount, root squashed" if token.squash_root else "mount"


def _expiry(token: Any) -> str:
    if not token.expires_ns:
        return "never"
    left_s = token.expires_ns / 1e9 - time.time()
    return f"{local_time(token.expires_ns)} ({max(left_s, 0) / DAY_S:.0f} d)"


def _user_json(reply: Any) -> None:
    put_json(_user_fields(reply))


def _user_fields(user: Any) -> dict[str, Any]:
    return {
        "name": user.name,
        "uid": user.uid,
        "gid": user.gid,
        "groups": list(user.groups),
        "admin": user.admin,
        "root": user.root,
        "created_ns": user.created_ns,
        "tokens": user.tokens,
    }


def _token_json(token: Any) -> dict[str, Any]:
    return {
        "id": token.id,
        "user": token.user,
        "node": token.node,
        "kind": "storage" if not token.user else "mount" if token.mount else "plain",
        "squash_root": token.squash_root,
        "created_ns": token.created_ns,
        "expires_ns": token.expires_ns,
    }
