"""Sizes and counts as people read them: powers of 1024 everywhere. Pure.

In sentences and bars a size has its unit, `1.5 MiB`; columns that are known from coreutils (`ls -h`, `du`, `df`) have
its letter alone, `1.5M`, for the same number.
"""

_UNITS = "KMGTPE"


def human_size(size: int) -> str:
    """1023, 1.0K, 1.5M, 12G: three digits at most, powers of 1024, rounded up like `du -h`."""
    if size < 1024:
        return str(size)
    power = 0
    value = size
    while value >= 1024 and power < len(_UNITS):
        power += 1
        value = size // 1024**power
    unit = 1024**power
    tenths = -(-size * 10 // unit)
    if tenths < 100:
        return f"{tenths // 10}.{tenths % 10}{_UNITS[power - 1]}"
    whole = -(-size // unit)
    if whole == 1024 and power < len(_UNITS):
        return f"1.0{_UNITS[power]}"
    return f"{whole}{_UNITS[power - 1]}"


def size_words(size: int) -> str:
    """1023 B, 1.5 KiB, 12 GiB."""
    text = human_size(size)
    return f"{text} B" if text[-1].isdigit() else f"{text[:-1]} {text[-1]}iB"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """`1 file`, `2 files`, `1,000 directories`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
