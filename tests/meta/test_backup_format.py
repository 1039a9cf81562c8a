"""Bytes of a backup, and what a restored store is told that it does not know."""

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_common.records.routing import Chain, ChainTarget, PublicState
from fs_meta import schema
from fs_meta.backup_format import HEAD_SIZE, BackupDamaged, Header, decode_header, encode_head, header_size
from fs_meta.manager import records
from fs_meta.manager.records import Head, RestRecord, Store
from fs_meta.restored import INODES, OPENINGS, VERSIONS, changes_of
from fs_meta.restoring import examine

HEADER = Header("lab", b"u" * 16, "0.1.0", 1_000_000_007, 2)
GOLDEN = bytes.fromhex(
    "454d424552424b50"  # magic
    "01000000"  # format
    "23000000"  # header length
    "95a36c6162c41075757575757575757575757575757575a5302e312e30ce3b9aca0702"
)


def test_the_bytes_of_the_head_stay() -> None:
    assert encode_head(HEADER).hex() == GOLDEN.hex()
    assert header_size(GOLDEN) == len(GOLDEN) - HEAD_SIZE
    assert decode_header(GOLDEN[HEAD_SIZE:]) == HEADER


def test_a_whole_file_is_found_right() -> None:
    body = GOLDEN + bytes(5000)
    found = examine(io.BytesIO(body + hashlib.sha256(body).digest()))
    assert found == (HEADER, len(GOLDEN), 5000)


@given(st.binary(max_size=100) | st.binary(max_size=40).map(lambda tail: GOLDEN[:16] + tail))
def test_any_bytes_are_a_backup_or_a_clean_error(data: bytes) -> None:
    with pytest.raises(BackupDamaged):
        examine(io.BytesIO(data))


def test_versions_numbers_and_stores_are_beyond_what_anybody_has() -> None:
    def chain(number: int, *states: PublicState) -> Chain:
        return Chain(number, 7, [ChainTarget(100 * node + number, node, state) for node, state in enumerate(states, 1)])

    stored = {
        schema.NEXT_INODE_KEY: schema.encode(schema.Counter(4097)),
        records.HEAD_KEY: records.encode(Head("lab", 9, 3)),
        records.REST_KEY: records.encode(RestRecord([(1, 5)])),
        records.chain_key(1): records.encode(chain(1, PublicState.SERVING, PublicState.OFFLINE, PublicState.OFFLINE)),
        records.store_key(101): records.encode(Store(101, b"a" * 16, 3, 1, 8)),
        records.store_key(201): records.encode(Store(201, b"b" * 16, 4, 2, 8)),
        records.store_key(301): records.encode(Store(301, b"", 0, 0, 0)),
        records.store_key(402): records.encode(Store(402, b"c" * 16, 4, 2, 8, 0, True)),
    }
    pairs = sorted(stored.items())
    changes = changes_of(stored.get, lambda begin, end: [pair for pair in pairs if begin <= pair[0] < end])

    assert changes.pop(records.REST_KEY) is None
    after = {key: value for key, value in changes.items() if value is not None}
    assert schema.decode_counter(after.pop(schema.NEXT_INODE_KEY)).value == 4097 + INODES
    assert records.decode(b"", after.pop(records.HEAD_KEY), Head) == Head("lab", 9 + VERSIONS, 3)
    made = records.decode(b"", after.pop(records.chain_key(1)), Chain)
    # One that was away may be who has it all now; one that had no store has nothing.
    assert made == Chain(
        1,
        7 + VERSIONS,
        [
            ChainTarget(101, 1, PublicState.SERVING),
            ChainTarget(201, 2, PublicState.SERVING),
            ChainTarget(301, 3, PublicState.OFFLINE),
        ],
    )
    openings = {key: records.decode(b"", value, Store).opening for key, value in after.items()}
    assert openings == {records.store_key(101): 3 + OPENINGS, records.store_key(201): 4 + OPENINGS}
