"""Users and tokens over gRPC: a part of the service Administration of `fs_common/control.proto`.

Called by: `grpc_administration`.
"""

from typing import Any

from fs_common import control_pb2 as pb
from fs_common import control_pb2_grpc
from fs_common.security.tokens import parse_token
from fs_meta.manager.grpc_errors import answering
from fs_meta.users.records import UserFlags
from fs_meta.users.users import TokenView, Users, UserView


class UserCalls(control_pb2_grpc.AdministrationServicer):  # type: ignore[misc]
    """Each method is one call of `Users`."""

    def __init__(self, users: Users) -> None:
        self._users = users

    @answering
    async def ListUsers(self, request: Any) -> Any:
        return pb.ListUsersReply(
            users=[_user_message(view) for view in self._users.list_users()], security=self._users.enabled
        )

    @answering
    async def AddUser(self, request: Any) -> Any:
        flags = UserFlags.ADMIN if request.admin else UserFlags.NONE
        flags |= UserFlags.ROOT if request.root else UserFlags.NONE
        record = await self._users.add(request.name, request.uid, request.gid, list(request.groups), flags)
        return _user_message(UserView(request.name, record, 0))

    @answering
    async def RemoveUser(self, request: Any) -> Any:
        return pb.RemoveUserReply(tokens=await self._users.remove(request.name))

    @answering
    async def ListTokens(self, request: Any) -> Any:
        views = self._users.list_tokens(request.user or None)
        return pb.ListTokensReply(tokens=[_token_message(view) for view in views])

    @answering
    async def IssueToken(self, request: Any) -> Any:
        lasts_s = request.lasts_s or None
        if request.user:
            text = await self._users.issue(
                request.user, lasts_s=lasts_s, mount=request.mount, squash_root=request.squash_root
            )
        else:
            text = await self._users.issue_for_daemon(request.node, lasts_s=lasts_s)
        return self._issued(text)

    @answering
    async def RevokeToken(self, request: Any) -> Any:
        await self._users.revoke(request.id)
        return pb.RevokeTokenReply()

    @answering
    async def RotateToken(self, request: Any) -> Any:
        return self._issued(await self._users.rotate(request.id, grace_s=request.grace_s))

    @answering
    async def RotateKeys(self, request: Any) -> Any:
        await self._users.rotate_keys(self._users.vouching.record.rotated_ns)
        return pb.RotateKeysReply(key=self._users.vouching.record.ring.newest.id)

    def _issued(self, text: str) -> Any:
        return pb.IssuedToken(token=_token_message(self._users.token(parse_token(text).id)), text=text)


def _user_message(view: UserView) -> Any:
    record = view.record
    return pb.UserView(
        name=view.name,
        uid=record.uid,
        gid=record.gid,
        groups=record.groups,
        admin=bool(record.flags & UserFlags.ADMIN),
        root=bool(record.flags & UserFlags.ROOT),
        created_ns=record.created_ns,
        tokens=view.tokens,
    )


def _token_message(view: TokenView) -> Any:
    record = view.record
    return pb.TokenView(
        id=view.id,
        user=record.user,
        node=record.node,
        mount=record.mount,
        squash_root=record.squash_root,
        created_ns=record.created_ns,
        expires_ns=record.expires_ns,
    )
