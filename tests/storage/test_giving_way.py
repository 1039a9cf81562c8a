import ctypes
import platform
import threading

import pytest

from fs_storage.giving_way import give_way


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the system call is the machine's")
def test_the_reads_of_one_thread_come_last() -> None:
    get = 252
    seen: list[int] = []

    def look() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        seen.append(libc.syscall(get, 1, 0))
        give_way()
        seen.append(libc.syscall(get, 1, 0))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen[1] == (2 << 13) | 7 != seen[0]
