"""Random histories of transactions against a sorted dict."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fs_meta.kv.interface import KeyValueStore, Transaction
from tests.kv.engines import Engine, each_engine
from tests.support import run

KEYS = st.binary(min_size=1, max_size=3).map(lambda raw: bytes(byte % 4 for byte in raw))
BOUNDS = st.binary(max_size=3).map(lambda raw: bytes(byte % 5 for byte in raw))
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=4)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("delete_range"), BOUNDS, BOUNDS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("range"), BOUNDS, BOUNDS, st.integers(0, 4), st.booleans()),
)
TRANSACTIONS = st.lists(st.tuples(st.lists(STEPS, max_size=12), st.booleans()), min_size=1, max_size=8)
"""The steps of each transaction, and whether it raises at its end."""


class _Undone(Exception):
    pass


def expected_range(
    model: dict[bytes, bytes], begin: bytes, end: bytes, limit: int, reverse: bool
) -> list[tuple[bytes, bytes]]:
    pairs = sorted((pair for pair in model.items() if begin <= pair[0] < end), reverse=reverse)
    return pairs[:limit] if limit else pairs


async def take(txn: Transaction, model: dict[bytes, bytes], step: tuple[Any, ...]) -> None:
    """One step on both; what they answer is compared."""
    match step:
        case ("put", key, value):
            txn.put(key, value)
            model[key] = value
        case ("delete", key):
            txn.delete(key)
            model.pop(key, None)
        case ("delete_range", begin, end):
            txn.delete_range(begin, end)
            for key in [key for key in model if begin <= key < end]:
                del model[key]
        case ("get", key):
            assert await txn.get(key) == model.get(key)
        case ("range", begin, end, limit, reverse):
            assert await txn.range(begin, end, limit, reverse) == expected_range(model, begin, end, limit, reverse)


async def play(kv: KeyValueStore, batches: list[list[tuple[list[tuple[Any, ...]], bool]]]) -> dict[bytes, bytes]:
    """Each batch is submitted together; an engine keeps the order of submission."""
    model: dict[bytes, bytes] = {}

    async def one(steps: list[tuple[Any, ...]], raises: bool) -> None:
        async def fn(txn: Transaction) -> None:
            nonlocal model
            trial = dict(model)
            for step in steps:
                await take(txn, trial, step)
            if raises:
                raise _Undone
            model = trial

        if raises:
            with pytest.raises(_Undone):
                await kv.transact(fn)
        else:
            await kv.transact(fn)

    for batch in batches:
        await asyncio.gather(*(one(steps, raises) for steps, raises in batch))
        stored = await kv.read(lambda txn: txn.range(b"", b"\xff"))
        assert stored == sorted(model.items())
    return model


@each_engine
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(TRANSACTIONS, min_size=1, max_size=3))
def test_any_history_is_that_of_a_sorted_dict(engine: Engine, batches: list[Any]) -> None:
    async def scenario(directory: Path) -> None:
        kv = engine.open(directory)
        try:
            model = await play(kv, batches)
        finally:
            await kv.close()
        if engine.durable:
            kv = engine.open(directory)
            try:
                assert await kv.read(lambda txn: txn.range(b"", b"\xff")) == sorted(model.items())
            finally:
                await kv.close()

    with tempfile.TemporaryDirectory() as directory:
        run(scenario(Path(directory)))
