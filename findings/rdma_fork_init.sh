#!/bin/bash
# ibv_fork_init takes registered memory away from forked children, also where it says that it is not needed.
# Its manual calls it a precaution for programs that fork; kernels since 5.12 copy pinned pages for the child, and
# ibv_is_fork_initialized says so (2: unneeded). A program that calls ibv_fork_init all the same has its registered ranges
# marked MADV_DONTFORK: a child that touches one is killed by SIGSEGV, a worker that inherited an array for one.
# So it is called only where ibv_is_fork_initialized does not say 2 (fs_common/transports/rdma/bindings).
#
# Runs in the guest of tests/rdma (77: it cannot be had here). Exits 1 when that has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
exec bash tests/rdma/guest.sh python3 -c "$(
    cat <<'PYTHON'
import ctypes
import mmap
import os
import subprocess
import sys

if len(sys.argv) == 1:
    run = [sys.executable, "-c", open("/proc/self/cmdline").read().split("\0")[2]]
    plain, asked = (subprocess.run([*run, how]).returncode for how in ("plain", "asked"))
    sys.exit(0 if (plain, asked) == (0, 11) else 1)

from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD

library = ctypes.CDLL("libibverbs.so.1")
if sys.argv[1] == "asked":
    library.ibv_fork_init()
memory = mmap.mmap(-1, 1 << 20)
pin = (ctypes.c_char * len(memory)).from_buffer(memory)
context = Context(name="rxe0")
domain = PD(context)
region = MR(domain, len(memory), 1, address=ctypes.addressof(pin))
child = os.fork()
if not child:
    memory[:]
    os._exit(0)
signal = -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
state = library.ibv_is_fork_initialized()
print(f"{sys.argv[1]}: ibv_is_fork_initialized says {state}; a child that reads registered memory ends by signal {signal}")
sys.stdout.flush()
os._exit(signal)
PYTHON
)"
