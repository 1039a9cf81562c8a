"""Bytes of a version: its block, with its patches laid over. Waits for the disk; used by threads and by recovery.

Raises `EmberError`: CHECKSUM (the device cannot read them, or they are not what was stored).
"""

from crc32c import crc32c

from fs_common.errors import Code, EmberError
from fs_storage.engine.disk import Disk
from fs_storage.engine.versions import PAGE_SHIFTS, Version, overlay


def read_bytes(disk: Disk, version: Version, start: int, end: int) -> bytearray:
    """Bytes `[start, end)` of a version, not verified. `end` <= its length."""
    data = bytearray(end - start)
    block = version.block
    if data and block is not None:
        try:
            count = disk.read(block.file.fd, (data,), block.position + start)
        except OSError as error:
            # Of these bytes, not of the disk: another replica has them, and writing them again may well succeed.
            raise damaged(version, f"{block.file.name} cannot be read at {block.position + start}") from error
        if count < len(data):
            raise damaged(version, f"{block.file.name} ends at {block.position + start + count}")
        overlay(memoryview(data), start, version.patches)
    return data


def read_page(disk: Disk, version: Version, index: int) -> bytearray:
    """The valid bytes of page `index`, verified."""
    shift = PAGE_SHIFTS[version.chunk_bits]
    start = index << shift
    data = read_bytes(disk, version, start, min(start + (1 << shift), version.length))
    if crc32c(data).to_bytes(4, "little") != version.checksums[4 * index : 4 * index + 4]:
        raise damaged(version, f"page {index} does not match its checksum")
    return data


def damaged(version: Version, what: str) -> EmberError:
    block = version.block
    where = f" (block {block.slot} in {block.file.name})" if block is not None else ""
    return EmberError(Code.CHECKSUM, f"stored bytes of version {version.number} are damaged: {what}{where}")
