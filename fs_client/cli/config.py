"""`emberfs config`: the cluster's configuration."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fs_client.cli.failure import Failure, Usage
from fs_client.cli.manager_api import Administered, ManagerApi
from fs_client.cli.options import Size, cluster_option, json_option
from fs_client.cli.remote import run
from fs_client.cli.suggest import SuggestingGroup
from fs_client.cli.text import counted, local_time, put, put_json

if TYPE_CHECKING:
    from fs_common.records.cluster_config import ConfigReport, ConfigVersion, Setting

KINDS = ("meta", "storage", "mount")
TRIES_MAX = 5
"""Of a change, when others change the same configuration meanwhile."""

kind_argument = click.argument("kind", type=click.Choice(KINDS))
comment_option = click.option("-m", "--comment", default="", help="Why; shown in the history.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say whether it is valid, and what it would be.")


@click.group(cls=SuggestingGroup)
def config() -> None:
    """Show and change the cluster's configuration.

    There is one text of TOML for metadata servers, one for storage daemons, one for mounts. A daemon works by its
    built-in values, over them the cluster's configuration, over that its own file and environment (of a mount: its
    options). A change is refused unless it is valid, and reaches every node with its next heartbeat, mounts within half
    a minute; some keys take effect at once, others when a daemon is started again. Every version is kept.

    \b
    Example:
      emberfs config show --origin
      emberfs config set storage.scrub_bytes_per_s=64M -m "new disks"
      emberfs config status
      emberfs config rollback storage 3
    """


# --- looking ----------------------------------------------------------------------------------------------------------


@config.command()
@click.argument("node", required=False, metavar="[NODE|meta|storage|mount]")
@click.option("--origin", is_flag=True, help="Where each value comes from, and when a change takes effect.")
@json_option
@cluster_option
def show(node: str | None, origin: bool, as_json: bool, cluster: str) -> None:
    """Show every key with its value.

    Without an argument as the cluster has it; with a node's number as that storage daemon has it, where its own file
    wins; with `meta` the metadata server's.

    \b
    Example:
      emberfs config show
      emberfs config show 3 --origin
    """
    run(_show(node, origin, as_json, cluster))


async def _show(node: str | None, origin: bool, as_json: bool, cluster: str) -> None:
    if node is not None and node not in KINDS and not node.isdigit():
        raise Usage(f"{node!r} is neither the number of a node nor one of {', '.join(KINDS)}")
    number = int(node) if node is not None and node.isdigit() else 0
    kinds = ["storage"] if number else KINDS if node is None else [node]
    found: dict[str, tuple[int, list[Setting]]] = {}
    async with Administered(cluster) as api:
        for kind in kinds:
            version, settings, _ = await _settings(api, kind, number)
            found[kind] = (version, settings)
    if as_json:
        put_json({kind: _settings_json(version, settings) for kind, (version, settings) in found.items()}, indent=2)
        return
    for kind, (version, settings) in found.items():
        whose = f"node {number}" if number else kind
        newest = f"the cluster's configuration is at version {version}" if version else "the cluster configures nothing"
        put(f"# {whose}: {newest}")
        for each in settings:
            line = f"{each.key} = {each.value}"
            if origin:
                when = "at once" if each.live else "at the next start"
                waits = ", which this daemon waits for" if each.waiting else ""
                line = f"{line:<36}  # {each.origin:<8}  takes effect {when}{waits}"
            put(line)


@config.command()
@click.argument("key", metavar="KIND.KEY")
@click.option("--node", type=click.IntRange(1), help="As this storage daemon has it.")
@cluster_option
def get(key: str, node: int | None, cluster: str) -> None:
    """Print one value.

    \b
    Example:
      emberfs config get storage.scrub_bytes_per_s
    """

    async def ask() -> None:
        kind, name = _split(key)
        async with Administered(cluster) as api:
            _, settings, _ = await _settings(api, kind, node or 0)
        for each in settings:
            if each.key == name:
                put(each.value.strip('"'))
                return
        raise Failure(f"{kind} has no key {name}: `emberfs config show {kind}` has all")

    run(ask())


@config.command()
@click.argument("kind", type=click.Choice(KINDS), required=False)
@json_option
@cluster_option
def history(kind: str | None, as_json: bool, cluster: str) -> None:
    """Show the versions that there were, newest first."""

    async def ask() -> None:
        from fs_common.admin_records import config_version_record

        versions: list[ConfigVersion] = []
        async with Administered(cluster) as api:
            for each in KINDS if kind is None else (kind,):
                async for page in api.pages("ListConfigVersions", kind=each):
                    versions += map(config_version_record, page.versions)
        if as_json:
            put_json([_version_json(version) for version in versions], indent=2)
            return
        put("kind     version  set                  comment")
        for version in versions:
            put(f"{version.kind:<7}  {version.version:>7}  {local_time(version.set_ms * 1_000_000)}  {version.comment}")

    run(ask())


@config.command()
@json_option
@cluster_option
def status(as_json: bool, cluster: str) -> None:
    """Show how each daemon stands to the newest version.

    normal: it works by it. dirty: some keys take effect when it is started again. failed: it could not take it, and
    works by what it had. stale: it has not said yet that it has it. unknown: it does not run, or says nothing.
    Exit code 1 unless all are normal.
    """
    run(_status(as_json, cluster))


async def _status(as_json: bool, cluster: str) -> None:
    from fs_client.cli.targets import listed_nodes
    from fs_common.records.cluster_config import ConfigStatus

    async with Administered(cluster) as api:
        meta_version, _, meta = await _settings(api, "meta", 0)
        listed = await listed_nodes(api)
    rows = [("meta", meta_version, meta), *((f"node {n.node}", listed.config_version, n.config) for n in listed.nodes)]
    if as_json:
        value = [{"daemon": name, "newest": newest, **_report_json(report)} for name, newest, report in rows]
        put_json(value, indent=2)
    else:
        put("daemon    version  of  status")
        for name, newest, report in rows:
            what = report.reason or (f"at the next start: {', '.join(report.waiting)}" if report.waiting else "")
            put(f"{name:<8}  {report.version:>7}  {newest:>2}  {report.status.name.lower():<7}  {what}".rstrip())
    wrong = [name for name, _, report in rows if report.status is not ConfigStatus.NORMAL]
    if wrong:
        raise Failure(
            f"{counted(len(wrong), 'daemon does', 'daemons do')} not work by the newest version: {', '.join(wrong)}"
        )


# --- changing ---------------------------------------------------------------------------------------------------------


@config.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="KIND.KEY=VALUE...")
@comment_option
@dry_run_option
@cluster_option
def set_command(changes: tuple[str, ...], comment: str, dry_run: bool, cluster: str) -> None:
    """Set keys.

    Several of one kind become one version. Numbers of bytes may have a unit: 64M.

    \b
    Example:
      emberfs config set storage.log_level=debug
      emberfs config set meta.moves_per_node=4 meta.moves_at_once=128 -m "move fast"
    """
    wanted: dict[str, dict[str, Any]] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise Usage(f"{change!r} is not KIND.KEY=VALUE")
        kind, name = _split(key)
        wanted.setdefault(kind, {})[name] = _value(name, value)
    run(_change(cluster, wanted, comment, dry_run))


@config.command()
@click.argument("keys", nargs=-1, required=True, metavar="KIND.KEY...")
@comment_option
@dry_run_option
@cluster_option
def unset(keys: tuple[str, ...], comment: str, dry_run: bool, cluster: str) -> None:
    """Take keys from the cluster's configuration: their built-in values count again."""
    wanted: dict[str, dict[str, Any]] = {}
    for key in keys:
        kind, name = _split(key)
        wanted.setdefault(kind, {})[name] = None
    run(_change(cluster, wanted, comment, dry_run))


async def _change(cluster: str, wanted: dict[str, dict[str, Any]], comment: str, dry_run: bool) -> None:
    """`wanted`: by kind, key to value; None: without it."""
    async with Administered(cluster) as api:
        for kind, changes in wanted.items():
            await _change_one(api, kind, changes, comment or _words(changes), dry_run)


async def _change_one(api: ManagerApi, kind: str, changes: dict[str, Any], comment: str, dry_run: bool) -> None:
    import tomlkit

    from fs_common.errors import Code, EmberError

    for tries in range(1, TRIES_MAX + 1):
        current = await api.read("GetConfig", kind=kind)
        document = tomlkit.parse(current.text)
        for key, value in changes.items():
            if value is not None:
                document[key] = value
            elif key in document:
                del document[key]
            else:
                raise Failure(f"the configuration of {kind} does not set {key}: nothing was changed")
        text = tomlkit.dumps(document)
        try:
            await _set(api, kind, text, comment, current.version, dry_run)
            return
        except EmberError as error:
            if error.code is not Code.INVALID or tries == TRIES_MAX:
                raise
            if (await api.read("GetConfig", kind=kind)).version == current.version:
                raise  # nobody has changed it meanwhile: it is the text that is wrong


async def _set(api: ManagerApi, kind: str, text: str, comment: str, expected: int, dry_run: bool) -> None:
    """Set a text, and say what becomes of it."""
    import tomllib

    before = {each.key: each.value for each in (await _settings(api, kind, 0))[1]}
    version = await api.order(
        "SetConfig", kind=kind, text=text, comment=comment, checked=True, expected=expected, dry_run=dry_run
    )
    if dry_run:
        put(f"{kind}: valid; nothing was changed (version {version.version} stays)")
        put(text, end="" if text.endswith("\n") or not text else "\n")
        return
    put(f"{kind}: version {version.version}")
    waiting = []
    set_here = tomllib.loads(text)
    for each in (await _settings(api, kind, 0))[1]:
        if before.get(each.key) != each.value:
            put(f"  {each.key} = {each.value}, before {before.get(each.key)}")
            if not each.live:
                waiting.append(each.key)
        elif each.key in set_here and each.origin == "file":
            put(f"  {each.key}: the metadata server's own file says {each.value}, and that counts")
    if waiting:
        put(f"  at the next start of each daemon: {', '.join(waiting)} (`emberfs config status`)")


@config.command()
@kind_argument
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Take the text from here instead of an editor; - is standard input.",
)
@comment_option
@dry_run_option
@cluster_option
def edit(kind: str, path: Path | None, comment: str, dry_run: bool, cluster: str) -> None:
    """Edit a configuration as a whole, in $EDITOR.

    Whoever changes it meanwhile is not overwritten: the command says so, and nothing is set.

    \b
    Example:
      emberfs config edit storage
      emberfs config edit storage --file storage.toml --dry-run
    """

    async def change() -> None:
        async with Administered(cluster) as api:
            current = await api.read("GetConfig", kind=kind)
            text = _edited(kind, current.text) if path is None else _read(path)
            if text == current.text:
                put(f"{kind}: nothing was changed")
                return
            await _set(api, kind, text, comment, current.version, dry_run)

    run(change())


@config.command()
@kind_argument
@click.argument("version", type=click.IntRange(1))
@comment_option
@dry_run_option
@cluster_option
def rollback(kind: str, version: int, comment: str, dry_run: bool, cluster: str) -> None:
    """Make the text of an older version the newest one.

    \b
    Example:
      emberfs config history storage
      emberfs config rollback storage 3
    """

    async def change() -> None:
        async with Administered(cluster) as api:
            current = await api.read("GetConfig", kind=kind)
            old = await api.read("GetConfig", kind=kind, version=version)
            await _set(api, kind, old.text, comment or f"back to version {version}", current.version, dry_run)

    run(change())


# --- small things -----------------------------------------------------------------------------------------------------


async def _settings(api: ManagerApi, kind: str, node: int) -> "tuple[int, list[Setting], ConfigReport]":
    """Newest version, every key, and how the daemon stands to it."""
    from fs_common.admin_records import setting_record
    from fs_common.control_records import config_report_record

    reply = await api.read("ListSettings", kind=kind, node=node)
    return reply.version, [setting_record(each) for each in reply.settings], config_report_record(reply.report)


def _split(key: str) -> tuple[str, str]:
    kind, dot, name = key.partition(".")
    if not dot or kind not in KINDS or not name:
        raise Usage(f"{key!r} is not KIND.KEY, with {' or '.join(KINDS)} as KIND")
    return kind, name


def _value(name: str, text: str) -> Any:
    """A number, a truth value, or text; of bytes also with a unit."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    if name.endswith(("_bytes", "_bytes_per_s")):
        return Size().convert(text, None, None)
    return text


def _words(changes: dict[str, Any]) -> str:
    """A comment where none was given."""
    return ", ".join(f"{key}={value}" if value is not None else f"without {key}" for key, value in changes.items())


def _edited(kind: str, text: str) -> str:
    note = f"# The cluster's configuration of {kind} daemons. `emberfs config show {kind} --origin` lists all keys.\n"
    edited = click.edit(text or note, extension=".toml", require_save=False)
    if edited is None:
        raise Failure("the editor has failed; nothing was changed")
    return edited if edited != note else text


def _read(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{path}: is not UTF-8") from None


def _settings_json(version: int, settings: "list[Setting]") -> dict[str, Any]:
    import tomllib

    def plain(text: str) -> Any:
        return tomllib.loads(f"value = {text}")["value"]

    return {
        "version": version,
        "settings": {
            each.key: {
                "value": plain(each.value),
                "built_in": plain(each.built_in),
                "origin": each.origin,
                "live": each.live,
                "waiting": each.waiting,
            }
            for each in settings
        },
    }


def _report_json(report: "ConfigReport") -> dict[str, Any]:
    return {
        "version": report.version,
        "status": report.status.name.lower(),
        "reason": report.reason,
        "waiting": report.waiting,
    }


def _version_json(version: "ConfigVersion") -> dict[str, Any]:
    return {
        "kind": version.kind,
        "version": version.version,
        "set_ms": version.set_ms,
        "comment": version.comment,
        "text": version.text,
    }
