"""Bounds that both ends of a connection agree on. A value over its bound is refused, never cut."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4096
SYMLINK_BYTES_MAX = 4095
SYMLINK_FOLLOW_MAX = 40
PATH_DEPTH_MAX = 1024
LINK_COUNT_MAX = 65_535

XATTR_NAME_BYTES_MAX = 255
XATTR_VALUE_BYTES_MAX = 64 * KIB
XATTR_LIST_BYTES_MAX = 64 * KIB
"""All names of a file together, each with its NUL."""

LOCKS_MAX = 8192
"""Advisory locks on one file."""

CHUNK_SIZE_MIN = 64 * KIB
CHUNK_SIZE_MAX = 64 * MIB
CHUNK_SIZE_DEFAULT = 1 * MIB
CHUNK_INDEX_MAX = 2**32 - 1
FILE_SIZE_MAX = 2**63 - 1

BODY_BYTES_MAX = 4 * MIB
"""A record on the wire; large data is payload, never body."""
PAYLOAD_BYTES_MAX = 64 * MIB
"""One frame's payload; larger transfers are several calls."""
CALLS_IN_FLIGHT_MAX = 1024
"""Requests one connection may have unanswered."""
BYTES_IN_FLIGHT_MAX = 64 * MIB
"""Payload bytes one connection may hold in memory on one side before it stops reading or sending."""

READDIR_PAGE_DEFAULT = 1024
READDIR_PAGE_MAX = 4096
BATCH_NAMES_MAX = 4096
READ_ITEMS_MAX = 4096
UPDATE_ITEMS_MAX = 256
WARM_ITEMS_MAX = 1024
"""Chunks of one WARM_CHUNKS."""
REMOVE_FILES_MAX = 256
"""Files of one REMOVE_FILES."""

PAGE_SIZE_MIN = 4 * KIB
PAGE_SIZE_MAX = 64 * KIB


def page_size(chunk_size: int) -> int:
    """Bytes covered by one checksum of a chunk of `chunk_size` bytes: a 256th of it, 4 to 64 KiB."""
    return min(max(chunk_size // 256, PAGE_SIZE_MIN), PAGE_SIZE_MAX)
