"""What the kernel is shown of an inode, whatever the metadata service says of it."""

import inspect
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client.fuse import abi, shown
from fs_client.fuse.nodes import Nodes
from fs_client.fuse.ops import attributes as operations
from fs_common.records.meta import Attributes, FileType
from tests.mount.test_files import opened
from tests.support import run

NUMBERS = st.integers(-(2**63), 2**64 - 1)
"""All that a record can carry."""
ATTRIBUTES = st.builds(
    Attributes,
    inode=st.integers(2, 2**64 - 1),
    type=st.sampled_from(FileType),
    mode=NUMBERS,
    uid=NUMBERS,
    gid=NUMBERS,
    links=NUMBERS,
    length=NUMBERS,
    atime_ns=NUMBERS,
    mtime_ns=NUMBERS,
    ctime_ns=NUMBERS,
    btime_ns=NUMBERS,
    device=NUMBERS,
    flags=NUMBERS,
    version=NUMBERS,
)
_U32, _U64 = 2**32 - 1, 2**64 - 1


def clamped(value: int, high: int) -> int:
    return min(max(value, 0), high)


@given(ATTRIBUTES, st.floats(-10.0, 10.0))
def test_every_record_has_a_form_for_the_kernel(record: Attributes, age_s: float) -> None:
    """What fits is shown as it is, the rest as the nearest that fits; nothing raises."""
    nodes = Nodes(1, attribute_s=1.0, name_s=1.0, absent_s=1.0)
    node = nodes.adopt(record, nodes.stamp(), 100.0)
    now = 100.0 + age_s
    entry = shown.entry(node, 100.5, now)
    answer = shown.attr_out(node, now)
    assert entry[abi.ENTRY_OUT.size :] == answer[abi.ATTR_OUT.size :]
    fields = dict(zip(abi.ATTR.fields, abi.ATTR.unpack_from(answer, abi.ATTR_OUT.size), strict=True))
    assert fields["ino"] == record.inode
    assert fields["nlink"] == clamped(record.links, _U32)
    assert (fields["uid"], fields["gid"]) == (clamped(record.uid, _U32), clamped(record.gid, _U32))
    assert fields["mode"] == shown.TYPE_BITS[record.type] | record.mode & 0o7777
    assert fields["rdev"] == clamped(record.device, _U32)
    if record.type is not FileType.DIRECTORY:
        assert fields["size"] == clamped(record.length, _U64)
    assert fields["mtime"] * 10**9 + fields["mtimensec"] == record.mtime_ns


@given(ATTRIBUTES)
def test_statx_too(record: Attributes) -> None:
    async def scenario() -> None:
        with opened() as (mount, _, _, _, _):
            node = mount.nodes.learn(record, mount.now())
            request = SimpleNamespace(node=node.inode, uid=0, gid=0, pid=1)
            answer = operations.handlers(mount)[abi.Opcode.STATX](request)  # type: ignore[arg-type]
            assert inspect.isawaitable(answer)
            body = await answer
            assert isinstance(body, bytes)
            fields = dict(zip(abi.STATX.fields, abi.STATX.unpack_from(body, abi.STATX_OUT.size), strict=True))
            assert fields["nlink"] == clamped(record.links, _U32)
            assert fields["mode"] == shown.mode(record)
            assert fields["btime"] * 10**9 + fields["btimensec"] == record.btime_ns

    run(scenario())


def test_what_does_not_fit_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    nodes = Nodes(1, attribute_s=1.0, name_s=1.0, absent_s=1.0)
    record = Attributes(7, FileType.FILE, 0o644, 0, 0, -1, 0, 0, 0, 0)
    shown.attr_out(nodes.adopt(record, nodes.stamp(), 100.0), 100.0)
    assert "-1" in caplog.text
