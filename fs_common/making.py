"""Whether a daemon may make what its directory is to hold: said on its command line, at its first start.

A directory that is empty may be a new one, or one that has lost what it held, or whose disk is not mounted. So nothing
is made unless it is asked for.

Called by: the mains of the daemons.
"""

import argparse
import enum


class Making(enum.Enum):
    NO = "no"
    """An empty directory is refused."""
    YES = "yes"
    """It has to be empty: a word that stays in a unit file must not make a new store when a disk is missing."""
    IF_MISSING = "if missing"
    """What is there is used. For the first start of `emberfs up`, which may be interrupted and repeated, and for
    containers, whose volumes are made with them."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--format` and `--format-if-missing`: `making`; `--format-only`: `only`."""
    parser.set_defaults(making=Making.NO)
    parser.add_argument("--format-only", dest="only", action="store_true", help="the same, without serving")
    parser.add_argument(
        "--format",
        dest="making",
        action="store_const",
        const=Making.YES,
        help="first start: make the directory's contents, then serve; refused if there are any",
    )
    parser.add_argument(
        "--format-if-missing",
        dest="making",
        action="store_const",
        const=Making.IF_MISSING,
        help="make the directory's contents if there are none",
    )
