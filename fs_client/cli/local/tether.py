"""Run a command that cannot outlive its parent: `python -IS tether.py PARENT_PID COMMAND [ARGUMENT ...]`.

The kernel kills the command when the process that started it ends, however that ends: a supervisor that was killed
with SIGKILL leaves no daemon behind. SIGKILL, because nobody is left who could enforce anything gentler, and a
daemon survives it by design. The request survives `exec`; it is made here and not in a fork hook, because Python
code between fork and exec is unsafe in a process with threads.

Run as a script by its path, without site packages: it costs a few milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the supervisor ended before its daemon began")
    os.execv(command[0], command)


main()
