"""What a mount promises and how much it may keep: the values that operations look at.

| consistency     | attributes, names | page cache           | reads and look-ups of files   |
| --------------- | ----------------- | -------------------- | ----------------------------- |
| `strict`        | asked every time  | none (direct I/O)    | length asked at the end       |
| `close-to-open` | 1 s, see below    | kept while unchanged | open asks, see below          |
| `dataset`       | long; read-only   | kept                 | open is answered from memory  |

Close-to-open: what the service has promised to tell changes of is believed until it tells. The kernel is told 1 s all
the same, and asks again; it is answered, and files are opened for reading, without asking the service.
"""

from dataclasses import dataclass

from fs_common.limits import MIB


@dataclass(slots=True)
class Policy:
    """Not frozen: some of it may be set while mounted (`.emberfs/set-conf`)."""

    consistency: str = "close-to-open"
    attribute_s: float = 1.0
    name_s: float = 1.0
    absent_s: float = 1.0
    """For names that do not exist."""
    read_only: bool = False
    cache_bytes: int = 256 * MIB
    """Of the daemon's own cache of file data, for direct I/O."""
    dirty_bytes: int = 256 * MIB
    """Written and not yet stored, of all files."""
    known_bytes: int = 80 * MIB
    """About what the daemon remembers of names and attributes; see `forgetting`."""
    kernel_checks: bool = True
    """The kernel checks permissions before it asks (`default_permissions`)."""
    control: bool = True
    """There is a `.emberfs` directory."""

    @property
    def strict(self) -> bool:
        return self.consistency == "strict"

    @property
    def dataset(self) -> bool:
        return self.consistency == "dataset"
