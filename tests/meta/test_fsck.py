"""The check of the namespace finds each kind of damage, and nothing in a sound one."""

from collections.abc import Callable
from typing import Any

import pytest

from fs_common.layout import Layout
from fs_common.records.meta import FileType
from fs_meta import fsck, schema
from fs_meta.schema import Counter, Entry, Garbage, HeldLock, Inode, Locks, Session, Xattr
from tests.meta.world import ROOT, world
from tests.support import run

Pairs = dict[bytes, bytes]
FIFO = 11


async def _sound() -> Pairs:
    """Everything there can be: 2 = /d, 3 = /d/sub, 4 = /f and /d/g, a removed file, an open one, a detached tree."""
    async with world() as w:
        d = await w.mkdir(b"d")
        sub = await w.mkdir(b"d/sub")
        f = await w.create(b"f")
        assert (d.inode, sub.inode, f.inode) == (2, 3, 4)
        await w.link(b"f", b"d/g")
        await w.symlink(b"link", b"f")
        await w.set_xattr(f.inode, b"user.a", b"v")
        await w.lock(f.inode, 1)
        await w.create(b"removed")
        await w.unlink(b"removed")
        await w.create_open(b"open")
        await w.unlink(b"open")
        await w.mkdir(b"tree/below", parents=True)
        await w.remove_tree(b"tree")
        assert (await w.create_unnamed()).attributes.inode == 10
        assert (await w.mknod(b"fifo", FileType.FIFO)).inode == FIFO
        device = await w.mknod(b"device", FileType.BLOCK_DEVICE, device=5)
        assert (await w.set_attr(b"f", flags=0x40)).flags == 0x40 and device.device == 5
        return dict(await w.dump())


def _inode(pairs: Pairs, inode: int, **changes: Any) -> None:
    record = schema.decode_inode(pairs[schema.inode_key(inode)])
    for name, value in changes.items():
        setattr(record, name, value)
    pairs[schema.inode_key(inode)] = schema.encode(record)


def _put_entry(pairs: Pairs, parent: int, name: bytes, inode: int, type_: FileType = FileType.FILE) -> None:
    pairs[schema.entry_key(parent, name)] = schema.encode(Entry(inode, type_))


def _cycle(pairs: Pairs) -> None:
    """/d moves below its own subdirectory."""
    pairs.pop(schema.entry_key(ROOT, b"d"))
    _put_entry(pairs, 3, b"d", 2, FileType.DIRECTORY)
    _inode(pairs, 2, parent=3)
    _inode(pairs, 3, links=3)
    _inode(pairs, ROOT, links=2)


LOCK_A, LOCK_B = HeldLock(2, 2, b"c" * 16, 1, 0, 9, 0), HeldLock(2, 1, b"c" * 16, 2, 10, 19, 0)
LOCK_C = HeldLock(2, 1, b"c" * 16, 2, 9, 9, 0)
DAMAGE: list[tuple[str, int, Callable[[Pairs], Any]]] = [
    ("root", ROOT, lambda p: _inode(p, ROOT, parent=2)),
    ("format", 0, lambda p: p.pop(b"F")),
    ("dangling entry", 4, lambda p: p.pop(schema.inode_key(4))),
    ("entry without directory", 4, lambda p: _put_entry(p, 4, b"x", 4)),
    ("entry without directory", 77, lambda p: _put_entry(p, 77, b"x", 4)),
    ("entry type", 4, lambda p: _put_entry(p, ROOT, b"f", 4, FileType.SYMLINK)),
    ("parent", 3, lambda p: _inode(p, 3, parent=ROOT)),
    ("parent", 3, lambda p: _inode(p, 3, name=b"other")),
    ("link count", 4, lambda p: _inode(p, 4, links=3)),
    ("link count", 2, lambda p: _inode(p, 2, links=2)),
    ("link count", 4, lambda p: p.pop(schema.entry_key(ROOT, b"f"))),
    ("directory names", 3, lambda p: _put_entry(p, ROOT, b"second", 3, FileType.DIRECTORY)),
    ("orphan", 3, lambda p: p.pop(schema.entry_key(2, b"sub"))),
    ("orphan", 2, _cycle),
    ("orphan", 6, lambda p: [p.pop(key) for key in list(p) if key[:1] == b"G"]),
    ("orphan", 7, lambda p: [p.pop(key) for key in list(p) if key[:1] == b"S"]),
    ("orphan", 8, lambda p: [p.pop(key) for key in list(p) if key[:1] == b"G"]),
    ("session", 77, lambda p: p.update({schema.session_key(77, b"s" * 16): schema.encode(Session(b"", 1))})),
    ("unnamed", 4, lambda p: _inode(p, 4, flags=schema.UNNAMED)),
    ("unnamed", 8, lambda p: _inode(p, 8, flags=schema.LINKABLE)),
    ("orphan", 10, lambda p: [p.pop(key) for key in list(p) if key[:1] == b"S"]),
    ("locks", 77, lambda p: p.update({schema.locks_key(77): p[schema.locks_key(4)]})),
    ("locks", 4, lambda p: p.update({schema.locks_key(4): schema.encode(Locks([]))})),
    ("locks", 4, lambda p: p.update({schema.locks_key(4): schema.encode(Locks([LOCK_B, LOCK_A]))})),
    ("locks", 4, lambda p: p.update({schema.locks_key(4): schema.encode(Locks([LOCK_A, LOCK_C]))})),
    ("xattr", 77, lambda p: p.update({schema.xattr_key(77, b"user.a"): schema.encode(Xattr(b""))})),
    (
        "xattr",
        4,
        lambda p: p.update({schema.xattr_key(4, b"user.%0250d" % n): schema.encode(Xattr(b"")) for n in range(257)}),
    ),
    ("unreadable", 0, lambda p: p.update({schema.xattr_key(4, b"user.a"): b"\x01?"})),
    ("due", 4, lambda p: _inode(p, 4, due_ns=5)),
    ("queue", 77, lambda p: p.update({schema.garbage_key(5, 77): schema.encode(Garbage(FileType.FILE, 1))})),
    ("queue", 4, lambda p: p.update({schema.garbage_key(5, 4): schema.encode(Garbage(FileType.FILE, 1))})),
    ("inode counter", 4, lambda p: p.update({b"N": schema.encode(Counter(4))})),
    ("layout", 4, lambda p: _inode(p, 4, layout=None)),
    ("layout", FIFO, lambda p: _inode(p, FIFO, layout=Layout())),
    ("device", FIFO, lambda p: _inode(p, FIFO, device=5)),
    ("flags", FIFO, lambda p: _inode(p, FIFO, flags=0x10)),
    ("flags", 4, lambda p: _inode(p, 4, flags=1)),
    ("mode", 4, lambda p: _inode(p, 4, mode=0o100644)),
    ("target", 4, lambda p: _inode(p, 4, target=b"x")),
    ("orphan", FIFO, lambda p: [p.pop(schema.entry_key(ROOT, b"fifo")), _inode(p, FIFO, links=0)]),
    ("answer", 0, lambda p: p.pop(next(key for key in p if key[:1] == b"X"))),
    ("unreadable", 0, lambda p: p.update({schema.inode_key(4): b"\x01garbage"})),
    ("unreadable", 0, lambda p: p.update({b"I4": schema.encode(Counter(1))})),
]


def test_a_sound_namespace_has_no_findings() -> None:
    assert fsck.check(run(_sound()).items()) == []


def test_keys_of_others_are_skipped() -> None:
    pairs = run(_sound())
    pairs[b"m/anything"] = b"?"
    assert fsck.check(pairs.items()) == []


@pytest.mark.parametrize(("kind", "subject", "damage"), DAMAGE)
def test_damage_is_found(kind: str, subject: int, damage: Callable[[Pairs], Any]) -> None:
    pairs = run(_sound())
    damage(pairs)
    findings = fsck.check(pairs.items())
    assert (kind, subject) in {(finding.kind, finding.subject) for finding in findings}, findings


def test_no_records_no_root() -> None:
    assert {finding.kind for finding in fsck.check([])} == {"root", "format"}
    assert isinstance(fsck.Dump().inodes.get(1), Inode | None)
