"""What becomes of a file that is there already where a copy goes."""

import enum


class Existing(enum.Enum):
    REPLACE = "replace"
    UPDATE = "update"
    """It is replaced if its contents are older than the source's."""
    KEEP = "keep"
