"""Trace ids: a number for each operation of a client, carried by every call that is made because of it.

A client chooses one when an operation begins (`begin`): a call of its API, a request of the kernel to a mount. Each
frame that goes out meanwhile has it in its header (`frames.py`). A server works on a request under the id that came
with it (`enter`), so what it sends and what it logs because of the request has it, too. 0: no operation, as work that a
daemon does of its own accord.

The id is in a context variable: tasks have that of whoever made them. Two rules keep it right:

* Whoever enters it leaves it in the same step (`enter(0)`); what has suspended until then goes on in a task with it.
* A task that outlives the operation is made with a context of its own (`no_operation`).

Setting and resetting it takes a quarter of a microsecond.
"""

import contextvars
import random

TRACE_MAX = 2**32 - 1

_current: contextvars.ContextVar[int] = contextvars.ContextVar("trace", default=0)

current = _current.get
"""The id of the operation that is worked on here; 0: none."""
enter = _current.set
"""Work on behalf of this operation from here on; 0: of none."""

_numbers = random.Random()
_seed = _numbers.getrandbits(32)
_SPREAD = 0x9E3779B1
"""Odd, so that different numbers give different ids."""


def new_trace() -> int:
    """An id that nobody else has lately: 32 random bits, not all zero."""
    return _numbers.getrandbits(32) or 1


def begin() -> bool:
    """An operation begins here, unless this is part of one. True: it does, and whoever has asked calls `end`."""
    if _current.get():
        return False
    _current.set(_numbers.getrandbits(32) or 1)
    return True


def end() -> None:
    """The operation that `begin` has begun is over."""
    _current.set(0)


def new_operation() -> contextvars.Context:
    """For a task that is an operation."""
    context = contextvars.copy_context()
    context.run(enter, _numbers.getrandbits(32) or 1)
    return context


def numbered(number: int) -> int:
    """The id of the operation that has this number within this process."""
    return (_seed + number * _SPREAD) & TRACE_MAX or 1


def no_operation() -> contextvars.Context:
    """For tasks that belong to no operation, whoever makes them."""
    return contextvars.Context()


def shown(trace: int) -> str:
    """As logs have it."""
    return f"{trace:08x}"
