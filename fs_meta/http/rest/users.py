"""Users and their tokens. The text of a token is in one answer, that to its making, and nowhere else."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from fs_common.errors import Code, EmberError
from fs_common.security.identity import STORAGE
from fs_common.security.passes import GROUPS_MAX
from fs_common.security.tokens import parse_token
from fs_meta.http.backend import Backend
from fs_meta.http.callers import Administrator, Reader, TheBackend
from fs_meta.http.problems import responses
from fs_meta.http.rest.names import time_of
from fs_meta.http.rest.paging import LIMIT_DEFAULT, Limit
from fs_meta.users.records import TokenRecord, UserFlags
from fs_meta.users.users import ID_MAX, TokenView, UserView

router = APIRouter(tags=["users"])

YEARS_S: Final = 100 * 366 * 86_400
_NAME: Final = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
_TOKEN_ID: Final = "^[0-9a-f]{8}$"

Name = Annotated[str, Path(pattern=_NAME, examples=["alice"])]
TokenId = Annotated[str, Path(pattern=_TOKEN_ID, description="Its 8 hex digits, which are no secret.")]
Number = Annotated[int, Field(ge=0, le=ID_MAX)]


class NewUser(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=_NAME, examples=["alice"])
    uid: Number
    gid: Number
    groups: list[Number] = Field(default=[], max_length=GROUPS_MAX)
    admin: bool = Field(default=False, description="May administer the cluster.")
    root: bool = Field(default=False, description="May act as any user that a request names.")


class UserShown(BaseModel):
    name: str
    uid: int
    gid: int
    groups: list[int]
    admin: bool
    root: bool
    made: str
    tokens: int = Field(description="How many there are.")


class UserPage(BaseModel):
    users: list[UserShown] = Field(description="By name.")
    next: str | None = Field(description="`after` of the following page; null: this is the last one.")


class RemovedUser(BaseModel):
    name: str
    tokens: list[str] = Field(description="Ids of those that went with it.")


class Caller(BaseModel):
    """Who the request is from."""

    security: bool = Field(description="False: nobody has to say who he is, and everybody may administer.")
    name: str = Field(description="Of the user; empty without security.")
    uid: int | None
    gid: int | None
    groups: list[int]
    admin: bool
    token: str = Field(description="Id of the token that was sent; empty without security.")


class NewToken(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lasts_s: int | None = Field(default=None, ge=1, le=YEARS_S, description="For how long; null: it never expires.")


class NewUserToken(NewToken):
    kind: Literal["plain", "mount", "squashing mount"] = Field(
        default="plain",
        description="plain: it acts as its user. mount: it acts as the user that a mount's kernel names, and"
        " administers nothing. squashing mount: the same, and who comes as root acts as nobody.",
    )


class NewStorageToken(NewToken):
    node: int = Field(default=0, ge=0, le=2**32 - 1, description="For this node alone; 0: for any.")


class TokenText(BaseModel):
    token: str = Field(description="Its id, which is no secret.")
    text: str = Field(description="What it is shown with. It is not shown again.")


class TokenShown(BaseModel):
    token: str = Field(description="Its id.")
    user: str = Field(description="Whose; empty: of storage daemons.")
    kind: Literal["plain", "mount", "squashing mount", "storage"]
    node: int | None = Field(description="Of a storage daemon's: the node that it is for; null: any.")
    made: str
    expires: str | None = Field(description="Null: never.")


class TokenList(BaseModel):
    tokens: list[TokenShown] = Field(description="The oldest first. There are few: six of each kind at most.")


class TokenRotation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    grace_s: int = Field(default=3600, ge=0, le=YEARS_S, description="For how long the old one is valid still.")


class Revoked(BaseModel):
    token: str


class NewKey(BaseModel):
    key: int = Field(description="Number of the newest key.")


def _shown(view: UserView) -> UserShown:
    flags = view.record.flags
    return UserShown(
        name=view.name,
        uid=view.record.uid,
        gid=view.record.gid,
        groups=view.record.groups,
        admin=bool(flags & UserFlags.ADMIN),
        root=bool(flags & UserFlags.ROOT),
        made=time_of(view.record.created_ns),
        tokens=view.tokens,
    )


def _kind(record: TokenRecord) -> Literal["plain", "mount", "squashing mount", "storage"]:
    if record.role == STORAGE:
        return "storage"
    if not record.mount:
        return "plain"
    return "squashing mount" if record.squash_root else "mount"


def _token(view: TokenView) -> TokenShown:
    record = view.record
    return TokenShown(
        token=view.id,
        user=record.user,
        kind=_kind(record),
        node=record.node or None,
        made=time_of(record.created_ns),
        expires=time_of(record.expires_ns) if record.expires_ns else None,
    )


async def _user(backend: Backend, name: str) -> UserShown:
    for view in await backend.look(backend.users.list_users):
        if view.name == name:
            return _shown(view)
    raise EmberError(Code.NOT_FOUND, f"there is no user {name!r}")


@router.get("/caller", responses=responses())
async def show_caller(backend: TheBackend, caller: Reader) -> Caller:
    """Who the token that you send stands for."""
    if caller is None:
        return Caller(security=False, name="", uid=None, gid=None, groups=[], admin=True, token="")
    user = caller.user
    return Caller(
        security=True,
        name=caller.name,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        admin=caller.admin,
        token=caller.token,
    )


@router.get("/users", responses=responses())
async def list_users(
    backend: TheBackend,
    caller: Administrator,
    after: Annotated[
        str, Query(pattern=r"^[A-Za-z0-9_.-]{0,64}$", description="`next` of the page before; empty: the first page.")
    ] = "",
    limit: Limit = LIMIT_DEFAULT,
) -> UserPage:
    """A page of the users, by name. For administrators."""
    found = [view for view in await backend.look(backend.users.list_users) if view.name > after]
    page = [_shown(view) for view in found[:limit]]
    return UserPage(users=page, next=page[-1].name if len(found) > limit else None)


@router.post("/users", status_code=201, responses=responses(409))
async def add_user(backend: TheBackend, caller: Administrator, user: NewUser) -> UserShown:
    """Make a user. He has no token yet."""
    flags = (UserFlags.ADMIN if user.admin else UserFlags.NONE) | (UserFlags.ROOT if user.root else UserFlags.NONE)
    await backend.ask(lambda: backend.users.add(user.name, user.uid, user.gid, user.groups, flags))
    return await _user(backend, user.name)


@router.get("/users/{name}", responses=responses(404))
async def show_user(backend: TheBackend, caller: Administrator, name: Name) -> UserShown:
    """One user."""
    return await _user(backend, name)


@router.delete("/users/{name}", responses=responses(404))
async def remove_user(backend: TheBackend, caller: Administrator, name: Name) -> RemovedUser:
    """Remove a user and all of his tokens. What is connected with one of them is cut off. His files stay."""
    return RemovedUser(name=name, tokens=await backend.ask(lambda: backend.users.remove(name)))


@router.get("/tokens", responses=responses())
async def list_tokens(
    backend: TheBackend,
    caller: Administrator,
    user: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_.-]{0,64}$", description="Only his; empty: those of storage daemons.")
    ] = None,
) -> TokenList:
    """The tokens: ids, and what each is for."""
    return TokenList(tokens=[_token(view) for view in await backend.look(lambda: backend.users.list_tokens(user))])


@router.post("/users/{name}/tokens", status_code=201, responses=responses(404, 409))
async def issue_token(backend: TheBackend, caller: Administrator, name: Name, token: NewUserToken) -> TokenText:
    """Make a token of a user. Its text is in this answer and nowhere else: keep it where only its user can read it."""
    mount, squash_root = token.kind != "plain", token.kind == "squashing mount"
    text = await backend.ask(
        lambda: backend.users.issue(name, lasts_s=token.lasts_s, mount=mount, squash_root=squash_root)
    )
    return TokenText(token=parse_token(text).id, text=text)


@router.post("/tokens", status_code=201, responses=responses(409))
async def issue_storage_token(backend: TheBackend, caller: Administrator, token: NewStorageToken) -> TokenText:
    """Make a token of a storage daemon. Its text is in this answer and nowhere else."""
    text = await backend.ask(lambda: backend.users.issue_for_daemon(token.node, lasts_s=token.lasts_s))
    return TokenText(token=parse_token(text).id, text=text)


@router.delete("/tokens/{token}", responses=responses(404))
async def revoke_token(backend: TheBackend, caller: Administrator, token: TokenId) -> Revoked:
    """Make a token worth nothing, at once: what is connected with it is cut off."""
    await backend.ask(lambda: backend.users.revoke(token))
    return Revoked(token=token)


@router.post("/tokens/{token}/rotation", status_code=201, responses=responses(404, 409))
async def rotate_token(
    backend: TheBackend, caller: Administrator, token: TokenId, rotation: TokenRotation
) -> TokenText:
    """Make a token that takes the place of another one, which is valid for a while still."""
    text = await backend.ask(lambda: backend.users.rotate(token, grace_s=rotation.grace_s))
    return TokenText(token=parse_token(text).id, text=text)


@router.post("/keys/rotation", status_code=201, responses=responses(409))
async def rotate_keys(backend: TheBackend, caller: Administrator) -> NewKey:
    """Make a new key under which the metadata service vouches for callers. What the last but one vouched for is void:
    who has such a pass gets a new one by itself."""
    users = backend.users
    if not users.enabled:
        raise EmberError(Code.INVALID, "security is off: the metadata service vouches for nobody")
    await backend.ask(lambda: users.rotate_keys(backend.context.service_time.now_ns()))
    return NewKey(key=await backend.look(lambda: users.vouching.record.ring.newest.id))
