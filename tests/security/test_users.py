"""Users and tokens in the store: who is known, what survives a restart, and what a crash leaves."""

import logging
import os
from pathlib import Path

import pytest

from fs_common.errors import Code, EmberError
from fs_common.records.meta import User
from fs_common.security.identity import STORAGE, Grants, Identity
from fs_common.security.keys import Key
from fs_common.security.passes import check_pass, key_of
from fs_common.security.tokens import make_token, parse_token, token_text
from fs_meta.kv.memory_engine import MemoryStore
from fs_meta.users import records
from fs_meta.users.files import write_tokens
from fs_meta.users.records import CorruptUsers, TokenRecord, UserFlags, UserRecord, VouchingRecord
from fs_meta.users.users import FIRST_TOKENS, Users
from tests.support import run

DAY_S = 86_400


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**18

    def __call__(self) -> int:
        return self.now_ns


class World:
    """A store, and users on it."""

    def __init__(self) -> None:
        self.kv = MemoryStore()
        self.clock = Clock()
        self.written: dict[str, str] = {}
        self.users = Users(self.kv, self.clock)

    async def begun(self) -> "World":
        await self.users.load()
        assert await self.users.begin(self.written.update)
        return self

    async def restarted(self) -> Users:
        again = Users(self.kv, self.clock)
        await again.load()
        return again


def refused(users: Users, token: str) -> Code:
    with pytest.raises(EmberError) as caught:
        users.identify(token)
    return caught.value.code


def test_the_first_start_makes_an_administrator_and_tokens() -> None:
    async def main() -> None:
        world = await World().begun()
        assert sorted(world.written) == sorted(FIRST_TOKENS)
        for users in (world.users, await world.restarted()):
            admin = users.identify(world.written["admin.token"])
            assert (admin.role, admin.name, admin.admin) == ("client", "admin", True)
            assert admin.acting(User(7, 8, [9])) == User(7, 8, [9])
            mount = users.identify(world.written["mount.token"])
            assert mount.acting(User(7, 8)) == User(7, 8) and not mount.admin
            assert users.identify(world.written["storage.token"]) == Identity(
                "storage", token=parse_token(world.written["storage.token"]).id
            )
            assert not await users.begin(world.written.clear)
        assert check_pass(world.users.vouching.record.ring, world.users.vouching.give(admin)) == admin

    run(main())


def test_a_first_start_that_was_interrupted_is_done_again() -> None:
    async def main() -> None:
        world = World()

        def full(texts: dict[str, str]) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            await world.users.begin(full)
        again = await world.restarted()
        assert not again.list_users() and not again.list_tokens() and not again.vouching.version
        assert await again.begin(world.written.update)

    run(main())


def test_no_secret_is_stored_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        caplog.set_level(logging.DEBUG)
        world = await World().begun()
        await world.users.add("ada", 1000, 1000)
        texts = [*world.written.values(), await world.users.issue("ada", lasts_s=None)]
        stored = await world.kv.read(lambda txn: txn.range(b"", b"\xff"))
        for text in texts:
            secret = parse_token(text).secret
            assert not any(secret in value or text.encode() in value for _, value in stored)
            assert text[15:] not in caplog.text

    run(main())


def test_a_plain_token_is_its_user_and_a_mounts_is_whom_it_names() -> None:
    async def main() -> None:
        users = (await World().begun()).users
        await users.add("ada", 1000, 100, [20, 10, 20])
        await users.add("ops", 0, 0, [], UserFlags.ADMIN)
        await users.add("any", 5, 5, [], UserFlags.ROOT)
        other = User(7, 7, [7])
        plain = users.identify(await users.issue("ada", lasts_s=DAY_S))
        assert plain.acting(other) == User(1000, 100, [10, 20]) and not plain.admin and plain.name == "ada"
        mount = users.identify(await users.issue("ops", lasts_s=None, mount=True))
        assert mount.acting(other) == other and mount.acting(User(0, 0)) == User(0, 0)
        assert not mount.admin, "a mount's token lies on many machines: it administers nothing"
        squashed = users.identify(await users.issue("ada", lasts_s=None, mount=True, squash_root=True))
        assert squashed.acting(other) == other and squashed.acting(User(0, 0)).uid == 65534
        ops = users.identify(await users.issue("ops", lasts_s=None))
        assert ops.admin and ops.acting(other) == User(0, 0, [])
        assert users.identify(await users.issue("any", lasts_s=None)).grants == Grants.ANY_USER
        with pytest.raises(EmberError, match="only a mount's token"):
            await users.issue("ada", lasts_s=None, squash_root=True)

    run(main())


def test_who_is_not_known_is_refused() -> None:
    async def main() -> None:
        world = await World().begun()
        token = world.written["admin.token"]
        forged = parse_token(token)._replace(secret=bytes(32))
        other = await World().begun()
        for text in (token_text(make_token(bytes(36))), token_text(forged), other.written["admin.token"], "", "x"):
            assert refused(world.users, text) is Code.UNAUTHENTICATED

    run(main())


def test_a_revoked_token_is_nobodys_at_once_and_for_ever() -> None:
    async def main() -> None:
        world = await World().begun()
        users, told = world.users, []
        users.revoked.append(told.append)
        await users.add("ada", 1000, 1000)
        token = await users.issue("ada", lasts_s=None)
        number = parse_token(token).id
        version = users.vouching.version
        users.identify(token)
        await users.revoke(number)
        assert told == [frozenset({number})]
        assert users.vouching.version > version
        assert [revoked.token for revoked in users.vouching.record.revoked] == [number]
        for known in (users, await world.restarted()):
            assert refused(known, token) is Code.UNAUTHENTICATED
        with pytest.raises(EmberError, match="no token"):
            await users.revoke(number)

    run(main())


def test_with_a_user_his_tokens_go() -> None:
    async def main() -> None:
        world = await World().begun()
        users, told = world.users, []
        users.revoked.append(told.append)
        await users.add("ada", 1000, 1000)
        tokens = [await users.issue("ada", lasts_s=DAY_S) for _ in range(3)]
        assert sorted(await users.remove("ada")) == sorted(parse_token(token).id for token in tokens)
        assert told == [frozenset(parse_token(token).id for token in tokens)]
        again = await world.restarted()
        assert [user.name for user in again.list_users()] == ["admin"]
        assert all(refused(again, token) is Code.UNAUTHENTICATED for token in tokens)
        with pytest.raises(EmberError, match="no user 'ada'"):
            await users.remove("ada")

    run(main())


def test_tokens_expire_by_the_wall_clock() -> None:
    async def main() -> None:
        world = await World().begun()
        users, told = world.users, []
        users.revoked.append(told.append)
        await users.add("ada", 1000, 1000)
        short, long = await users.issue("ada", lasts_s=10), await users.issue("ada", lasts_s=20)
        world.clock.now_ns += 10 * 10**9 - 1
        users.identify(short)
        await users.expire()
        assert not told
        world.clock.now_ns += 1
        assert refused(users, short) is Code.UNAUTHENTICATED
        users.identify(long)
        await users.expire()
        assert told == [frozenset({parse_token(short).id})]
        assert [token.id for token in (await world.restarted()).list_tokens("ada")] == [parse_token(long).id]

    run(main())


def test_a_rotated_token_leaves_time_to_hand_out_the_new_one() -> None:
    async def main() -> None:
        world = await World().begun()
        users = world.users
        await users.add("ada", 1000, 1000)
        old = await users.issue("ada", lasts_s=None)
        new = await users.rotate(parse_token(old).id, grace_s=60)
        for known in (users, await world.restarted()):
            assert known.identify(old).user == known.identify(new).user
        world.clock.now_ns += 60 * 10**9
        assert refused(users, old) is Code.UNAUTHENTICATED
        users.identify(new)
        short = await users.issue("ada", lasts_s=10)
        again = await users.rotate(parse_token(short).id, grace_s=60)
        world.clock.now_ns += 10 * 10**9
        assert refused(users, short) is Code.UNAUTHENTICATED, "it ends no later than it would have"
        assert refused(users, again) is Code.UNAUTHENTICATED, "the new one lasts as long"

    run(main())


@pytest.mark.parametrize("seconds", [-1, 100 * 366 * 86_400 + 1, 2**63, 2**64 - 1])
def test_a_time_that_nobody_means_is_refused(seconds: int) -> None:
    async def main() -> None:
        users = (await World().begun()).users
        await users.add("ada", 1000, 1000)
        token = parse_token(await users.issue("ada", lasts_s=None)).id
        for asked in (
            users.issue("ada", lasts_s=seconds),
            users.issue_for_daemon(1, lasts_s=seconds),
            users.rotate(token, grace_s=seconds),
        ):
            with pytest.raises(EmberError) as caught:
                await asked
            assert caught.value.code is Code.INVALID

    run(main())


def test_tokens_that_are_left_behind_stay_few() -> None:
    async def main() -> None:
        users = (await World().begun()).users
        await users.add("ada", 1000, 1000)
        await users.issue("ada", lasts_s=None)
        with pytest.raises(EmberError, match="ada has a token that never expires: rotate or revoke one of"):
            await users.issue("ada", lasts_s=None)
        await users.issue("ada", lasts_s=None, mount=True)
        for _ in range(5):
            await users.issue("ada", lasts_s=DAY_S)
        with pytest.raises(EmberError, match="5 tokens that expire"):
            await users.issue("ada", lasts_s=DAY_S)
        await users.issue_for_daemon(1, lasts_s=None)
        await users.issue_for_daemon(2, lasts_s=None)
        with pytest.raises(EmberError, match="storage daemon"):
            await users.issue_for_daemon(2, lasts_s=None)

    run(main())


@pytest.mark.parametrize(
    ("name", "uid", "groups", "words"),
    [
        ("", 1, [], "user name"),
        ("a/b", 1, [], "user name"),
        ("a" * 65, 1, [], "user name"),
        ("a", -1, [], "uid -1"),
        ("a", 2**32 - 1, [], "uid"),
        ("a", 1, [2**32], "group"),
        ("a", 1, list(range(257)), "257 groups"),
    ],
)
def test_bad_users_are_refused(name: str, uid: int, groups: list[int], words: str) -> None:
    async def main() -> None:
        with pytest.raises(EmberError, match=words) as caught:
            await Users(MemoryStore(), Clock()).add(name, uid, 1, groups)
        assert caught.value.code is Code.INVALID

    run(main())


def test_a_new_key_makes_passes_once_every_daemon_has_it() -> None:
    async def main() -> None:
        users = (await World().begun()).users
        vouching = users.vouching
        up = [1, 2]
        vouching.up_nodes = lambda: up
        assert vouching.signing.id == 1, "one key needs nobody's word"
        await users.rotate_keys(5)
        assert vouching.signing.id == 1 and vouching.record.rotated_ns == 5
        vouching.heard(1, vouching.version)
        assert vouching.signing.id == 1
        await refused_to_rotate(users)
        up.remove(2)
        assert vouching.signing.id == 2, "who is down hears of it when it comes back"
        vouching.heard(1, vouching.version)
        await users.rotate_keys(6)
        assert [key.id for key in vouching.record.ring.keys] == [2, 3]

    run(main())


async def refused_to_rotate(users: Users) -> None:
    with pytest.raises(EmberError, match="has not reached every") as caught:
        await users.rotate_keys(6)
    assert caught.value.code is Code.BUSY


def test_no_key_goes_before_each_daemon_has_a_pass_under_the_next() -> None:
    """Sessions end with the key of their pass: a daemon that still had one of the old key would be shut out by those
    that hear of the rotation before it does."""

    async def main() -> None:
        users = (await World().begun()).users
        vouching = users.vouching
        vouching.up_nodes = lambda: (1, 2)
        given: dict[int, int] = {}

        def heartbeat(node: int, has: int) -> int:
            vouching.heard(node, has)
            if vouching.version != has:
                given[node] = key_of(vouching.give(Identity(STORAGE, bytes(16), node=node)))
            return vouching.version

        has = {node: heartbeat(node, 0) for node in (1, 2)}
        for rotation in (2, 3, 4):
            await users.rotate_keys(0)
            assert vouching.record.ring.oldest.id <= min(given.values()), "both may still connect"
            has = {node: heartbeat(node, has[node]) for node in (1, 2)}
            await refused_to_rotate(users)
            has = {node: heartbeat(node, has[node]) for node in (1, 2)}
            await refused_to_rotate(users)
            has = {node: heartbeat(node, has[node]) for node in (1, 2)}
            has = {node: heartbeat(node, has[node]) for node in (1, 2)}
            assert given == {1: rotation, 2: rotation}
        vouching.heard(1, 0)
        assert vouching.signing.id == 4, "one that starts again hears of the key before anybody comes to it"
        await refused_to_rotate(users)

    run(main())


def test_a_revoked_token_is_listed_while_a_pass_of_it_may_be_valid() -> None:
    async def main() -> None:
        users = (await World().begun()).users
        await users.add("ada", 1000, 1000)
        token = await users.issue("ada", lasts_s=None)
        shown = users.vouching.give(users.identify(token))
        await users.revoke(parse_token(token).id)
        for listed in (True, False):
            await users.rotate_keys(0)
            record = users.vouching.record
            assert bool(record.revoked) == listed
            if not listed:
                with pytest.raises(EmberError):
                    check_pass(record.ring, shown)

    run(main())


def test_a_lost_administrators_token_is_made_anew() -> None:
    async def main() -> None:
        world = await World().begun()
        old = dict(world.written)
        await world.users.renew_administrator(world.written.update)
        assert world.users.identify(world.written["admin.token"]).admin
        assert refused(world.users, old["admin.token"]) is Code.UNAUTHENTICATED
        world.users.identify(old["mount.token"])

    run(main())


GOLDEN = [
    (UserRecord(1, 2, [3], 1, 4), "0195010291030104"),
    (TokenRecord(b"d" * 2, 1, 2, "a"), "0198c40264640102a161a6636c69656e7400c2c2"),
    (VouchingRecord(), "019500919000" + "9000"),
]


@pytest.mark.parametrize(("record", "golden"), GOLDEN)
def test_records_are_golden(record: UserRecord | TokenRecord | VouchingRecord, golden: str) -> None:
    assert records.encode(record).hex() == golden
    assert records.decode(type(record), bytes.fromhex(golden)) == record


def test_damaged_records_are_named_and_not_repeated() -> None:
    with pytest.raises(CorruptUsers, match="TokenRecord: version byte 02"):
        records.decode(TokenRecord, b"\x02secret")
    with pytest.raises(CorruptUsers, match="VouchingRecord"):
        records.decode(VouchingRecord, records.encode(UserRecord(1, 2, [], 0, 0)))
    with pytest.raises(CorruptUsers) as caught:
        records.decode(VouchingRecord, b"\x01" + b"\x92\x01\x91\x91\x92\x05\xc4\x04\xaa\xbb\xcc\xdd")
    assert "aabb" not in str(caught.value).lower()


def test_token_files_are_their_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "tokens"
    old_mask = os.umask(0)
    try:
        write_tokens(directory, {"a.token": "one"})
        write_tokens(directory, {"a.token": "two", "b.token": "three"})
    finally:
        os.umask(old_mask)
    assert (directory / "a.token").read_text() == "two\n" and sorted(os.listdir(directory)) == ["a.token", "b.token"]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "a.token").stat().st_mode & 0o777 == 0o600


def test_a_key_is_not_printed_with_its_record() -> None:
    assert "kkkk" not in repr(VouchingRecord(1, VouchingRecord().ring.rotated(b"k" * 32))) + repr(Key(1, b"k" * 32))
