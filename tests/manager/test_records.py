"""The manager's records in the store: golden bytes, and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_common.errors import Code, EmberError
from fs_common.records.routing import Chain, ChainTable, ChainTarget, NodeState, PublicState
from fs_meta.manager import records
from fs_meta.manager.records import Head, Lease, Move, MoveCause, MoveState, Node, Store, decode, encode

GOLDEN = [
    (Head("prod", 300, 3), "0193a470726f64cd012c03"),
    (
        Lease(bytes(range(16)), 5, 8000),
        "0193c410000102030405060708090a0b0c0d0e0f05cd1f40",
    ),
    (
        Node(7, "10.0.0.7", 9710, NodeState.FAILED, 2**64 - 1, 10**12, "0.1.0", drained=True),
        "019907a831302e302e302e37cd25ee02cfffffffffffffffffcf000000e8d4a51000a5302e312e30c3c2",
    ),
    (
        Chain(2, 9, [ChainTarget(101, 1, PublicState.SERVING), ChainTarget(201, 2, PublicState.OFFLINE)]),
        "01930209929365010193ccc90205",
    ),
    (
        Move(3, 2, 401, 4, 301, MoveCause.DRAIN, MoveState.FILLING, cancelled=False),
        "01980302cd019104cd012d0302c2",
    ),
    (ChainTable(1, 4, [1, 2, 300]), "01930104930102cd012c"),
]


@pytest.mark.parametrize(("record", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_bytes(record: Any, golden: str) -> None:
    assert encode(record).hex() == golden
    assert decode(b"key", bytes.fromhex(golden), type(record)) == record


@pytest.mark.parametrize(
    ("value", "record"),
    [
        (
            "019707a831302e302e302e37cd25ee02cfffffffffffffffffcf000000e8d4a51000a5302e312e30",
            Node(7, "10.0.0.7", 9710, NodeState.FAILED, 2**64 - 1, 10**12, "0.1.0"),
        ),
        ("019565c40101020304", Store(101, b"\x01", 2, 3, 4)),
    ],
)
def test_records_of_earlier_releases_are_read(value: str, record: Any) -> None:
    """Without the fields that were appended since."""
    assert decode(b"key", bytes.fromhex(value), type(record)) == record


def test_golden_keys() -> None:
    assert records.HEAD_KEY == b"\x02manager/head"
    assert records.LEASE_KEY == b"\x02manager/lease"
    assert records.node_key(258) == b"\x02manager/node/\x00\x00\x01\x02"
    assert records.chain_key(2) == b"\x02manager/chain/\x00\x00\x00\x02"
    assert records.table_key(1, 3) == b"\x02manager/table/\x00\x00\x00\x01" + b"\x00" * 7 + b"\x03"


@pytest.mark.parametrize("number", [0, 1, 255, 256, 2**32 - 1])
def test_ranges_hold_their_table_and_no_other(number: int) -> None:
    keys = {
        records.NODES: records.node_key(number),
        records.CHAINS: records.chain_key(number),
        records.TABLES: records.table_key(number, number),
    }
    for (begin, end), mine in keys.items():
        inside = {key for key in (*keys.values(), records.HEAD_KEY, records.LEASE_KEY) if begin <= key < end}
        assert inside == {mine}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (b"", "value version None"),
        (b"\x02\x93\xa1x\x01\x01", "value version 2"),
        (b"\x01", "Head"),
        (b"\x01\x93\xa1x\xa1y\x01", "$[1]"),
        (b"\x01\x91\xa1x", "length"),
    ],
)
def test_other_bytes_are_refused_by_name(value: bytes, names: str) -> None:
    with pytest.raises(EmberError) as refused:
        decode(b"\x02manager/head", value, Head)
    assert refused.value.code is Code.INTERNAL
    assert "manager/head" in str(refused.value) and names in str(refused.value)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.sampled_from([Head, Lease, Node, Chain, ChainTable]))
def test_any_bytes_give_a_record_or_a_clean_error(value: bytes, kind: Any) -> None:
    for candidate in (value, b"\x01" + value):
        try:
            assert isinstance(decode(b"key", candidate, kind), kind)
        except EmberError as error:
            assert error.code is Code.INTERNAL
