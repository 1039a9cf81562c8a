"""Permits: golden bytes, every other bytes refused, whom storage daemons ask for them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.errors import Code, EmberError
from fs_common.records.meta import User
from fs_common.records.session import Hello, ShowPermit
from fs_common.records.storage import QueryLastChunk, ReadChunks, ReadItem
from fs_common.rpc import Admission, Call, Reply, ServerSession
from fs_common.security.identity import Grants, Identity
from fs_common.security.keys import Key, KeyRing
from fs_common.security.permits import (
    PERMIT_BYTES_MAX,
    PERMIT_INODES_MAX,
    Permit,
    Right,
    check_permit,
    make_permit,
)
from fs_storage import permits
from fs_storage.permits import of_file, of_items, permitted, show_permit

KEY = Key(7, bytes(range(32)))
RING = KeyRing([KEY])
CLIENT = b"c" * 16
PERMIT = Permit(CLIENT, [5, 1 << 40], [int(Right.READ), int(Right.READ | Right.WRITE)])
GOLDEN = bytes.fromhex(
    "01070000002100000093c410636363636363636363636363636363639205cf0000010000000000920103f9d27642e6da762b"
    "26543345d37ea8c3c918731b1ad730fa45ecca99a242a903"
)


def test_the_bytes_are_golden() -> None:
    assert make_permit(KEY, PERMIT) == GOLDEN
    assert check_permit(RING, GOLDEN, CLIENT) == PERMIT


def test_the_largest_permit_fits() -> None:
    largest = Permit(CLIENT, [2**63 - 1] * PERMIT_INODES_MAX, [3] * PERMIT_INODES_MAX)
    shown = make_permit(KEY, largest)
    assert len(shown) <= PERMIT_BYTES_MAX and check_permit(RING, shown, CLIENT) == largest


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, by: int) -> None:
    changed = bytearray(GOLDEN)
    changed[position % len(changed)] ^= by
    with pytest.raises(EmberError) as refused:
        check_permit(RING, bytes(changed), CLIENT)
    assert refused.value.code is Code.PASS_REFUSED


@given(st.binary(max_size=300))
def test_any_bytes_give_a_clean_error(shown: bytes) -> None:
    with pytest.raises(EmberError) as refused:
        check_permit(RING, shown, CLIENT)
    assert refused.value.code is Code.PASS_REFUSED


@given(st.binary(max_size=64))
def test_a_record_that_is_no_permit_is_refused_though_the_key_vouches_for_it(record: bytes) -> None:
    signed = b"\x01\x07\0\0\0" + len(record).to_bytes(4, "little") + record
    with pytest.raises(EmberError) as refused:
        check_permit(RING, signed + KEY.mac(b"emberfs permit", signed), CLIENT)
    assert refused.value.code is Code.PASS_REFUSED


@pytest.mark.parametrize("ring", [KeyRing(), KeyRing([Key(8, bytes(range(32)))]), KeyRing([Key(7, bytes(32))])])
def test_of_another_key(ring: KeyRing) -> None:
    with pytest.raises(EmberError) as refused:
        check_permit(ring, GOLDEN, CLIENT)
    assert refused.value.code is Code.PASS_REFUSED


def test_of_another_client() -> None:
    with pytest.raises(EmberError) as refused:
        check_permit(RING, GOLDEN, b"d" * 16)
    assert refused.value.code is Code.PASS_REFUSED


def test_a_pass_is_no_permit() -> None:
    from fs_common.security.passes import make_pass

    with pytest.raises(EmberError):
        check_permit(RING, make_pass(KEY, Identity("client", CLIENT)), CLIENT)


# -- at the daemon -------------------------------------------------------------------------------------------------

PLAIN = Identity("client", CLIENT, "ada", User(1000, 100))
DONE = Reply(ShowPermit(b""))


def session(identity: Identity | None) -> ServerSession:
    return ServerSession(Hello([1], "client", CLIENT), "test", Admission(identity, None))


def ask(of: ServerSession, request: Any, right: Right, files: Any = of_items) -> bool:
    """Whether it is let in."""
    try:
        return permitted(lambda call: DONE, files, right)(Call(request, [], of, 0.0)) is DONE
    except EmberError as error:
        assert error.code is Code.PERMIT_NEEDED
        return False


def reads(*inodes: int) -> ReadChunks:
    return ReadChunks([ReadItem(1, 1, inode, 0, 0, 1) for inode in inodes])


def show(of: ServerSession, inodes: list[int], rights: list[int]) -> None:
    shown = make_permit(KEY, Permit(CLIENT, inodes, rights))
    show_permit(lambda: RING)(Call(ShowPermit(shown), [], of, 0.0))


@pytest.mark.parametrize(
    "identity",
    [
        None,
        Identity("storage", node=3),
        Identity("meta"),
        Identity("client", CLIENT, grants=int(Grants.ANY_USER)),
        Identity("client", CLIENT, user=User(0, 0)),
    ],
)
def test_who_needs_none(identity: Identity | None) -> None:
    assert ask(session(identity), reads(5), Right.READ)


def test_a_request_is_let_in_when_all_of_its_files_are() -> None:
    of = session(PLAIN)
    assert not ask(of, reads(5), Right.READ)
    show(of, [5, 6], [1, 2])
    assert ask(of, reads(5), Right.READ) and not ask(of, reads(5), Right.WRITE)
    assert not ask(of, reads(6), Right.READ) and not ask(of, reads(5, 6), Right.READ)
    assert ask(of, QueryLastChunk(1, 1, 6), Right.READ | Right.WRITE, of_file)
    show(of, [6], [3])
    assert ask(of, reads(5, 6), Right.READ) and not ask(of, reads(5, 7), Right.READ)
    assert not ask(session(PLAIN), reads(5), Right.READ), "another connection has shown nothing"


def test_memory_of_a_connection_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permits, "FILES_MAX", 10)
    of = session(PLAIN)
    for inode in range(100):
        show(of, [inode, inode + 1000], [1, 1])
        assert of.permits is not None and len(of.permits) <= 10
        assert ask(of, reads(inode, inode + 1000), Right.READ)
