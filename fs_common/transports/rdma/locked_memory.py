"""How much memory this process may lock, which registered memory is, and what to say when that is not enough."""

import contextlib
import errno
import resource

from fs_common.quantities import human_size

ADVICE = (
    "raise it (LimitMEMLOCK=infinity in a systemd unit, --ulimit memlock=-1 for a container, /etc/security/limits.conf"
    " for a login), or set transport to tcp"
)


def raise_limit() -> int | None:
    """Raise the soft limit to the hard one, which needs no privilege. Returns it in bytes; None: there is none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return limit_bytes()


def limit_bytes() -> int | None:
    """What may be locked at present; None: any amount."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def refusal(device: str, asked_bytes: int, registered_bytes: int, number: int, reason: str) -> str:
    """Why memory could not be registered, in one line."""
    what = f"{device}: cannot register {human_size(asked_bytes)} of memory"
    limit = limit_bytes()
    if number in (errno.ENOMEM, errno.EAGAIN) and limit is not None:
        return (
            f"{what}: {human_size(registered_bytes)} are registered, and this process may lock {human_size(limit)}"
            f" (RLIMIT_MEMLOCK, `ulimit -Hl`); {ADVICE}"
        )
    if number == errno.ENOMEM:
        return f"{what} beside the {human_size(registered_bytes)} that are: no room ({reason})"
    return f"{what}: {reason}"
