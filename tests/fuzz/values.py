"""Values of a record's type that no program of ours would send: right in their types, wrong in everything else.

Half of them are plausible, so that a request comes past the first check and meets the next.
"""

import random
from typing import Any

import msgspec
from msgspec import inspect

CLIENT = b"c" * 16
INTEGERS = (0, 1, 2, 3, 7, 255, 4095, 4096, 65_536, 1 << 20, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
NEGATIVE = (-1, -2, -4096, -(2**31), -(2**63))
BYTES = (
    b"",
    b".",
    b"..",
    b"/",
    b"a",
    b"f",
    b"d",
    b"a/b",
    b"\0",
    b"\xff\xfe",
    b"user.x",
    b"x" * 255,
    b"x" * 256,
    CLIENT,
)
TEXTS = ("", ".", "..", "/", "a", "test", "a\0b", "x" * 300, "\U0001f600", "127.0.0.1", "::", "%s%n", "-1")
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
LONG = 2000
"""A list that is longer than any program makes it."""


class Values:
    """Of one seed. `known` are values that a server gave: inodes, sessions, versions."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.known: list[int] = [1, 2]
        self.texts: list[bytes] = [b"f", b"d"]

    def record(self, kind: type[msgspec.Struct]) -> Any:
        return self._value(inspect.type_info(kind), 0)

    def learn(self, reply: Any) -> None:
        """What a reply holds is asked for later."""
        for field in getattr(reply, "__struct_fields__", ()):
            value = getattr(reply, field)
            if type(value) is int:
                self.known.append(value)
            elif type(value) is bytes and 0 < len(value) <= 64:
                self.texts.append(value)
            else:
                self.learn(value)
        del self.known[2:-40], self.texts[2:-20]

    def _value(self, kind: Any, depth: int) -> Any:
        chance = self.chance
        match kind:
            case inspect.IntType():
                if chance.random() < 0.6:
                    return chance.choice(self.known)
                return chance.choice(INTEGERS if chance.random() < 0.7 else NEGATIVE)
            case inspect.BytesType() | inspect.ByteArrayType() | inspect.MemoryViewType():
                pick = chance.random()
                if pick < 0.4:
                    return chance.choice(self.texts)
                return chance.choice(BYTES) if pick < 0.9 else chance.randbytes(chance.randrange(3000))
            case inspect.StrType():
                return chance.choice(TEXTS)
            case inspect.BoolType():
                return chance.random() < 0.5
            case inspect.FloatType():
                return chance.choice(FLOATS)
            case inspect.NoneType():
                return None
            case inspect.EnumType():
                return chance.choice(list(kind.cls))
            case inspect.LiteralType():
                return chance.choice(list(kind.values))
            case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
                if chance.random() < 0.02:
                    return [self._value(kind.item_type, depth + 1)] * LONG
                return [self._value(kind.item_type, depth + 1) for _ in range(chance.choice((0, 1, 1, 2, 5)))]
            case inspect.TupleType():
                return tuple(self._value(item, depth + 1) for item in kind.item_types)
            case inspect.DictType():
                size = chance.randrange(3)
                return {self._value(kind.key_type, depth): self._value(kind.value_type, depth) for _ in range(size)}
            case inspect.UnionType():
                return self._value(chance.choice(kind.types), depth + 1)
            case inspect.StructType():
                return kind.cls(**{field.name: self._field(field, depth) for field in kind.fields})
            case inspect.AnyType() | inspect.RawType():
                return chance.choice((None, 1, "a", b"a", []))
        raise AssertionError(f"values of {kind} are not made yet")

    def _field(self, field: inspect.Field, depth: int) -> Any:
        if not field.required and self.chance.random() < 0.5:
            if field.default_factory is not msgspec.NODEFAULT:
                return field.default_factory()
            return field.default
        return self._value(field.type, depth)
