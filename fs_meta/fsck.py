"""Checks the invariants of the namespace over a dump of the store. Pure: pairs in, findings out; nothing is repaired.

What is checked is what `fs_meta.schema` promises: every key and value can be read; every entry's inode exists and has
the entry's type; link counts are right; each directory is in the one entry it says it is in; everything hangs together
with the root, with a detached tree that waits for the collector, or with a session; no cycles; no queue entry,
session, lock or extended attribute without an inode; locks on one file are in order and do not conflict; the names of
an inode's extended attributes fit into one list; an inode has the fields its type has, and no others; the inode counter
is ahead of every inode.

The dump must be of one snapshot. Keys of other parts (the manager's) are skipped.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fs_common.ids import ROOT_INODE
from fs_common.limits import XATTR_LIST_BYTES_MAX
from fs_common.records.meta import FileType
from fs_meta import schema
from fs_meta.locks import ranges
from fs_meta.ops.inodes import MODE_MASK
from fs_meta.ops.mknod import DEVICES
from fs_meta.ops.set_attr import FLAGS
from fs_meta.schema import CorruptRecord, Entry, Garbage, HeldLock, Inode


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    kind: str
    """Short and stable, for counting and tests: `link count`, `orphan`, ..."""
    subject: int
    """The inode it is about; 0 where it is about none."""
    text: str


class Dump:
    """The namespace's records, by what they are about."""

    def __init__(self) -> None:
        self.inodes: dict[int, Inode] = {}
        self.entries: dict[tuple[int, bytes], Entry] = {}
        self.sessions: dict[int, list[bytes]] = defaultdict(list)
        self.xattrs: dict[int, list[bytes]] = defaultdict(list)
        """Names."""
        self.locks: dict[int, list[HeldLock]] = {}
        self.garbage: dict[int, Garbage] = {}
        self.answers: set[tuple[int, bytes]] = set()
        """(time_ns, request) of each answered request."""
        self.ages: set[tuple[int, bytes]] = set()
        self.next_inode = 0
        self.formatted = False


def check(pairs: Iterable[tuple[bytes, bytes]]) -> list[Finding]:
    """All findings over the store's pairs; none for a sound namespace."""
    findings: list[Finding] = []
    dump = read(pairs, findings)
    _check_root(dump, findings)
    _check_entries(dump, findings)
    _check_links(dump, findings)
    _check_reachable(dump, findings)
    _check_rest(dump, findings)
    return findings


def read(pairs: Iterable[tuple[bytes, bytes]], findings: list[Finding]) -> Dump:
    """The records of a dump; what cannot be decoded becomes a finding `unreadable`."""
    dump = Dump()
    for key, value in pairs:
        if key[:1] not in schema.NAMESPACE_PREFIXES:
            continue
        try:
            _read_pair(dump, key, value)
        except CorruptRecord as error:
            findings.append(Finding("unreadable", 0, str(error)))
    return dump


def _read_pair(dump: Dump, key: bytes, value: bytes) -> None:
    match key[:1]:
        case b"I":
            dump.inodes[schema.split_inode_key(key)] = schema.decode_inode(value)
        case b"D":
            dump.entries[schema.split_entry_key(key)] = schema.decode_entry(value)
        case b"S":
            inode, session = schema.split_session_key(key)
            schema.decode_session(value)
            dump.sessions[inode].append(session)
        case b"P":
            schema.split_pruned_key(key)
            schema.decode_pruned(value)
        case b"A":
            inode, name = schema.split_xattr_key(key)
            schema.decode_xattr(value)
            dump.xattrs[inode].append(name)
        case b"L":
            dump.locks[schema.split_locks_key(key)] = schema.decode_locks(value).held
        case b"G":
            dump.garbage[schema.split_garbage_key(key)[1]] = schema.decode_garbage(value)
        case b"R":
            dump.answers.add((schema.decode_answer(value).time_ns, schema.split_answer_key(key)))
        case b"X":
            dump.ages.add(schema.split_age_key(key))
        case b"N":
            dump.next_inode = schema.decode_counter(value).value
        case b"C" | b"T" | b"K":
            schema.decode_counter(value)
        case b"F":
            schema.decode_format(value)
            dump.formatted = True


def _check_root(dump: Dump, findings: list[Finding]) -> None:
    root = dump.inodes.get(ROOT_INODE)
    if root is None or root.type is not FileType.DIRECTORY or root.parent != ROOT_INODE:
        findings.append(Finding("root", ROOT_INODE, "the root is missing, no directory, or not its own parent"))
    if not dump.formatted:
        findings.append(Finding("format", 0, "there is no format record"))


def _check_entries(dump: Dump, findings: list[Finding]) -> None:
    for (parent, name), entry in dump.entries.items():
        where = f"entry {name!r} of directory {parent}"
        holder = dump.inodes.get(parent)
        if holder is None or holder.type is not FileType.DIRECTORY:
            findings.append(Finding("entry without directory", parent, f"{where}: that is no directory"))
        child = dump.inodes.get(entry.inode)
        if child is None:
            findings.append(Finding("dangling entry", entry.inode, f"{where}: inode {entry.inode} does not exist"))
        elif child.type is not entry.type:
            findings.append(Finding("entry type", entry.inode, f"{where}: {entry.type!r}, inode is {child.type!r}"))
        elif child.type is FileType.DIRECTORY and (child.parent, child.name) != (parent, name):
            text = f"{where}: directory {entry.inode} says it is {child.name!r} of {child.parent}"
            findings.append(Finding("parent", entry.inode, text))


def _check_links(dump: Dump, findings: list[Finding]) -> None:
    names: dict[int, int] = defaultdict(int)
    subdirectories: dict[int, int] = defaultdict(int)
    for (parent, _), entry in dump.entries.items():
        names[entry.inode] += 1
        if entry.type is FileType.DIRECTORY:
            subdirectories[parent] += 1
    for inode, record in dump.inodes.items():
        if record.type is FileType.DIRECTORY:
            detached = not record.parent
            expected = 0 if detached else 2 + subdirectories[inode]
            if not detached and inode != ROOT_INODE and names[inode] != 1:
                findings.append(Finding("directory names", inode, f"directory {inode} has {names[inode]} entries"))
            if detached and names[inode]:
                findings.append(Finding("directory names", inode, f"detached directory {inode} has an entry"))
        else:
            expected = names[inode]
        if record.links != expected:
            findings.append(Finding("link count", inode, f"inode {inode} has {record.links} links, not {expected}"))


def _check_reachable(dump: Dump, findings: list[Finding]) -> None:
    """Everything is below the root or a detached directory, or waits for a session's end or the collector."""
    children: dict[int, list[int]] = defaultdict(list)
    for (parent, _), entry in dump.entries.items():
        children[parent].append(entry.inode)
    roots: list[int] = [ROOT_INODE]
    for inode, record in dump.inodes.items():
        if record.type is FileType.DIRECTORY and not record.parent:
            roots.append(inode)
            if inode not in dump.garbage:
                findings.append(Finding("orphan", inode, f"detached directory {inode} is not queued for collection"))
        elif not record.links and record.type is FileType.FILE:
            roots.append(inode)
            if not dump.sessions.get(inode) and inode not in dump.garbage:
                findings.append(Finding("orphan", inode, f"file {inode} without name is neither open nor queued"))
    seen: set[int] = set()
    pending = roots
    while pending:
        inode = pending.pop()
        if inode not in seen:
            seen.add(inode)
            pending.extend(children[inode])
    for inode in dump.inodes.keys() - seen:
        findings.append(Finding("orphan", inode, f"inode {inode} cannot be reached: no entry, or in a cycle"))


def _check_rest(dump: Dump, findings: list[Finding]) -> None:
    for inode, sessions in dump.sessions.items():
        record = dump.inodes.get(inode)
        if record is None or record.type is not FileType.FILE:
            findings.append(Finding("session", inode, f"{len(sessions)} sessions of inode {inode}, which is no file"))
    for inode, held in dump.locks.items():
        if inode not in dump.inodes:
            findings.append(Finding("locks", inode, f"locks on inode {inode}, which does not exist"))
        for problem in ranges.problems(held) if held else ["a record without locks"]:
            findings.append(Finding("locks", inode, f"locks on inode {inode}: {problem}"))
    for inode, names in dump.xattrs.items():
        if inode not in dump.inodes:
            findings.append(Finding("xattr", inode, f"extended attributes of inode {inode}, which does not exist"))
        size = sum(map(len, names)) + len(names)
        if size > XATTR_LIST_BYTES_MAX:
            findings.append(Finding("xattr", inode, f"inode {inode} has {size} bytes of names of extended attributes"))
    for inode, garbage in dump.garbage.items():
        record = dump.inodes.get(inode)
        if record is None:
            findings.append(Finding("queue", inode, f"queued inode {inode} does not exist"))
        elif record.links or record.type is not garbage.type:
            findings.append(Finding("queue", inode, f"queued inode {inode} has names, or is no {garbage.type!r}"))
    for inode, record in dump.inodes.items():
        if record.due_ns and inode not in dump.garbage:
            findings.append(Finding("due", inode, f"inode {inode} is due for collection, and not queued"))
        if record.flags & (schema.UNNAMED | schema.LINKABLE) and (record.links or record.type is not FileType.FILE):
            findings.append(Finding("unnamed", inode, f"inode {inode} is marked as an unnamed file, and is none"))
        if inode >= dump.next_inode:
            findings.append(Finding("inode counter", inode, f"inode {inode} is not below {dump.next_inode}"))
        findings += [Finding(kind, inode, f"inode {inode}: {text}") for kind, text in _wrong_fields(record)]
    for time_ns, request in dump.answers ^ dump.ages:
        findings.append(Finding("answer", 0, f"request {request.hex()} of {time_ns}: answer and age do not match"))


def _wrong_fields(record: Inode) -> Iterator[tuple[str, str]]:
    """Fields that an inode of this type does not have, or not so."""
    if (record.layout is None) == (record.type in (FileType.FILE, FileType.DIRECTORY)):
        yield "layout", "files and directories, and nothing else, have a layout"
    if record.device and record.type not in DEVICES:
        yield "device", f"a {record.type.name.lower()} has a device number"
    if bool(record.target) != (record.type is FileType.SYMLINK):
        yield "target", "symbolic links, and nothing else, have a target"
    if record.mode & ~MODE_MASK:
        yield "mode", f"mode {record.mode:o}"
    flags = record.flags & schema.USER_FLAGS
    if flags & ~FLAGS or (flags and record.type not in (FileType.FILE, FileType.DIRECTORY)):
        yield "flags", f"flags {flags:#x} of a {record.type.name.lower()}"
