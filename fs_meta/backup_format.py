"""Bytes of a backup of the metadata store: one file that says what it is, whether it is whole, and whose.

    offset  size  field
    0       8     b"EMBERBKP"
    8       4     format version, 1 (little-endian, as the next)
    12      4     header length h, at most 64 KiB
    16      h     header: msgpack, an array of `Header`'s fields
    16+h    ...   the store: a data file of LMDB, without free pages
    -32     32    SHA-256 of everything before

A field of the header is only ever appended, with a default, under the same format version. The file has the digests of
all tokens and the keys of all passes: it is a secret.

Written by `backup`, read by `restoring`. Pure.
"""

import struct

import msgspec

MAGIC = b"EMBERBKP"
FORMAT = 1
DIGEST_SIZE = 32
HEADER_BYTES_MAX = 64 << 10
_HEAD = struct.Struct("<8sII")
HEAD_SIZE = _HEAD.size
assert HEAD_SIZE == 16


class BackupDamaged(Exception):
    """`str()`: what is wrong, without the file's name."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    cluster: str
    uuid: bytes
    """Of the cluster."""
    release: str
    made_ns: int
    """Wall clock."""
    kv_format: int
    """Format of the store's directory."""


def encode_head(header: Header) -> bytes:
    body = msgspec.msgpack.encode(header)
    return _HEAD.pack(MAGIC, FORMAT, len(body)) + body


def header_size(head: bytes) -> int:
    """Of the header, from the file's first `HEAD_SIZE` bytes. Raises `BackupDamaged`."""
    if len(head) < HEAD_SIZE:
        raise BackupDamaged("it is too short")
    magic, version, size = _HEAD.unpack(head[:HEAD_SIZE])
    if magic != MAGIC:
        raise BackupDamaged("it is no backup of a metadata store")
    if version != FORMAT:
        raise BackupDamaged(f"it has format {version}, this release reads {FORMAT}")
    if size > HEADER_BYTES_MAX:
        raise BackupDamaged(f"header length = {size}, more than {HEADER_BYTES_MAX}")
    return int(size)


def decode_header(body: bytes) -> Header:
    """Raises `BackupDamaged`."""
    try:
        return msgspec.msgpack.decode(body, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a string that is not UTF-8 is raised as the latter
        raise BackupDamaged(f"its header is damaged: {error}") from None
