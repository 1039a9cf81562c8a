"""A mount of data that does not change changes nothing, also where the kernel lets programs try (`remount,rw`)."""

import errno
import os
from collections.abc import Awaitable
from typing import Any

import pytest

from fs_client.fuse import abi
from fs_client.fuse.abi import Opcode
from fs_client.fuse.kernel_request import Request
from fs_client.fuse.mount import Mount
from fs_client.fuse.ops.table import all_handlers
from fs_client.fuse.policy import Policy
from tests.mount.test_files import FileSystem
from tests.support import run


@pytest.mark.parametrize("opcode", [Opcode.CREATE, Opcode.MKDIR, Opcode.RENAME2, Opcode.SYMLINK, Opcode.OPEN])
def test_it_is_read_only(opcode: Opcode) -> None:
    async def scenario() -> None:
        mount = Mount(FileSystem(), Policy(consistency="dataset", control=False))  # type: ignore[arg-type]
        body = abi.OPEN_IN.pack(os.O_WRONLY, 0) + bytes(100)
        with pytest.raises(OSError) as refused:
            result: Any = all_handlers(mount)[opcode](Request(1, opcode, 1, 0, 0, 0, bytearray(body), None, 0))
            if isinstance(result, Awaitable):
                await result
        assert refused.value.errno == errno.EROFS

    run(scenario())
