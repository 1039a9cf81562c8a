"""Exactly-once for mutating operations: the answer is written in the transaction that applies the operation.

A retry under the same request id finds the answer and gets it again, whatever has happened to the names since. That
holds for errors too: an operation whose caller was told ENOENT must not succeed when a delayed copy of the request
arrives later. An error has no effect to be atomic with, so it is written in a transaction of its own, unless an answer
is there by then; the transaction that found it is aborted, whatever it had written.

Commit point: the transaction of `once`. A crash before it leaves nothing; after it, a retry gets the answer.

Answers live for `request_keep_ms` of the service's time (see `fs_meta.forget`), which is longer than a client retries.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import msgspec

from fs_common.errors import Code, EmberError, Retry, code_of
from fs_common.methods import BY_NUMBER, Method
from fs_common.records.session import Empty
from fs_meta import schema
from fs_meta.kv.interface import Transaction
from fs_meta.ops.context import Context

_Reply = TypeVar("_Reply", bound=msgspec.Struct)
Apply = Callable[[Transaction], Awaitable[tuple[_Reply, int]]]
"""Applies the operation in a transaction: the reply, and by how much it changes the number of inodes."""

EMPTY = Empty()
_NAMESPACE_ERRORS = range(100, 200)
_encode = msgspec.msgpack.Encoder().encode
_decoders = {number: msgspec.msgpack.Decoder(method.response).decode for number, method in BY_NUMBER.items()}


def check_request(request: bytes) -> None:
    """Raise INVALID unless it is a request id."""
    if len(request) != 16:
        raise EmberError(Code.INVALID, f"request id of {len(request)} bytes, not 16")


async def once(
    context: Context, method: Method, request: bytes, apply: Apply[_Reply], *, relaxed: bool = False
) -> _Reply:
    """Run `apply` in one transaction unless the request has been answered before; return (or raise) the answer.

    `relaxed` as for the store's `transact`: answered before it is on the disk.

    Errors of the store and of retry class SAFE and the like are raised and not remembered: nothing was applied, or
    nobody knows and the retry finds out.
    """
    check_request(request)
    key = b"R" + request
    time_ns = context.service_time.now_ns()
    number = method.number

    async def transaction(txn: Transaction) -> tuple[_Reply, int] | bytes:
        stored = await txn.get(key)
        if stored is not None:
            return stored
        outcome = await apply(txn)
        txn.put(key, schema.encode(schema.Answer(number, time_ns, 0, "", _encode(outcome[0]))))
        txn.put(schema.age_key(time_ns, request), b"")
        return outcome

    try:
        outcome = await context.kv.transact(transaction, relaxed=relaxed)
    except EmberError as error:
        if error.retry is not Retry.FINAL or error.code.value.number not in _NAMESPACE_ERRORS:
            raise
        stored = await _remember_error(context, number, request, time_ns, error, relaxed)
        return cast(_Reply, answer(method, stored))
    if isinstance(outcome, bytes):
        return cast(_Reply, answer(method, outcome))
    reply, difference = outcome
    if difference:
        context.inode_count.add(difference)
    return reply


async def answered(context: Context, request: bytes) -> bytes | None:
    """The stored answer of a request, for operations that do work outside of their transaction."""
    check_request(request)

    async def look(txn: Transaction) -> bytes | None:
        return await txn.get(schema.answer_key(request))

    return await context.kv.read(look)


def answer(method: Method, stored: bytes) -> Any:
    """The reply a stored answer holds; raises the error it holds. INVALID: it is another method's."""
    record = schema.decode_answer(stored)
    if record.method != method.number:
        raise EmberError(Code.INVALID, f"this request id was used for another operation than {method.name}")
    if record.error:
        raise EmberError(code_of(record.error), record.message)
    return _decoders[record.method](record.body)


async def _remember_error(
    context: Context, number: int, request: bytes, time_ns: int, error: EmberError, relaxed: bool
) -> bytes:
    key = schema.answer_key(request)
    value = schema.encode(schema.Answer(number, time_ns, error.code.value.number, error.message))

    async def remember(txn: Transaction) -> bytes:
        stored = await txn.get(key)
        if stored is not None:
            return stored
        txn.put(key, value)
        txn.put(schema.age_key(time_ns, request), b"")
        return value

    return await context.kv.transact(remember, relaxed=relaxed)
