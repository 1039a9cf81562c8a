#!/bin/bash
# An RDMA WRITE WITH IMMEDIATE needs a posted receive for its immediate value. Where none is posted it fails at the sender as
# RNR_RETRY_EXC_ERR ("receiver not ready"), which sounds as if nothing had been taken. But the receive is needed by the
# last packet only: all packets before that one have been written into the other side's memory by then. With retries
# for ever (rnr_retry 7) they are there although the operation is under way as long as nobody posts a receive.
# So memory belongs to an operation until its completion, whatever that says, and a failed write has to be taken for done
# in part.
#
# Exits 1 when that has changed.
set -euo pipefail
"$(dirname "$0")/soft_roce_guest.sh" <<'PYTHON'
import sys

from soft_roce import e, ends, wait_for

LENGTH = 3000
seen = []
for name, retries in (("one retry", 1), ("for ever", 7)):
    one, other = ends(mtu=e.IBV_MTU_1024, rnr_retry=retries)
    one.bytes[:LENGTH] = b"x" * LENGTH
    one.send(e.IBV_WR_RDMA_WRITE_WITH_IMM, LENGTH, other, immediate=7)
    if retries == 1:
        status = one.wait()
    else:
        wait_for(lambda: other.bytes[0] or None)
        status = wait_for(lambda: other.bytes[2047] or None) and one.poll()
    written = other.bytes[:LENGTH].count(b"x")
    print(f"path MTU 1024, {LENGTH} bytes, no receive, retries: {name}: status {status}, {written} bytes written")
    seen.append((status, written))
    if retries == 7:
        other.receive(16)
        print(f"a receive is posted: status {one.wait()}, {other.bytes[:LENGTH].count(b'x')} bytes written")
sys.exit(0 if seen == [("IBV_WC_RNR_RETRY_EXC_ERR", 2048), (None, 2048)] else 1)
PYTHON
