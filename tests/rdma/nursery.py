"""Starts daemons by forking from a process that has imported them: `python -m tests.rdma.nursery`.

In an emulated machine an import of everything takes half a minute, which each daemon of a cluster would pay by itself.
No verbs are used here before the fork. A line of input `ROLE<tab>LOG<tab>CONFIG` starts one; its process id is
answered. At the end of input the daemons that are left are killed.
"""

import contextlib
import os
import signal
import sys
import traceback


def be_patient(pool: type) -> None:
    """What answers at once elsewhere may take seconds here: nobody is given up for that, and no byte moves twice."""
    from fs_common.transports.rdma import setup

    pool.__init__.__kwdefaults__["connect_timeout_s"] = 30.0  # type: ignore[misc]
    setup.PERSISTENCE = setup.PERSISTENCE._replace(timeout=18)


def main() -> None:
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    import fastapi  # noqa: F401
    import grpc  # noqa: F401
    import lmdb  # noqa: F401
    import numpy  # noqa: F401

    import fs_common.peers
    import fs_meta.__main__
    import fs_storage.__main__

    mains = {"meta": fs_meta.__main__.main, "storage": fs_storage.__main__.main}
    be_patient(fs_common.peers.PeerPool)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    started: list[int] = []
    print("imported", flush=True)
    for line in sys.stdin:
        role, log, config = line.rstrip("\n").split("\t")
        process = os.fork()
        if not process:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.dup2(file, 1)
                os.dup2(file, 2)
                status = mains[role](["--config", config, "--format-if-missing"])
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        started.append(process)
        print(process, flush=True)
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
