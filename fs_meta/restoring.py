"""A metadata server's store made of a backup: `python -m fs_meta.restoring [--config F] BACKUP`, `emberfs restore`.

Nothing is touched before the whole backup was read and found right. A failure is one line on stderr: exit status 2 for
the configuration, 1 for everything else.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from fs_common.config import META_VARIABLES, ConfigError, load
from fs_common.errors import Code, EmberError
from fs_meta.backup_format import DIGEST_SIZE, HEAD_SIZE, BackupDamaged, Header, decode_header, header_size
from fs_meta.config import MetaConfig
from fs_meta.kv.directory import FORMAT_VERSION
from fs_meta.restored import changes_of

_PART_BYTES = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="emberfs restore", description="Make a metadata store of a backup.")
    parser.add_argument("--config", type=Path, help="TOML file of the metadata server")
    parser.add_argument("backup", type=Path)
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, MetaConfig, META_VARIABLES, os.environ)
    except ConfigError as error:
        return _refuse(str(error), 2)
    try:
        with open(options.backup, "rb") as file:
            header = restore(file, config)
    except BackupDamaged as error:
        return _refuse(f"{options.backup}: {error}", 1)
    except OSError as error:
        return _refuse(f"{options.backup}: {error.strerror}", 1)
    except EmberError as error:
        return _refuse(error.message, 1)
    made = datetime.fromtimestamp(header.made_ns // 1_000_000_000, UTC)
    print(f"restored {header.cluster} as of {made:%Y-%m-%d %H:%M:%S} UTC in {config.directory}: start the server")
    return 0


def restore(file: BinaryIO, config: MetaConfig) -> Header:
    """Raises `BackupDamaged`; `EmberError`: WRONG_CLUSTER, INVALID, BUSY."""
    from fs_meta.kv.restoring import restore_store

    header, begin, size = examine(file)
    if header.cluster != config.cluster:
        raise EmberError(
            Code.WRONG_CLUSTER,
            f"the backup is of cluster {header.cluster!r}, the configuration says {config.cluster!r}",
        )
    if header.kv_format != FORMAT_VERSION:
        raise EmberError(
            Code.INVALID, f"the backup is of a store of format {header.kv_format}: restore it with {header.release}"
        )
    scheme, _, path = config.store_url.partition("://")
    if scheme != "lmdb":
        raise EmberError(Code.INVALID, f"metadata store {config.store_url!r}: only one on a disk can be restored")
    file.seek(begin)
    restore_store(Path(path), file, size, changes_of)
    return header


def examine(file: BinaryIO) -> tuple[Header, int, int]:
    """Read all of it: its header, and where the store's bytes begin and how many there are. Raises `BackupDamaged`."""
    head = file.read(HEAD_SIZE)
    body_size = header_size(head)
    body = file.read(body_size)
    begin = HEAD_SIZE + body_size
    size = file.seek(0, os.SEEK_END) - begin - DIGEST_SIZE
    if size <= 0:
        raise BackupDamaged("it is cut short")
    file.seek(begin)
    digest = hashlib.sha256(head + body)
    left = size
    while part := file.read(min(left, _PART_BYTES)):
        digest.update(part)
        left -= len(part)
    if file.read(DIGEST_SIZE) != digest.digest():
        raise BackupDamaged("it is damaged, or cut short: its checksum does not match")
    return decode_header(body), begin, size


def _refuse(reason: str, status: int) -> int:
    print(f"emberfs restore: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
