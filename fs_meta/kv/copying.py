"""A copy of a store's data file on standard output, while its owner goes on: `python -m fs_meta.kv.copying DIRECTORY`.

A process of its own: the copy holds one of LMDB's snapshots for as long as it takes, and the owner may have to map its
file anew meanwhile, which it must not do under a reader of its own process. The snapshot is the last checkpoint, so a
prefix of the history; pages that no key uses are left out.

Called by: `fs_meta.backup`, after a checkpoint.
"""

import sys

import lmdb


def main() -> None:
    try:
        environment = lmdb.open(sys.argv[1], readonly=True, create=False, max_dbs=0)
        environment.copyfd(1, compact=True)
    except lmdb.Error as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
