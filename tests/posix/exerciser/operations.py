"""Operations on file contents as values, and how the next one is chosen.

An operation is complete in itself: numbers, no references to what was before. So a list of them can be written down,
played again, and thinned out until only those are left that a failure needs.
"""

import json
import random
from collections.abc import Sequence
from typing import NamedTuple

FILES = 2
PAGE = 4096


class Operation(NamedTuple):
    name: str
    file: int
    offset: int = 0
    length: int = 0
    argument: int = 0
    """Of copies: the offset in the target; of truncations: 1 by name, 0 by descriptor; of mapped writes: 1 with msync;
    of reopenings: the flags' index; of preallocations: 1 keeps the size."""
    seed: int = 0
    """Of the bytes that are written."""

    def __str__(self) -> str:
        fields = zip(self._fields[1:], self[1:], strict=True)
        return f"{self.name} {' '.join(f'{field}={value}' for field, value in fields)}"

    def to_line(self) -> str:
        return json.dumps(list(self), separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> "Operation":
        return cls(*json.loads(line))


WEIGHTS = {
    "read": 200,
    "write": 220,
    "append": 60,
    "truncate": 50,
    "map": 15,
    "mapped-read": 80,
    "mapped-write": 80,
    "punch": 40,
    "zero": 30,
    "allocate": 30,
    "copy": 40,
    "copy-within": 25,
    "seek": 60,
    "fsync": 15,
    "fdatasync": 15,
    "forget": 15,
    "reopen": 40,
    "stat": 40,
    "replace": 6,
    "clone": 4,
    "unlink": 6,
    "verify": 4,
}
"""How often each comes, relative to the others. Those that touch the whole file are rare."""
SWITCH_WEIGHT = 60


class Chooser:
    """An endless sequence of operations that depends on the seed alone."""

    def __init__(self, seed: int, size_max: int, *, without: Sequence[str] = (), mounts: int = 1) -> None:
        self._random = random.Random(seed)
        self._size_max = size_max
        weights = {name: weight for name, weight in WEIGHTS.items() if name not in without}
        if mounts > 1:
            weights["switch"] = SWITCH_WEIGHT
        self._names = list(weights)
        self._weights = list(weights.values())
        self._sizes = [0] * FILES
        """Where the ends of the files are, roughly: operations are more telling close to them."""

    def next(self) -> Operation:
        chance = self._random
        name = chance.choices(self._names, self._weights)[0]
        file = chance.randrange(FILES)
        offset, length = self._range(file)
        argument = chance.randrange(1 << 20)
        match name:
            case "truncate":
                length = 0
                argument %= 2
            case "copy" | "copy-within":
                argument = self._offset(file)
            case "mapped-write" | "allocate":
                argument %= 2
            case _:
                pass
        self._grow(name, file, offset, length, argument)
        return Operation(name, file, offset, length, argument, chance.randrange(1, 250))

    def _range(self, file: int) -> tuple[int, int]:
        offset = self._offset(file)
        kind = self._random.random()
        if kind < 0.5:
            length = self._random.randrange(1, 8192)
        elif kind < 0.8:
            length = self._random.choice((1, PAGE, 2 * PAGE, 16 * PAGE, 1 << 17))
        else:
            length = self._random.randrange(1, 1 << 18)
        return offset, max(1, min(length, self._size_max - offset))

    def _offset(self, file: int) -> int:
        kind = self._random.random()
        near = self._sizes[file] if kind < 0.3 else self._random.randrange(self._size_max)
        if 0.3 < kind < 0.5:
            near &= -PAGE
        elif 0.5 < kind < 0.6:
            near &= -(1 << 16)
        elif kind < 0.3:
            near += self._random.choice((0, 0, -1, 1, -100, 100, -PAGE, -5000, 1 << 16))
        return max(0, min(near, self._size_max - 1))

    def _grow(self, name: str, file: int, offset: int, length: int, argument: int) -> None:
        sizes = self._sizes
        match name:
            case "write" | "zero":
                sizes[file] = max(sizes[file], offset + length)
            case "append":
                sizes[file] = min(sizes[file] + length, self._size_max)
            case "allocate" if not argument:
                sizes[file] = max(sizes[file], offset + length)
            case "truncate":
                sizes[file] = offset
            case "replace" | "unlink":
                sizes[file] = min(offset, 1 << 18)
            case "clone":
                sizes[1 - file] = sizes[file]
            case _:
                pass
