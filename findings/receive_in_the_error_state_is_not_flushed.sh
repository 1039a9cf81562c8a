#!/bin/bash
# A receive posted to a queue pair in the error state: by the InfiniBand specification it completes at once, flushed, as a send
# does. On soft-RoCE a send does, a receive never: nothing wakes the receiving side. Only those posted before are flushed.
# So nobody may wait for the completion of such a receive: its memory is lent until the queue pair is destroyed.
#
# Exits 1 when that has changed.
set -euo pipefail
"$(dirname "$0")/soft_roce_guest.sh" <<'PYTHON'
import sys
import time

from soft_roce import QPAttr, e, ends

one, other = ends()
one.receive(16)
one.pair.modify(QPAttr(qp_state=e.IBV_QPS_ERR), e.IBV_QP_STATE)
before = one.wait()
one.receive(16)
one.send(e.IBV_WR_SEND, 16)
sent = one.wait()
time.sleep(10)
after = one.poll()
print(f"a receive posted before: {before}; a send posted after: {sent}; a receive posted after, within 10 s: {after}")
sys.exit(0 if (before, sent, after) == ("IBV_WC_WR_FLUSH_ERR", "IBV_WC_WR_FLUSH_ERR", None) else 1)
PYTHON
