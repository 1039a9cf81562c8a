"""Passes: golden bytes, every other bytes refused, and what identities may do."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.errors import Code, EmberError
from fs_common.records.meta import User
from fs_common.security.identity import NOBODY, Grants, Identity, require_admin
from fs_common.security.keys import Key, KeyRing
from fs_common.security.passes import GROUPS_MAX, NAME_LENGTH_MAX, PASS_BYTES_MAX, check_pass, make_pass

KEY = Key(7, bytes(range(32)))
RING = KeyRing([KEY])
IDENTITY = Identity("client", b"c" * 16, "ada", User(1000, 100, [10, 20]), 0, int(Grants.ADMIN), "00010203")
GOLDEN = bytes.fromhex(
    "0107000000310097a6636c69656e74c41063636363636363636363636363636363a361646193cd03e864920a140001a83030"
    "30313032303352744670e8b2093de0a6d6f2e851d3bbf339430c0e5888bef46e9401cef225f1"
)


def test_the_bytes_are_golden() -> None:
    assert make_pass(KEY, IDENTITY) == GOLDEN
    assert check_pass(RING, GOLDEN) == IDENTITY


def test_the_largest_identity_fits() -> None:
    groups = [2**32 - 1 - index for index in range(GROUPS_MAX)]
    largest = Identity(
        "storage", b"c" * 16, "ü" * NAME_LENGTH_MAX, User(2**32 - 1, 2**32 - 1, groups), 2**32 - 1, 7, "f" * 8
    )
    shown = make_pass(KEY, largest)
    assert len(shown) <= PASS_BYTES_MAX and check_pass(RING, shown) == largest


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, by: int) -> None:
    changed = bytearray(GOLDEN)
    changed[position % len(changed)] ^= by
    with pytest.raises(EmberError) as refused:
        check_pass(RING, bytes(changed))
    assert refused.value.code is Code.PASS_REFUSED


@given(st.binary(max_size=300))
def test_any_bytes_give_a_clean_error(shown: bytes) -> None:
    with pytest.raises(EmberError) as refused:
        check_pass(RING, shown)
    assert refused.value.code is Code.PASS_REFUSED


@given(st.binary(max_size=64))
def test_a_record_that_is_no_identity_is_refused_though_the_key_vouches_for_it(record: bytes) -> None:
    signed = b"\x01\x07\0\0\0" + len(record).to_bytes(2, "little") + record
    try:
        identity = check_pass(RING, signed + KEY.mac(b"emberfs pass", signed))
    except EmberError as refused:
        assert refused.code is Code.PASS_REFUSED
    else:
        assert isinstance(identity, Identity)


def test_a_pass_is_valid_while_its_key_is_in_the_ring() -> None:
    ring = KeyRing().rotated(b"a" * 32)
    shown = make_pass(ring.newest, IDENTITY)
    for secret, valid in ((b"b" * 32, True), (b"c" * 32, False)):
        ring = ring.rotated(secret)
        if valid:
            assert check_pass(ring, shown) == IDENTITY
        else:
            with pytest.raises(EmberError, match="key 1"):
                check_pass(ring, shown)
    assert [key.id for key in ring.keys] == [2, 3]


def test_a_key_of_another_cluster_vouches_for_nothing() -> None:
    with pytest.raises(EmberError, match="not of this cluster"):
        check_pass(KeyRing([Key(7, b"x" * 32)]), GOLDEN)


@pytest.mark.parametrize("keys", [[KEY, KEY], [KEY, Key(9, b"x" * 32)], [Key(1, b"short")], [Key(0, b"x" * 32)]])
def test_a_ring_is_in_order(keys: list[Key]) -> None:
    with pytest.raises(ValueError, match="key"):
        KeyRing(keys)
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([keys]), type=KeyRing)


def test_nothing_prints_a_key() -> None:
    assert "\\x01\\x02" not in f"{RING} {RING!r} {KEY} {[KEY]}"


ME = User(1000, 100, [10])
ROOT = User(0, 0, [0])
OTHER = User(2000, 200, [])


@pytest.mark.parametrize(
    ("grants", "asked", "acts"),
    [
        (Grants.NONE, OTHER, ME),
        (Grants.NONE, ROOT, ME),
        (Grants.ADMIN, ROOT, ME),
        (Grants.SQUASH_ROOT, ROOT, ME),
        (Grants.ANY_USER, OTHER, OTHER),
        (Grants.ANY_USER, ROOT, ROOT),
        (Grants.ANY_USER | Grants.SQUASH_ROOT, ROOT, User(NOBODY, NOBODY, [])),
        (Grants.ANY_USER | Grants.SQUASH_ROOT, OTHER, OTHER),
    ],
)
def test_who_acts_as_whom(grants: Grants, asked: User, acts: User) -> None:
    assert Identity("client", user=ME, grants=int(grants)).acting(asked) == acts


def test_who_may_administer() -> None:
    require_admin(None, "to drain a node")
    require_admin(Identity("client", grants=int(Grants.ADMIN)), "to drain a node")
    with pytest.raises(EmberError, match="to drain a node needs a token that may administer") as refused:
        require_admin(Identity("client", name="ada", token="00010203"), "to drain a node")
    assert refused.value.code is Code.ACCESS_DENIED


def test_for_which_nodes_a_daemon_speaks() -> None:
    assert Identity("storage", node=3).speaks_for(3) and not Identity("storage", node=3).speaks_for(4)
    assert Identity("storage").speaks_for(4) and not Identity("client").speaks_for(3)
