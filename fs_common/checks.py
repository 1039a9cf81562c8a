"""Invariants that stay on in production."""

from typing import NoReturn


class InvariantViolation(AssertionError):
    """The process found its own state impossible. It must stop using that state: fence, report, exit."""


def check(condition: object, what: str, *values: object) -> None:
    """Raise `InvariantViolation` unless `condition` holds. `what` names the invariant, `values` the evidence."""
    if not condition:
        violated(what, *values)


def violated(what: str, *values: object) -> NoReturn:
    """Raise `InvariantViolation` for a branch that must not be reached."""
    evidence = ", ".join(repr(value) for value in values)
    raise InvariantViolation(f"{what} ({evidence})" if evidence else what)
