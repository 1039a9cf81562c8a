"""The words of `-o`, as mount(8), fstab and `emberfs mount` give them, to checked values.

Words that mount(8) itself understands, and those with which fstab speaks to other programs, are accepted and mean
nothing here. So are those about atime: reading changes no time, and the mount says so whatever is asked for. Unknown
words are refused: a misspelt one would otherwise do nothing in silence. Pure.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fs_client.fuse.policy import Policy
from fs_common.limits import GIB, KIB, MIB
from fs_common.transports.choice import TRANSPORTS

CONSISTENCIES = ("strict", "close-to-open", "dataset")
KERNEL_WORDS = ("nosuid", "nodev", "noexec", "sync")
"""Passed on to mount(2), and `noatime` always."""
_UNDONE = {"suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync"}
"""Words that take another one away."""
_VALUES = ("consistency", "cache", "dirty", "known", "max_read", "max_write", "read_ahead", "timeout", "attr_timeout",
           "entry_timeout", "negative_timeout", "token", "token_file", "tls_ca", "transport",
           "rdma_devices", "rdma_subnets", "log", "log_level", "metrics_port", "metrics_host",
           "slow_operation_ms")  # fmt: skip
"""Words with a value."""
_WORDS = ("ro", "rw", "allow_other", "noallow_other", "default_permissions", "nodefault_permissions",
          "nonempty", "nocontrol", "low_latency", "log_json", "noatime", "remount",
          *KERNEL_WORDS, *_UNDONE)  # fmt: skip
"""Words without."""
_NOT_OURS = ("uid", "gid", "umask", "fmask", "dmask")
"""Of file systems that have no owners and modes of their own."""
_IGNORED = re.compile(
    r"defaults|auto|noauto|user|nouser|users|_netdev|nofail|rw|x-.*|comment=.*"
    r"|(no)?(atime|diratime|relatime|strictatime|lazytime)"
)
_OF_THE_KERNEL = re.compile(r"(fd|rootmode|user_id|group_id|blksize|fsname|subtype)=.*")
"""What /proc/mounts shows of a FUSE mount: mount(8) gives it back when it mounts again."""
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
WRITE_BYTES_MAX = 16 * MIB
METRICS_HOST = "127.0.0.1"
NO_PORT = -1
LOG_LEVELS = ("debug", "info", "warning", "error")
SLOW_OPERATION_MS = 1000
DATASET_S = 3600.0
"""How long a dataset mount believes what it was told."""
DATASET_KNOWN_BYTES = 1 * GIB
"""Of names and attributes: about a million files, so that opens of one epoch are answered from memory in the next."""


class BadOption(ValueError):
    """A word that is not known, or a value that it cannot have. The message is one line."""


@dataclass(slots=True)
class MountOptions:
    policy: Policy = field(default_factory=Policy)
    kernel_words: set[str] = field(default_factory=lambda: {"nosuid", "nodev"})
    remount: bool = False
    """What is mounted gets other words of the kernel's (`ro`, `nosuid`, ...); everything else stays as it is."""
    allow_other: bool | None = None
    """None: if this user may let others use the mount."""
    default_permissions: bool = True
    nonempty: bool = False
    max_read_bytes: int = 0
    """0: as much as one request carries."""
    max_write_bytes: int = 1 * MIB
    """Of one request. More than that only where the administrator raised /proc/sys/fs/fuse/max_pages_limit."""
    read_ahead_bytes: int = 16 * MIB
    low_latency: bool = False
    timeout_s: float = 30.0
    token: str = field(default="", repr=False)
    token_file: str = ""
    tls_ca: str | None = None
    """None: what the environment says; so for the next three."""
    transport: str | None = None
    rdma_devices: str | None = None
    rdma_subnets: str | None = None
    log: str = ""
    log_level: str = "info"
    log_json: bool = False
    metrics_port: int = NO_PORT
    metrics_host: str = METRICS_HOST
    slow_operation_ms: int = SLOW_OPERATION_MS
    own: dict[str, Any] = field(default_factory=dict)
    """What was said of keys that the cluster may configure: it wins."""


def parse(words: Iterable[str]) -> MountOptions:
    """`words`: each one or several with commas between. Later ones win. Raises `BadOption`."""
    options = MountOptions()
    policy = options.policy
    times: dict[str, float] = {}
    given = [word.strip() for text in words for word in text.split(",") if word.strip()]
    read_ahead_given = known_given = False
    for word in given:
        name, equals, value = word.partition("=")
        match name:
            case "consistency" if equals:
                if value not in CONSISTENCIES:
                    raise BadOption(f"consistency={value} is none of {', '.join(CONSISTENCIES)}")
                policy.consistency = value
            case "ro" if not equals:
                policy.read_only = True
            case "rw" if not equals:
                policy.read_only = False
            case "allow_other" | "noallow_other" if not equals:
                options.allow_other = name == "allow_other"
            case "default_permissions" | "nodefault_permissions" if not equals:
                options.default_permissions = policy.kernel_checks = name == "default_permissions"
            case "remount" if not equals:
                options.remount = True
            case "nonempty" if not equals:
                options.nonempty = True
            case "low_latency" if not equals:
                options.low_latency = True
            case "nocontrol" if not equals:
                policy.control = False
            case "cache" if equals:
                policy.cache_bytes = _size(word, value)
            case "dirty" if equals:
                policy.dirty_bytes = _size(word, value, least=MIB)
            case "known" if equals:
                policy.known_bytes = _size(word, value, least=MIB)
                known_given = True
            case "max_read" if equals:
                options.max_read_bytes = _size(word, value, least=4 * KIB)
            case "max_write" if equals:
                options.max_write_bytes = _size(word, value, least=4 * KIB, most=WRITE_BYTES_MAX)
            case "read_ahead" if equals:
                options.read_ahead_bytes = _size(word, value)
                read_ahead_given = True
            case "timeout" if equals:
                options.timeout_s = _seconds(word, value, least=0.1)
            case "attr_timeout" | "entry_timeout" | "negative_timeout" if equals:
                times[name] = _seconds(word, value)
            case "token" if equals:
                options.token = value
            case "token_file" if equals:
                options.token_file = value
            case "tls_ca" if equals:
                options.tls_ca = value
            case "transport" if equals:
                if value not in TRANSPORTS:
                    raise BadOption(f"transport={value} is none of {', '.join(TRANSPORTS)}")
                options.transport = value
            case "rdma_devices" if equals:
                options.rdma_devices = value
            case "rdma_subnets" if equals:
                options.rdma_subnets = value
            case "log" if equals:
                options.log = value
            case "log_level" if equals:
                if value not in LOG_LEVELS:
                    raise BadOption(f"log_level={value} is none of {', '.join(LOG_LEVELS)}")
                options.log_level = options.own["log_level"] = value
            case "log_json" if not equals:
                options.log_json = True
            case "metrics_port" if equals:
                options.metrics_port = _number(word, value, most=65_535)
            case "metrics_host" if equals:
                if not value:
                    raise BadOption("metrics_host= names no address: leave it out for loopback")
                options.metrics_host = value
            case "slow_operation_ms" if equals:
                options.slow_operation_ms = options.own["slow_operation_ms"] = _number(word, value)
            case _ if word in KERNEL_WORDS:
                options.kernel_words.add(word)
            case _ if word in _UNDONE:
                options.kernel_words.discard(_UNDONE[word])
            case _ if _IGNORED.fullmatch(word) or ("remount" in given and _OF_THE_KERNEL.fullmatch(word)):
                pass
            case _:
                raise _bad_word(word, name)
    _apply_consistency(options, times, read_ahead_given=read_ahead_given, known_given=known_given)
    return options


def _apply_consistency(
    options: MountOptions, times: dict[str, float], *, read_ahead_given: bool, known_given: bool
) -> None:
    policy = options.policy
    if policy.strict:
        if any(times.values()):
            raise BadOption("consistency=strict asks every time; leave the ..._timeout options out")
        policy.attribute_s = policy.name_s = policy.absent_s = 0.0
        return
    if policy.dataset:
        policy.read_only = True
        policy.attribute_s = policy.name_s = policy.absent_s = DATASET_S
        if not read_ahead_given:
            options.read_ahead_bytes = 64 * MIB
        if not known_given:
            policy.known_bytes = DATASET_KNOWN_BYTES
    policy.attribute_s = times.get("attr_timeout", policy.attribute_s)
    policy.name_s = times.get("entry_timeout", policy.name_s)
    policy.absent_s = times.get("negative_timeout", min(policy.absent_s, policy.name_s))
    if not policy.kernel_checks:
        # Who looks a name up is told what he may know, each time: a name that the kernel believes it tells everybody.
        policy.name_s = policy.absent_s = 0.0


def _bad_word(word: str, name: str) -> BadOption:
    if name in _VALUES:
        return BadOption(f"option {name!r} needs a value: write {name}=...")
    if name in _WORDS:
        return BadOption(f"option {word!r}: {name} takes no value")
    if name == "writeback":
        return BadOption(
            "option 'writeback': the kernel would keep lengths of files to itself, and lose bytes where another client "
            "writes; leave it out: the daemon gathers small writes"
        )
    if name in _NOT_OURS:
        return BadOption(
            f"option {name!r} is not there: owners and modes are those of the cluster; use chown and chmod"
        )
    known = sorted([*(f"{value}=" for value in _VALUES), *_WORDS])
    close = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ";"
    return BadOption(f"option {word!r} is not known{meant} use any of {', '.join(known)}")


def _size(word: str, value: str, least: int = 0, most: int = 1024 * GIB) -> int:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise BadOption(f"{word}: write a size, for example 64K, 16M or 1G")
    size = int(match[1]) * _UNITS[match[2].upper()]
    if not least <= size <= most:
        raise BadOption(f"{word}: from {least} to {most} bytes")
    return size


def _number(word: str, value: str, most: int = 2**31) -> int:
    if not value.isdecimal() or int(value) > most:
        raise BadOption(f"{word}: from 0 to {most}")
    return int(value)


def _seconds(word: str, value: str, least: float = 0.0) -> float:
    try:
        seconds = float(value)
    except ValueError:
        raise BadOption(f"{word}: write a number of seconds") from None
    if not least <= seconds < 1e9:
        raise BadOption(f"{word}: from {least:g} seconds on")
    return seconds
