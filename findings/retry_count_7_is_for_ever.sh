#!/bin/bash
# retry_cnt says how often a queue pair tries again when nobody answers: 0 to 7, a number of three bits. Only its sister
# rnr_retry has a value for "for ever", 7. Soft-RoCE takes 7 of retry_cnt for that as well: work that is posted to a dead peer
# never completes, where with 6 it fails within a second. So 6 is the most to ask for.
#
# Exits 1 when that has changed.
set -euo pipefail
"$(dirname "$0")/soft_roce_guest.sh" <<'PYTHON'
import sys
import time

from soft_roce import e, ends, wait_for

took, seen = [], []
for retries in (6, 7):
    one, other = ends(timeout=12, retry_cnt=retries)
    other.pair.close()
    one.send(e.IBV_WR_RDMA_WRITE, 64, other)
    begun = time.monotonic()
    limit = 30 if retries == 6 else 20 * took[0] + 5
    try:
        status = wait_for(one.poll, limit)
    except TimeoutError:
        status = None
    took.append(time.monotonic() - begun)
    print(f"retry_cnt {retries}, timeout of 17 ms, a peer that is gone: status {status} after {took[-1]:.1f} s")
    seen.append(status)
sys.exit(0 if seen == ["IBV_WC_RETRY_EXC_ERR", None] else 1)
PYTHON
