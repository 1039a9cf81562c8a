"""Whatever a peer sends as a record is one, or raises what `rpc.MALFORMED` lists, however it is nested."""

import random

import msgspec
import pytest

from fs_common import methods
from fs_common.methods import Method
from fs_common.records import locks, meta
from fs_common.records.session import ErrorBody
from fs_common.rpc import MALFORMED, decoder
from tests.fuzz.values import Values

RECORDS = sorted(
    {
        record
        for method in vars(methods).values()
        if isinstance(method, Method)
        for record in (method.request, method.response)
    }
    | {ErrorBody},
    key=lambda record: record.__name__,
)
DEEP = (b"\x91" * 3000 + b"\xc0", b"\x81\x00" * 3000 + b"\xc0", b"\x81\xa1a" * 3000 + b"\xc0", b"\x91\x81\x00" * 2000)
ODD = (
    *DEEP,
    b"\xdd\xff\xff\xff\xff",  # a list, a map, bytes and a string of 4 GiB
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xa2\xff\xfe",  # no UTF-8
    b"\xc1",  # no msgpack
    b"\xd6\xff\xff\xff\xff\xff",  # a time
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xd4\x05\x00",  # an extension
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",  # not a number
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + b"\x00" * 7,
)
PLAIN = (b"\xc0", b"\xc2", b"\xc3", b"\x00", b"\x07", b"\xff", b"\x90", b"\x80", b"\xa0", b"\xc4\x00")


def array_of(values: list[bytes]) -> bytes:
    return b"\xdc" + len(values).to_bytes(2, "big") + b"".join(values)


def some_value(chance: random.Random, depth: int) -> bytes:
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice(ODD)
    if kind < 3 and depth:
        return array_of([some_value(chance, depth - 1) for _ in range(chance.randrange(5))])
    if kind == 3:
        size = chance.randrange(20)
        return b"\xc4" + bytes([size]) + chance.randbytes(size)
    if kind == 4:
        return b"\xa3abc"
    return chance.choice(PLAIN)


@pytest.mark.parametrize("number", [-1, -(2**63), 2**63, 2**64 - 1])
@pytest.mark.parametrize("record", [meta.Stat, meta.Readdir, meta.Usage, meta.Access, locks.ReleaseLocks, meta.SetAttr])
def test_a_number_that_is_none_of_an_inode_makes_no_record(record: type[msgspec.Struct], number: int) -> None:
    """A server that packs it into a key, or adds one, would fail with a defect of its own."""
    names = [field.name for field in msgspec.structs.fields(record)]
    name = "inode" if "inode" in names else "at"
    known = decoder(record)(msgspec.msgpack.encode(msgspec.structs.replace(Values(1).record(record), **{name: 1})))
    body = msgspec.msgpack.encode(msgspec.structs.replace(known, **{name: number}))
    with pytest.raises(msgspec.ValidationError, match=rf"\$\[{names.index(name)}\]"):
        decoder(record)(body)


def test_an_owner_of_a_lock_is_any_64_bits() -> None:
    """The kernel names the owners of a mount's locks, and half of its names have the highest bit."""
    owner = 2**64 - 1
    for request in (
        locks.Lock(1, b"", owner, 1, 0, b""),
        locks.GetLock(1, b"", owner, 1, 0),
        locks.ReleaseLocks(1, b"", owner, 1, b""),
    ):
        assert decoder(type(request))(msgspec.msgpack.encode(request)) == request


@pytest.mark.parametrize(
    ("record", "name"), [(meta.Close, "session"), (meta.Mkdir, "request"), (meta.Readdir, "after")]
)
def test_bytes_that_no_key_could_hold_make_no_record(record: type[msgspec.Struct], name: str) -> None:
    known = Values(1).record(record)
    for field in msgspec.structs.fields(record):
        if isinstance(getattr(known, field.name), int) and not isinstance(getattr(known, field.name), bool):
            known = msgspec.structs.replace(known, **{field.name: 1})
    body = msgspec.msgpack.encode(msgspec.structs.replace(known, **{name: b"x" * 300}))
    with pytest.raises(msgspec.ValidationError, match="length <="):
        decoder(record)(body)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_any_bytes_are_a_record_or_malformed(record: type[msgspec.Struct]) -> None:
    fields = len(msgspec.structs.fields(record))
    chance = random.Random(record.__name__)
    for _ in range(300):
        body = array_of([some_value(chance, 3) for _ in range(fields + chance.randrange(3))])
        try:
            decoder(record)(memoryview(body))
        except MALFORMED:
            pass
        except BaseException as error:
            raise AssertionError(f"{record.__name__} of {body[:100]!r}... raised {error!r}") from None
