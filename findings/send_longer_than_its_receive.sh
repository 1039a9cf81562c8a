#!/bin/bash
# A SEND that is longer than the receive it meets: by the InfiniBand specification and the manual of ibv_poll_cq the
# receiver's completion is LOC_LEN_ERR and the sender's REM_INV_REQ_ERR. Soft-RoCE says LOC_QP_OP_ERR and REM_OP_ERR, and has
# written nothing of a message of one packet. Of one of several packets, those that fitted are in the receive's memory.
# So what kind of mistake it was cannot be told from these statuses; both queue pairs are of no more use.
#
# Exits 1 when that has changed.
set -euo pipefail
"$(dirname "$0")/soft_roce_guest.sh" <<'PYTHON'
import sys

from soft_roce import e, ends

seen = []
for length, room in ((17, 16), (3000, 2500)):
    one, other = ends(mtu=e.IBV_MTU_1024)
    one.bytes[:length] = b"x" * length
    other.receive(room)
    one.send(e.IBV_WR_SEND, length)
    result = (one.wait(), other.wait(), other.bytes[:length].count(b"x"))
    print(f"path MTU 1024, a SEND of {length} bytes into a receive of {room}: sender {result[0]}, receiver {result[1]}, "
          f"{result[2]} bytes written")
    seen.append(result)
statuses = ("IBV_WC_REM_OP_ERR", "IBV_WC_LOC_QP_OP_ERR")
sys.exit(0 if seen == [(*statuses, 0), (*statuses, 2048)] else 1)
PYTHON
