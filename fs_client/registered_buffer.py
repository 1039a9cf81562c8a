"""Buffers of which a program says that it will use them again and again: registered once, where there is an adapter.

Source of the rules: `fs_common.lasting`.
"""

from types import TracebackType
from typing import Any, Self

from fs_common.lasting import Lasting, lasting, lasting_address
from fs_common.rpc import byte_view


class RegisteredBuffer:
    """Memory that is announced until `close`, or until nobody holds this. A context manager."""

    __slots__ = ("_lasting", "view")

    def __init__(self, memory: Lasting, view: memoryview) -> None:
        self._lasting = memory
        self.view = view
        """All of it, as bytes; for `into` of `read_ranges` and the like. Released by `close`."""
        try:
            memory.prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The buffer is an ordinary one again; of memory by address: it may go. Closing twice is fine.

        Raises OSError (EAGAIN) for memory by address that a call still uses; close it again when that has returned.
        """
        self._lasting.close()
        self.view.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def register(buffer: Any) -> RegisteredBuffer:
    view = byte_view(memoryview(buffer))
    return RegisteredBuffer(lasting(view), view)


def register_address(address: int, length: int, dmabuf: tuple[int, int] | None) -> RegisteredBuffer:
    if address <= 0 or length <= 0 or address + length > 1 << 64:
        raise ValueError(f"{length} bytes at address {address:#x} are no memory")
    if dmabuf is not None and (dmabuf[0] < 0 or dmabuf[1] < 0):
        raise ValueError(f"a dma-buf is an open descriptor and an offset in it, not {dmabuf}")
    import ctypes

    view = memoryview((ctypes.c_char * length).from_address(address)).cast("B")
    return RegisteredBuffer(lasting_address(address, length, dmabuf), view)
