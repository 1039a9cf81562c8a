"""The cluster's configuration: versions of a text for each kind of daemon, and what its keys come to."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from fs_common.errors import Code, EmberError
from fs_common.records.cluster_config import ConfigVersion, Setting
from fs_common.settings import STORAGE
from fs_meta.http.backend import Backend
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.names import time_of
from fs_meta.http.rest.paging import ID_MAX, Page
from fs_meta.manager.cluster_config import COMMENT_LENGTH_MAX
from fs_meta.manager.setting_views import settings_of

router = APIRouter(tags=["config"])

Kind = Literal["meta", "storage", "mount"]
VERSIONS_MAX = 50
TEXT_LENGTH_MAX = 65_536


class Version(BaseModel):
    """One version of the text for one kind of daemon."""

    kind: Kind
    version: int = Field(description="From 1; 0: nothing was ever configured.")
    text: str = Field(description="TOML.", examples=["scrub_interval_h = 336\n"])
    comment: str
    made: str | None = Field(description="Null: it was not.")


class VersionPage(Page):
    versions: list[Version] = Field(description="Newest first.")


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        max_length=TEXT_LENGTH_MAX,
        description="TOML: all of it, as it takes the place of what there is.",
        examples=['log_level = "debug"\n'],
    )
    comment: str = Field(default="", max_length=COMMENT_LENGTH_MAX, description="For those who look at the versions.")
    expected: int | None = Field(
        default=None, ge=0, le=ID_MAX, description="Only if that is the newest version; null: whatever is."
    )
    dry_run: bool = Field(default=False, description="Only look whether it is right.")


class SettingView(BaseModel):
    key: str
    value: str = Field(description="TOML.")
    built_in: str = Field(description="What it is where nobody says anything: TOML.")
    origin: Literal["built-in", "cluster", "file"] = Field(description="Who says so.")
    live: bool = Field(description="A change takes effect at once; false: when the daemon is started again.")
    waiting: bool = Field(description="It has changed, and the daemon has not been started since.")


class SettingList(BaseModel):
    kind: Kind
    version: int = Field(description="Of the cluster's configuration.")
    settings: list[SettingView]


def _version(found: ConfigVersion) -> Version:
    return Version(
        kind=found.kind,  # type: ignore[arg-type]
        version=found.version,
        text=found.text,
        comment=found.comment,
        made=time_of(found.set_ms * 1_000_000) if found.version else None,
    )


@router.get("/config/{kind}", responses=responses(409))
async def show_config(
    backend: TheBackend,
    caller: Reader,
    kind: Kind,
    version: Annotated[int, Query(ge=0, le=ID_MAX, description="Which one; 0: the newest.")] = 0,
) -> Version:
    """The configuration of a kind of daemon, as it is or was."""
    return _version(await backend.ask(lambda: backend.manager.configuration().version(kind, version)))


@router.put("/config/{kind}", responses=responses(409))
async def set_config(backend: TheBackend, caller: Administrator, kind: Kind, change: Change) -> Version:
    """Set the configuration of a kind of daemon. All of them are told at once; `GET /nodes` says how they took it."""

    def look() -> ConfigVersion:
        config = backend.manager.configuration()
        config.validate(kind, change.text, change.comment)
        current = config.current(kind)
        if change.expected is not None and change.expected != current.version:
            raise EmberError(
                Code.INVALID,
                f"the configuration of {kind} is at version {current.version} by now, not {change.expected}: look at"
                " it, and set it again",
            )
        return current

    current = await backend.look(look)
    if change.dry_run:
        return Version(kind=kind, version=current.version, text=change.text, comment=change.comment, made=None)
    made = await backend.ask(lambda: backend.manager.set_config(kind, change.text, change.comment, change.expected))
    return _version(made)


@router.get("/config/{kind}/versions", responses=responses())
async def list_config_versions(
    backend: TheBackend,
    caller: Reader,
    kind: Kind,
    after: Annotated[int, Query(ge=0, le=ID_MAX, description="`next` of the page before; 0: the first page.")] = 0,
    limit: Annotated[int, Query(ge=1, le=VERSIONS_MAX, description="Versions of a page.")] = VERSIONS_MAX,
) -> VersionPage:
    """The versions that there were, newest first."""
    found = await backend.ask(lambda: backend.manager.configuration().versions(kind, after, limit + 1))
    page = [_version(each) for each in found[:limit]]
    return VersionPage(versions=page, next=page[-1].version if len(found) > limit else None)


@router.get("/config/{kind}/settings", responses=responses(404, 409))
async def list_settings(
    backend: TheBackend,
    caller: Reader,
    kind: Kind,
    node: Annotated[int, Query(ge=0, le=ID_MAX, description="As they are on this storage node; 0: for all.")] = 0,
) -> SettingList:
    """Every key: its value, and who says so."""
    version, settings = await backend.look(lambda: _settings(backend, kind, node))
    return SettingList(
        kind=kind,
        version=version,
        settings=[
            SettingView(
                key=each.key,
                value=each.value,
                built_in=each.built_in,
                origin=each.origin,  # type: ignore[arg-type]
                live=each.live,
                waiting=each.waiting,
            )
            for each in settings
        ],
    )


def _settings(backend: Backend, kind: Kind, node: int) -> tuple[int, list[Setting]]:
    """On the service's loop."""
    config = backend.manager.configuration()
    current, report = config.current(kind), config.own_report(kind)
    if node:
        if kind != STORAGE:
            raise EmberError(Code.INVALID, f"nodes are storage daemons: there is no node of kind {kind!r}")
        if node not in backend.manager.members():
            raise EmberError(Code.NODE_UNKNOWN, f"there is no node {node}")
        report = backend.growth.node(node).config
    return current.version, settings_of(kind, current.text, report)
