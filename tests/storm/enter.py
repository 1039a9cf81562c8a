"""Run a command as a member of the storm: `python -IS enter.py PARENT_PID NAMESPACE BOOT COMMAND [ARGUMENT ...]`.

It dies with the process that started it. NAMESPACE: descriptor of the network namespace it lives in, or -1. BOOT: the
file that it is to take for the kernel's boot id, or "". Run as a script by its path, without site packages.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
BOOT_ID = b"/proc/sys/kernel/random/boot_id"


def main() -> None:
    parent, namespace, boot, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            sys.exit(f"{name}: {os.strerror(ctypes.get_errno())}")

    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the storm ended before its member began")
    if namespace >= 0:
        call("setns", namespace, CLONE_NEWNET)
        os.close(namespace)
    if boot:
        call("unshare", CLONE_NEWNS)
        # What is unmounted outside is unmounted here, too.
        call("mount", b"none", b"/", None, MS_REC | MS_SLAVE, None)
        call("mount", boot.encode(), BOOT_ID, None, MS_BIND, None)
    os.execv(command[0], command)


main()
