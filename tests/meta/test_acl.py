"""Access control lists as the service keeps and checks them; tests/posix/test_acl.py has what programs see."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.errors import EmberError
from fs_common.records.meta import InodeFlags, User
from fs_meta import acl
from fs_meta.acl import Right, Tag
from tests.meta.world import ROOT, World, fails, world
from tests.support import run

OWNER, ALICE, BOB = User(1000, 1000), User(2000, 2000), User(3000, 3000, [77])
FOR_ALICE = acl.pack(
    [
        Right(Tag.OWNER, 6),
        Right(Tag.USER, 4, 2000),
        Right(Tag.OWNING_GROUP, 0),
        Right(Tag.MASK, 4),
        Right(Tag.OTHERS, 0),
    ]
)
SEARCHED_BY_77 = acl.pack(
    [Right(Tag.OWNER, 7), Right(Tag.OWNING_GROUP, 0), Right(Tag.GROUP, 1, 77), Right(Tag.MASK, 7), Right(Tag.OTHERS, 0)]
)


def test_golden_bytes() -> None:
    assert FOR_ALICE.hex() == (
        "02000000"
        + "01000600ffffffff"
        + "02000400d0070000"
        + "04000000ffffffff"
        + "10000400ffffffff"
        + "20000000ffffffff"
    )


RIGHTS = st.integers(0, 7)
NAMED = st.lists(st.tuples(RIGHTS, st.integers(0, 2**32 - 2)), max_size=4)


@given(RIGHTS, NAMED, RIGHTS, NAMED, RIGHTS, RIGHTS)
def test_what_is_packed_is_parsed(
    owner: int, users: list[tuple[int, int]], group: int, groups: list[tuple[int, int]], mask: int, others: int
) -> None:
    entries = (
        Right(Tag.OWNER, owner),
        *(Right(Tag.USER, rights, name) for rights, name in users),
        Right(Tag.OWNING_GROUP, group),
        *(Right(Tag.GROUP, rights, name) for rights, name in groups),
        Right(Tag.MASK, mask),
        Right(Tag.OTHERS, others),
    )
    value = acl.pack(entries)
    assert acl.parse(value) == entries
    mode, says_more = acl.mode_of(entries, 0o4000)
    assert (mode, says_more) == (0o4000 | owner << 6 | mask << 3 | others, True)
    assert acl.access_list(value, mode) == entries


@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_or_a_clean_error(value: bytes) -> None:
    try:
        entries = acl.parse(value)
    except EmberError as error:
        assert error.errno in (errno.EINVAL, errno.EOPNOTSUPP)
    else:
        assert not entries or entries[0].tag is Tag.OWNER


@pytest.mark.parametrize("mask", [0, 4])
def test_an_empty_mask_does_not_count(mask: int) -> None:
    """As in Linux: then the mode decides alone."""

    async def body() -> None:
        async with world() as w:
            f = (await w.acting(OWNER).create(b"f", mode=0o604)).inode
            await w.set_xattr(
                f,
                acl.ACCESS,
                acl.pack(
                    [
                        Right(Tag.OWNER, 6),
                        Right(Tag.USER, 0, 2000),
                        Right(Tag.OWNING_GROUP, 0),
                        Right(Tag.MASK, mask),
                        Right(Tag.OTHERS, 4),
                    ]
                ),
            )
            if mask:
                with fails(errno.EACCES):
                    await w.acting(ALICE).access(f, os.R_OK)
            else:
                await w.acting(ALICE).access(f, os.R_OK)

    run(body())


def test_walks_and_files_are_checked_by_the_service() -> None:
    async def body() -> None:
        async with world() as w:
            owner = w.acting(OWNER)
            await w.set_attr(b"", mode=0o777)
            d = (await owner.mkdir(b"d", mode=0o700)).inode
            f = (await owner.create(b"d/f", mode=0o600)).inode
            for user in (ALICE, BOB):
                with fails(errno.EACCES):
                    await w.acting(user).stat(b"d/f")
            await owner.set_xattr(d, acl.ACCESS, SEARCHED_BY_77)
            await owner.set_xattr(f, acl.ACCESS, FOR_ALICE)
            attributes = await w.acting(BOB).stat(b"d/f")
            assert (attributes.inode, attributes.mode, attributes.acl, attributes.default_acl) == (
                f,
                0o640,
                True,
                False,
            )
            with fails(errno.EACCES):
                await w.acting(ALICE).stat(b"d/f")
            with fails(errno.EACCES):
                await w.acting(BOB).access(f, os.R_OK)
            await w.acting(ALICE).access(f, os.R_OK)
            with fails(errno.EACCES):
                await w.acting(ALICE).access(f, os.W_OK)
            with fails(errno.EACCES):
                await w.acting(BOB).create(b"d/new")
            await owner.remove_xattr(d, acl.ACCESS)
            with fails(errno.EACCES):
                await w.acting(BOB).stat(b"d/f")

    run(body())


def test_chmod_and_the_list_are_one() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.acting(OWNER).create(b"f", mode=0o600)).inode
            await w.set_xattr(f, acl.ACCESS, FOR_ALICE)
            await w.set_attr(b"f", mode=0o600)
            assert acl.parse(await w.get_xattr(f, acl.ACCESS))[3] == Right(Tag.MASK, 0)
            await w.set_attr(b"f", mode=0o640)
            assert await w.get_xattr(f, acl.ACCESS) == FOR_ALICE
            assert await w.list_xattrs(f) == [acl.ACCESS]

    run(body())


async def _made(w: World, kind: str, mode: int, unmasked: int | None) -> tuple[int, int, bytes]:
    """(inode, mode, rights of the mask) of something new in a directory that hands a list down."""
    handed_down = acl.pack(
        [
            Right(Tag.OWNER, 7),
            Right(Tag.USER, 7, 2000),
            Right(Tag.OWNING_GROUP, 5),
            Right(Tag.MASK, 7),
            Right(Tag.OTHERS, 5),
        ]
    )
    await w.set_xattr(ROOT, acl.DEFAULT, handed_down)
    match kind:
        case "create":
            made = await w.create(b"new", mode=mode, unmasked=unmasked)
        case "mkdir":
            made = await w.mkdir(b"new", mode=mode, unmasked=unmasked)
        case _:
            made = await w.mkdir(b"above/new", mode=mode, unmasked=unmasked, parents=True)
    return made.inode, made.mode, handed_down


@pytest.mark.parametrize(
    ("mode", "unmasked", "got"), [(0o600, 0o664, 0o664), (0o600, None, 0o600), (0o777, None, 0o775)]
)
@pytest.mark.parametrize("kind", ["create", "mkdir", "parents"])
def test_what_is_made_has_the_list(kind: str, mode: int, unmasked: int | None, got: int) -> None:
    async def body() -> None:
        async with world() as w:
            inode, found, handed_down = await _made(w, kind, mode, unmasked)
            assert found == got
            entries = acl.parse(await w.get_xattr(inode, acl.ACCESS))
            assert entries[1] == Right(Tag.USER, 7, 2000) and entries[3] == Right(Tag.MASK, got >> 3 & 7)
            if kind == "create":
                with fails(errno.ENODATA):
                    await w.get_xattr(inode, acl.DEFAULT)
            else:
                assert await w.get_xattr(inode, acl.DEFAULT) == handed_down

    run(body())


def test_what_is_flagged_keeps_its_list_and_links_have_none() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            await w.set_attr(b"f", flags=int(InodeFlags.IMMUTABLE))
            with fails(errno.EPERM):
                await w.set_xattr(f, acl.ACCESS, FOR_ALICE)
            link = (await w.symlink(b"l", b"f")).inode
            for call in (w.set_xattr(link, acl.ACCESS, FOR_ALICE), w.get_xattr(link, acl.ACCESS)):
                with fails(errno.EOPNOTSUPP):
                    await call
            g = (await w.create(b"g")).inode
            with fails(errno.E2BIG):
                await w.set_xattr(g, acl.ACCESS, FOR_ALICE + bytes(8 * 1024))

    run(body())


def test_capabilities_are_told_by_the_attributes_until_the_file_changes() -> None:
    async def body() -> None:
        async with world() as w:
            f = (await w.create(b"f")).inode
            assert not (await w.stat(b"f")).capable
            await w.set_xattr(f, b"security.capability", b"x")
            assert (await w.stat(b"f")).capable
            await w.remove_xattr(f, b"security.capability")
            assert not (await w.stat(b"f")).capable
            await w.set_xattr(f, b"security.capability", b"x")
            assert not (await w.set_attr(b"f", uid=5)).capable
            with fails(errno.ENODATA):
                await w.get_xattr(f, b"security.capability")

    run(body())
