"""Whether the program behind a request is about to end.

The kernel says that a caller was interrupted, not by what, and says it once: for a signal that the program handles, and
for one that ends it. Only in the second case does nobody look at the answer.
"""

import signal

_GOES_ON = frozenset(
    {
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGURG,
        signal.SIGWINCH,
    }
)
"""Signals that end nobody who does not handle them."""
_ENDS = ((1 << 64) - 1) & ~sum(1 << number - 1 for number in _GOES_ON)
_ENDED = frozenset("ZX")
_EXITING = 0x4
"""The flag in /proc/PID/stat of a process that is on its way out."""


def is_ending(pid: int) -> bool:
    """Whether this thread was killed, or is gone. False for one that this pid namespace does not know (0)."""
    if not pid:
        return False
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            fields = dict(line.split(":", 1) for line in status if ":" in line)
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # Behind the command, which may hold anything: state, 5 numbers, flags.
            flags = int(stat.read().rpartition(")")[2].split()[6])
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (OSError, ValueError, IndexError):
        return False
    if flags & _EXITING or fields.get("State", "").strip()[:1] in _ENDED:
        return True
    pending, blocked, ignored, caught = (
        int(fields.get(name, "0"), 16) | int(fields.get(other, "0"), 16)
        for name, other in (("SigPnd", "ShdPnd"), ("SigBlk", "SigBlk"), ("SigIgn", "SigIgn"), ("SigCgt", "SigCgt"))
    )
    return bool(pending & ~blocked & ~ignored & ~caught & _ENDS)
