"""Numbers as programs have them, which come out of arrays: integers of NumPy and torch are taken wherever Python's are.

What goes on the wire is Python's own, so every integer of the API passes `integer` at the border.
"""

import operator
from typing import Any

import msgspec

from fs_common.layout import Layout


def integer(value: Any, name: str) -> int:
    """`value` as Python's own integer; `name`: of the argument. TypeError for what is none: floats, and truth values,
    which come out of comparisons of arrays by mistake."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return int(operator.index(value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r})") from None


def nanoseconds(seconds: Any) -> int:
    """Seconds, a `float` or an integer, in nanoseconds; TypeError as from `os.utime`."""
    if isinstance(seconds, float):
        return round(seconds * 1_000_000_000)
    return int(operator.index(seconds)) * 1_000_000_000


def plain_layout(layout: Layout | None) -> Layout | None:
    """The same layout, its numbers being Python's own."""
    if layout is None:
        return None
    fields = {name: getattr(layout, name) for name in layout.__struct_fields__}
    wrong = {
        name: integer(value, f"layout.{name}")
        for name, value in fields.items()
        if not isinstance(value, int) or isinstance(value, bool)
    }
    return msgspec.structs.replace(layout, **wrong) if wrong else layout
