"""Where the bytes of an answer's payload land in the memory that its caller gave: one rule for both sides of a wire.

The caller lays out what arrives by it; a server that writes into the caller's memory itself places what it sends by it.

Pure. Called by `rpc.Peer` and by transports.
"""

from collections.abc import Sequence


def filled(sizes: Sequence[int], lengths: Sequence[int] | None, length: int) -> list[int] | None:
    """How many bytes of a payload of `length` bytes land at the start of each view, of views of these `sizes`.

    In order and densely; where the answer has `lengths` and the payload is shorter than all views together, item i's
    bytes land in view i. None: the payload does not fit.
    """
    total = sum(sizes)
    if length > total:
        return None
    if length == total:
        return list(sizes)
    if lengths is None:
        taken = []
        for size in sizes:
            taken.append(min(size, length))
            length -= taken[-1]
        return taken
    if len(lengths) != len(sizes) or sum(lengths) != length:
        return None
    if any(not 0 <= item <= size for item, size in zip(lengths, sizes, strict=True)):
        return None
    return list(lengths)
