"""Permission bits as chmod(1) takes them: `755`, `u+x`, `g-w,o=r`, `a+rX`. Pure."""

import re
from collections.abc import Callable

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo])(?=[-+=]|$)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_ALL = 0o7777

Change = Callable[[int, bool], int]
"""(bits before, whether it is a directory) -> bits after"""


def octal(text: str) -> int | None:
    """None: it is no mode in octal."""
    return int(text, 8) if re.fullmatch("[0-7]{1,5}", text) and int(text, 8) <= _ALL else None


def change_of(text: str, umask: int = 0) -> Change:
    """What a mode does. Raises `ValueError`. `umask` bounds clauses that name nobody, as `+x`."""
    absolute = octal(text)
    if absolute is not None:
        # As GNU does: a number of up to four digits leaves the set-id bits of directories.
        kept = 0 if len(text) > 4 else 0o6000
        return lambda bits, directory: absolute | (bits & kept if directory else 0)
    clauses = [_CLAUSE.fullmatch(clause) for clause in text.split(",")]
    if not all(clauses):
        raise ValueError(f"{text!r} is not a mode like 755, u+x or go-w,a+rX")

    def change(bits: int, directory: bool) -> int:
        for clause in clauses:
            assert clause is not None
            for action in _ACTION.finditer(clause[2]):
                bits = _apply(bits, clause[1], action[1], action[2], directory, umask)
        return bits

    return change


def _apply(bits: int, who: str, operator: str, what: str, directory: bool, umask: int) -> int:
    people = "ugo" if not who or "a" in who else "".join(dict.fromkeys(who))
    granted = _granted(bits, what, directory)
    wanted = 0
    for one in people:
        wanted |= granted << _SHIFTS[one]
        if "s" in what and one in "ug":
            wanted |= 0o4000 if one == "u" else 0o2000
    if "t" in what and (not who or "a" in who or "o" in who):
        wanted |= 0o1000
    if not who:
        wanted &= ~umask
    if operator == "+":
        return bits | wanted
    if operator == "-":
        return bits & ~wanted
    cleared = sum(7 << _SHIFTS[one] for one in people)
    if not directory:
        cleared |= (0o4000 if "u" in people else 0) | (0o2000 if "g" in people else 0)
    cleared |= 0o1000 if "o" in people else 0
    return bits & ~cleared | wanted


def _granted(bits: int, what: str, directory: bool) -> int:
    """Of the letters: the three bits that each of those named gets."""
    if what in _SHIFTS and what:
        return bits >> _SHIFTS[what] & 7
    granted = 0
    for letter in what:
        granted |= _BITS.get(letter, 0)
        if letter == "X" and (directory or bits & 0o111):
            granted |= 1
    return granted
