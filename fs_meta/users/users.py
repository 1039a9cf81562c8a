"""Users and tokens: who exists, and whom a token stands for. Everything is in memory; changes are stored first.

A token is plain (it acts as its user), a mount's, or a daemon's. Of each kind a user (or node) has at most one that
never expires and five that do, so that what forgotten scripts leave behind stays few enough to be looked at.

Invariants:
* every token's user exists;
* whoever was revoked is not found any more when the call returns, and `revoked` has been called with it;
* no secret is kept, logged or shown: `issue` and `rotate` return the text of a token once.

Changes run one at a time (`_changing`); `identify` and the lists suspend nowhere.

Called by: the metadata service's planes (`identify`), the manager's calls and the first start (all else).
Page: docs/SECURITY.md.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from fs_common.errors import Code, EmberError
from fs_common.records.meta import User
from fs_common.security.identity import CLIENT, STORAGE, Grants, Identity
from fs_common.security.keys import KEY_BYTES, same
from fs_common.security.passes import GROUPS_MAX
from fs_common.security.tokens import ID_BYTES, SECRET_BYTES, make_token, parse_token, secret_digest, token_text
from fs_meta.kv.interface import KeyValueStore, Transaction
from fs_meta.users import records
from fs_meta.users.records import TokenRecord, UserFlags, UserRecord, VouchingRecord
from fs_meta.users.vouching import Vouching

_log = logging.getLogger(__name__)

LASTS_S_MAX = 100 * 366 * 86_400
"""More is no time that anybody means, and one that no record holds in the end."""
EXPIRING_MAX = 5
"""Of one kind and user (or node): those that expire. Beside them one that does not."""
ID_MAX = 2**32 - 2
"""Of users and groups; one more means "none" to Linux."""
ADMINISTRATOR = "admin"
"""The user that the first start makes."""
ADMIN_TOKEN = "admin.token"
MOUNT_TOKEN = "mount.token"
STORAGE_TOKEN = "storage.token"
FIRST_TOKENS = (ADMIN_TOKEN, MOUNT_TOKEN, STORAGE_TOKEN)
"""Files that the first start writes."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_UNKNOWN = "nobody knows this token here: it was revoked, or has expired, or is another cluster's"


class UserView(NamedTuple):
    name: str
    record: UserRecord
    tokens: int


class TokenView(NamedTuple):
    id: str
    record: TokenRecord


class Users:
    """See the module. `load` first."""

    def __init__(
        self,
        kv: KeyValueStore,
        now_ns: Callable[[], int],
        random: Callable[[int], bytes] = os.urandom,
        *,
        enabled: bool = True,
    ) -> None:
        self.enabled = enabled
        """Whether callers have to say who they are."""
        self.vouching = Vouching()
        self.revoked: list[Callable[[frozenset[str]], None]] = []
        """Called with the ids of tokens that are not valid any more."""
        self._kv = kv
        self._now_ns = now_ns
        """Wall clock: what expires does so by it."""
        self._random = random
        self._users: dict[str, UserRecord] = {}
        self._tokens: dict[str, TokenRecord] = {}
        self._identities: dict[str, Identity] = {}
        """By token, made when first asked."""
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read what is stored. Raises `CorruptUsers`."""

        async def read(txn: Transaction) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]], bytes | None]:
            return (
                await txn.range(*records.USERS),
                await txn.range(*records.TOKENS),
                await txn.get(records.VOUCHING_KEY),
            )

        users, tokens, vouching = await self._kv.read(read)
        self._users = {records.split_user_key(key): records.decode(UserRecord, value) for key, value in users}
        self._tokens = {records.split_token_key(key): records.decode(TokenRecord, value) for key, value in tokens}
        if vouching is not None:
            self.vouching.adopt(records.decode(VouchingRecord, vouching))

    async def begin(self, write: Callable[[dict[str, str]], None], now_ns: int = 0) -> bool:
        """What a cluster needs before anybody can be let in, once: a key, an administrator, and tokens for him, for
        storage daemons and for mounts. False: it has them.

        `now_ns`: the service's time. `write` puts each text into a file of the given name. That comes first: what a
        crash leaves then are files with tokens that nobody knows, which the next start replaces. Commit point: the one
        transaction. Raises what `write` does.
        """
        async with self._changing:
            if self.vouching.version:
                return False
            created_ns = self._now_ns()
            tokens = {name: make_token(self._random(ID_BYTES + SECRET_BYTES)) for name in FIRST_TOKENS}
            write({name: token_text(token) for name, token in tokens.items()})
            user = UserRecord(0, 0, [], int(UserFlags.ADMIN | UserFlags.ROOT), created_ns)
            kinds = {
                ADMIN_TOKEN: TokenRecord(b"", created_ns, 0, ADMINISTRATOR),
                MOUNT_TOKEN: TokenRecord(b"", created_ns, 0, ADMINISTRATOR, mount=True),
                STORAGE_TOKEN: TokenRecord(b"", created_ns, 0, "", STORAGE),
            }
            made = {
                token.id: msgspec.structs.replace(kinds[name], digest=secret_digest(token))
                for name, token in tokens.items()
            }
            vouching = self.vouching.rotated(self._random(KEY_BYTES), now_ns)
            changes: dict[bytes, bytes | None] = {
                records.token_key(token): records.encode(record) for token, record in made.items()
            }
            changes[records.user_key(ADMINISTRATOR)] = records.encode(user)
            changes[records.VOUCHING_KEY] = records.encode(vouching)
            await self._store(changes)
            self._users[ADMINISTRATOR] = user
            self._tokens |= made
            self.vouching.adopt(vouching)
        return True

    async def renew_administrator(self, write: Callable[[dict[str, str]], None]) -> None:
        """A new endless token of the administrator, where the one before was lost; that is revoked. `write` as in
        `begin`. Raises NOT_FOUND: the administrator was removed, and others administer."""
        async with self._changing:
            self._user(ADMINISTRATOR)
            old = [
                token
                for token, record in self._tokens.items()
                if record.user == ADMINISTRATOR and not record.mount and not record.expires_ns
            ]
            token = make_token(self._random(ID_BYTES + SECRET_BYTES))
            write({ADMIN_TOKEN: token_text(token)})
            record = TokenRecord(secret_digest(token), self._now_ns(), 0, ADMINISTRATOR)
            await self._drop(old, {records.token_key(token.id): records.encode(record)})
            self._tokens[token.id] = record

    # Who is it

    def identify(self, token: str) -> Identity:
        """See `fs_common.security.identity.Authenticator`."""
        shown = parse_token(token)
        record = self._tokens.get(shown.id)
        if record is None or not same(record.digest, secret_digest(shown)):
            raise EmberError(Code.UNAUTHENTICATED, _UNKNOWN)
        if record.expires_ns and record.expires_ns <= self._now_ns():
            raise EmberError(Code.UNAUTHENTICATED, f"token {shown.id} has expired; an administrator issues a new one")
        identity = self._identities.get(shown.id)
        if identity is None:
            identity = self._identities[shown.id] = self._identity(shown.id, record)
        return identity

    def _identity(self, token: str, record: TokenRecord) -> Identity:
        if record.role == STORAGE:
            return Identity(STORAGE, node=record.node, token=token)
        user = self._users[record.user]
        grants = Grants.NONE
        if record.mount:
            grants = Grants.ANY_USER | (Grants.SQUASH_ROOT if record.squash_root else Grants.NONE)
        else:
            grants |= Grants.ADMIN if user.flags & UserFlags.ADMIN else Grants.NONE
            grants |= Grants.ANY_USER if user.flags & UserFlags.ROOT else Grants.NONE
        return Identity(CLIENT, b"", record.user, User(user.uid, user.gid, list(user.groups)), 0, int(grants), token)

    # What there is

    def list_users(self) -> list[UserView]:
        """By name."""
        counts: dict[str, int] = {}
        for token in self._tokens.values():
            counts[token.user] = counts.get(token.user, 0) + 1
        return [UserView(name, record, counts.get(name, 0)) for name, record in sorted(self._users.items())]

    def list_tokens(self, user: str | None = None) -> list[TokenView]:
        """Oldest first: those of `user` ("": of daemons), or all."""
        found = [
            TokenView(token, record) for token, record in self._tokens.items() if user is None or record.user == user
        ]
        return sorted(found, key=lambda view: (view.record.created_ns, view.id))

    def token(self, token: str) -> TokenView:
        """Raises NOT_FOUND."""
        return TokenView(token, self._token(token))

    # Changes

    async def add(
        self, name: str, uid: int, gid: int, groups: Sequence[int] = (), flags: UserFlags = UserFlags.NONE
    ) -> UserRecord:
        """A new user. Raises INVALID, EXISTS."""
        _check_user(name, uid, gid, groups)
        async with self._changing:
            if name in self._users:
                raise EmberError(Code.EXISTS, f"user {name!r} exists; remove it first (its tokens go with it)")
            record = UserRecord(uid, gid, sorted(set(groups)), int(flags), self._now_ns())
            await self._store({records.user_key(name): records.encode(record)})
            self._users[name] = record
        _log.info("user %s added: uid %d, gid %d, groups %s, %s", name, uid, gid, record.groups, flags)
        return record

    async def remove(self, name: str) -> list[str]:
        """A user and all his tokens, whose ids it returns. Raises NOT_FOUND."""
        async with self._changing:
            self._user(name)
            tokens = [token for token, record in self._tokens.items() if record.user == name]
            await self._drop(tokens, {records.user_key(name): None})
            del self._users[name]
        _log.info("user %s removed, with %d tokens", name, len(tokens))
        return tokens

    async def issue(
        self,
        user: str,
        *,
        lasts_s: int | None,
        mount: bool = False,
        squash_root: bool = False,
    ) -> str:
        """The text of a new token of `user`; `lasts_s` None: it never expires. Raises NOT_FOUND, INVALID (there are too
        many of its kind)."""
        async with self._changing:
            self._user(user)
            if squash_root and not mount:
                raise EmberError(Code.INVALID, "only a mount's token squashes root: any other acts as its own user")
            return await self._issue(
                TokenRecord(b"", self._now_ns(), 0, user, CLIENT, 0, mount, squash_root), lasts_s, ""
            )

    async def issue_for_daemon(self, node: int, *, lasts_s: int | None) -> str:
        """The text of a new token of storage node `node`; 0: of any. Raises INVALID."""
        if not 0 <= node < 2**32:
            raise EmberError(Code.INVALID, f"node {node}: 0 (any) or a node's number")
        async with self._changing:
            return await self._issue(TokenRecord(b"", self._now_ns(), 0, "", STORAGE, node), lasts_s, "")

    async def revoke(self, token: str) -> None:
        """No connection and no pass of it is good for anything any more. Raises NOT_FOUND."""
        async with self._changing:
            self._token(token)
            await self._drop([token], {})
        _log.info("token %s revoked", token)

    async def rotate(self, token: str, *, grace_s: int) -> str:
        """The text of a new token like `token`, that lasts as long as that did from its issue on; the old one is valid
        for `grace_s` more. Raises NOT_FOUND, INVALID."""
        if not 0 <= grace_s <= LASTS_S_MAX:
            raise EmberError(Code.INVALID, f"a token that is valid for {grace_s} s more: 0 to {LASTS_S_MAX}")
        async with self._changing:
            old = self._token(token)
            lasts_s = None if not old.expires_ns else max((old.expires_ns - old.created_ns) // 10**9, 1)
            until_ns = self._now_ns() + grace_s * 10**9
            text = await self._issue(
                msgspec.structs.replace(old, created_ns=self._now_ns()), lasts_s, token, until_ns=until_ns
            )
        _log.info("token %s rotated: it is valid for %d s more", token, grace_s)
        return text

    async def rotate_keys(self, now_ns: int) -> None:
        """A new key; passes of the last but one are void. Raises BUSY."""
        async with self._changing:
            record = self.vouching.rotated(self._random(KEY_BYTES), now_ns)
            await self._store({records.VOUCHING_KEY: records.encode(record)})
            self.vouching.adopt(record)
        _log.info("passes are made under key %d once every storage daemon has it", record.ring.newest.id)

    async def expire(self) -> None:
        """Drop what has expired. Called now and then."""
        now_ns = self._now_ns()
        if not any(record.expires_ns and record.expires_ns <= now_ns for record in self._tokens.values()):
            return
        async with self._changing:
            over = [
                token for token, record in self._tokens.items() if record.expires_ns and record.expires_ns <= now_ns
            ]
            await self._drop(over, {})
        _log.info("tokens expired: %s", ", ".join(over))

    # Inside, under `_changing`

    async def _issue(self, like: TokenRecord, lasts_s: int | None, replaces: str, *, until_ns: int = 0) -> str:
        if lasts_s is not None and not 1 <= lasts_s <= LASTS_S_MAX:
            raise EmberError(Code.INVALID, f"a token that lasts {lasts_s} s: 1 to {LASTS_S_MAX}, or for ever")
        if not replaces:
            self._require_room(like, endless=lasts_s is None)
        while (token := make_token(self._random(ID_BYTES + SECRET_BYTES))).id in self._tokens:
            pass  # ids are random: met once in a million tokens
        expires_ns = 0 if lasts_s is None else like.created_ns + lasts_s * 10**9
        record = msgspec.structs.replace(like, digest=secret_digest(token), expires_ns=expires_ns)
        changes: dict[bytes, bytes | None] = {records.token_key(token.id): records.encode(record)}
        old: TokenRecord | None = None
        if replaces:
            old = self._tokens[replaces]
            if not old.expires_ns or until_ns < old.expires_ns:
                old = msgspec.structs.replace(old, expires_ns=until_ns)
                changes[records.token_key(replaces)] = records.encode(old)
        await self._store(changes)
        self._tokens[token.id] = record
        if old is not None:
            self._tokens[replaces] = old
        _log.info("token %s issued for %s", token.id, record.user or f"storage node {record.node or 'any'}")
        return token_text(token)

    def _require_room(self, like: TokenRecord, *, endless: bool) -> None:
        present = [
            token
            for token, record in self._tokens.items()
            if (record.user, record.role, record.node, record.mount) == (like.user, like.role, like.node, like.mount)
            and (not record.expires_ns) == endless
        ]
        if len(present) >= (1 if endless else EXPIRING_MAX):
            kind = "mount token" if like.mount else "token"
            number = f"a {kind} that never expires" if endless else f"{EXPIRING_MAX} {kind}s that expire"
            raise EmberError(
                Code.EXISTS,
                f"{like.user or 'the storage daemon'} has {number}: rotate or revoke one of {', '.join(present)}",
            )

    async def _drop(self, tokens: Sequence[str], changes: dict[bytes, bytes | None]) -> None:
        changes = changes | {records.token_key(token): None for token in tokens}
        vouching = self.vouching.without(tokens) if tokens else None
        if vouching is not None:
            changes[records.VOUCHING_KEY] = records.encode(vouching)
        await self._store(changes)
        for token in tokens:
            del self._tokens[token]
            self._identities.pop(token, None)
        if vouching is not None:
            self.vouching.adopt(vouching)
            for told in self.revoked:
                told(frozenset(tokens))

    async def _store(self, changes: dict[bytes, bytes | None]) -> None:
        async def write(txn: Transaction) -> None:
            for key, value in changes.items():
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)

        await self._kv.transact(write)

    def _user(self, name: str) -> UserRecord:
        record = self._users.get(name)
        if record is None:
            raise EmberError(Code.NOT_FOUND, f"there is no user {name!r}")
        return record

    def _token(self, token: str) -> TokenRecord:
        record = self._tokens.get(token)
        if record is None:
            raise EmberError(Code.NOT_FOUND, f"there is no token {token!r}: give the 8 hex digits of its id")
        return record


def _check_user(name: str, uid: int, gid: int, groups: Sequence[int]) -> None:
    if not _NAME.fullmatch(name):
        raise EmberError(Code.INVALID, f"user name {name!r}: 1 to 64 letters, digits, '_', '-' and '.'")
    for what, number in (("uid", uid), ("gid", gid), *(("group", group) for group in groups)):
        if not 0 <= number <= ID_MAX:
            raise EmberError(Code.INVALID, f"{what} {number}: 0 to {ID_MAX}")
    if len(groups) > GROUPS_MAX:
        raise EmberError(Code.INVALID, f"{len(groups)} groups: at most {GROUPS_MAX}")
