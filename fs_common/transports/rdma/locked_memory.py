"""How much memory this process may lock, which registered memory is, and what to say when that is not enough."""

import contextlib
import errno
import resource

from fs_common.quantities import size_words
from fs_common.transports.rdma.verbs import VerbsError

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


def refusal(device: str, asked_bytes: int, registered_bytes: int, error: VerbsError) -> str:
    """Why memory could not be registered, in one line."""
    what = f"{device}: {size_words(asked_bytes)} of memory cannot be registered beside {size_words(registered_bytes)}"
    limit = limit_bytes()
    if error.number in (errno.ENOMEM, errno.EAGAIN) and limit is not None:
        return f"{what}: this process may lock {size_words(limit)} (RLIMIT_MEMLOCK, `ulimit -Hl`); {ADVICE}"
    if error.number == errno.ENOMEM:
        return f"{what}: the adapter or the kernel has no room for more ({error}); use fewer or smaller buffers"
    return f"{what}: {error}"
