"""Where memory lies, whose it is, and which views of it to register together.

`addresses_of` runs no bytecode for each view: `from_buffer` and `addressof`, mapped, take 150 ns a view. numpy takes
3,600 ns. `PyObject_GetBuffer` takes 2,100 ns and is used for what cannot be written to, of which there are few parts.
To read the address out of the interpreter's own structures would take 80 ns, and a loop around it.
"""

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

from fs_common.limits import KIB

SPAN_SLACK_BYTES = 256 * KIB
"""Views of one object are registered together if that covers no more than twice their bytes and this."""

addressof = ctypes.addressof
from_buffer = ctypes.c_char.from_buffer
"""Raises TypeError for what cannot be written to, ValueError for what is empty."""

View = memoryview | bytes
"""Contiguous single bytes."""


def addresses_of(views: Sequence[View]) -> list[int]:
    """Of the first byte of each; 0 for an empty one."""
    try:
        return list(map(addressof, map(from_buffer, views)))
    except (TypeError, ValueError):  # read-only, or empty
        return list(map(address_of, views))


class _Buffer(ctypes.Structure):
    """`Py_buffer`; only its beginning matters here."""

    _fields_ = (("address", ctypes.c_void_p), ("rest", ctypes.c_uint8 * 128))


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]


def address_of(memory: View) -> int:
    """Of its first byte; 0 for an empty one. Whoever wants to use it holds the memory."""
    if not len(memory):
        return 0
    if type(memory) is memoryview and not memory.readonly:
        return addressof(from_buffer(memory))
    buffer = _Buffer()
    _get_buffer(memory, buffer, 0)
    address: int = buffer.address
    _release_buffer(buffer)
    return address


def owner_of(view: View) -> tuple[object, bool]:
    """The object whose memory it is, and whether its region may be kept when the call is over.

    Views of one owner lie in one piece of memory. `bytes` never move. A numpy array that owns its memory moves only by
    `resize`, which refuses while anybody else refers to it.
    """
    owner: Any = view.obj if type(view) is memoryview else view
    if type(owner) is bytes:
        return owner, True
    if owner is None:  # nobody says whose it is: it is alone
        return view, False
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(owner, numpy.ndarray):
        return owner, False
    while isinstance(owner, numpy.ndarray) and owner.base is not None:
        owner = owner.base
    if isinstance(owner, numpy.ndarray):
        return owner, bool(owner.flags.owndata)
    if type(owner) is memoryview and owner.obj is not None:
        owner = owner.obj
    return owner, type(owner) is bytes


def spans(members: list[int], addresses: list[int], lengths: list[int]) -> list[tuple[int, int, list[int]]]:
    """The views of one owner as regions to be made: (from, to, which of them)."""
    found: list[tuple[int, int, list[int]]] = []
    low = high = total = 0
    group: list[int] = []
    for i in sorted(members, key=addresses.__getitem__):
        end = max(high, addresses[i] + lengths[i])
        if group and end - low <= 2 * (total + lengths[i]) + SPAN_SLACK_BYTES:
            group.append(i)
            high = end
            total += lengths[i]
            continue
        if group:
            found.append((low, high, group))
        low, high, total, group = addresses[i], addresses[i] + lengths[i], lengths[i], [i]
    if group:
        found.append((low, high, group))
    return found
