"""INIT: what is agreed with which kernel."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_client.fuse import abi
from fs_client.fuse.negotiation import KernelTooOld, Negotiated, Wanted, negotiate, wanted_flags
from fs_client.fuse.requests import Init

EVERYTHING = 2**43 - 1
MIB = 1 << 20


def agree(
    minor: int = 45, flags: int = EVERYTHING, wanted: Wanted | None = None, max_readahead: int = 128 * 1024, **more: int
) -> tuple[dict[str, Any], Negotiated]:
    """The answer's fields, and what is agreed."""
    answer, agreed = negotiate(Init(7, minor, max_readahead, flags), wanted or Wanted(), **more)
    assert agreed is not None
    assert len(answer) == 64
    return dict(zip(abi.INIT_OUT.fields, abi.INIT_OUT.unpack(answer), strict=True)), agreed


def test_a_newest_kernel_gets_what_we_want() -> None:
    fields, agreed = agree()
    assert agreed.flags == wanted_flags(Wanted()) == fields["flags"] | fields["flags2"] << 32
    assert {
        "async_read", "posix_locks", "flock_locks", "atomic_o_trunc", "big_writes", "dont_mask",
        "do_readdirplus", "readdirplus_auto", "async_dio", "parallel_dirops", "handle_killpriv_v2", "max_pages",
        "cache_symlinks", "init_ext", "direct_io_allow_mmap", "abort_error", "setxattr_ext",
    } <= set(agreed.names())  # fmt: skip
    assert not {"writeback_cache", "submounts", "security_ctx", "posix_acl", "over_io_uring"} & set(agreed.names())
    assert (fields["major"], fields["minor"], agreed.minor) == (7, 45, 45)
    assert (fields["max_write"], fields["max_pages"]) == (MIB, 256)
    assert fields["time_gran"] == 1
    assert (fields["max_background"], fields["congestion_threshold"]) == (256, 192)
    assert agreed.setxattr_extended


@pytest.mark.parametrize("minor", range(31, 50))
def test_every_minor_version_from_31_up(minor: int) -> None:
    fields, agreed = agree(minor)
    assert fields["minor"] == agreed.minor == min(minor, abi.MINOR_MAX)


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 99), (0, 0)])
def test_older_ones_are_refused(major: int, minor: int) -> None:
    with pytest.raises(KernelTooOld, match=rf"FUSE {major}\.{minor}; 7\.31 \(Linux 5\.4\) or newer is needed"):
        negotiate(Init(major, minor, 0, EVERYTHING), Wanted())


def test_a_later_major_version_is_answered_with_ours() -> None:
    answer, agreed = negotiate(Init(8, 0, 0, 0), Wanted())
    assert agreed is None
    assert abi.INIT_OUT.unpack(answer)[:2] == (7, abi.MINOR_MAX)


@given(flags=st.integers(0, 2**64 - 1), minor=st.integers(31, 100))
def test_nothing_is_taken_that_was_not_offered(flags: int, minor: int) -> None:
    fields, agreed = agree(minor, flags)
    assert agreed.flags & ~flags == 0
    assert fields["flags"] | fields["flags2"] << 32 == agreed.flags
    if not flags & abi.INIT_INIT_EXT:
        assert fields["flags2"] == 0


@pytest.mark.parametrize(
    ("wanted", "there", "missing"),
    [
        (Wanted(explicit_invalidation=True), "explicit_inval_data", "auto_inval_data"),
        (Wanted(mtime_invalidates=True), "auto_inval_data", "explicit_inval_data"),
        (Wanted(readdirplus=False), None, "do_readdirplus"),
        (Wanted(locks=False), None, "posix_locks"),
        (Wanted(kill_privileges=False), None, "handle_killpriv_v2"),
        (Wanted(export=True), "export_support", "no_export_support"),
        (Wanted(posix_acl=True), "posix_acl", None),
        (Wanted(supplementary_groups=False), None, "create_supp_group"),
    ],
)
def test_settings(wanted: Wanted, there: str | None, missing: str | None) -> None:
    _, agreed = agree(wanted=wanted)
    names = set(agreed.names())
    assert there is None or there in names
    assert missing not in names


@pytest.mark.parametrize(
    ("max_write", "limit", "flags", "agreed_write", "pages"),
    [
        (MIB, 256, EVERYTHING, MIB, 256),
        (4 * MIB, 256, EVERYTHING, MIB, 256),
        (4 * MIB, 1024, EVERYTHING, 4 * MIB, 1024),
        (MIB, 256, EVERYTHING & ~abi.INIT_MAX_PAGES, 128 * 1024, 32),
        (128 * 1024, 256, EVERYTHING, 128 * 1024, 32),
        (5000, 256, EVERYTHING, 5000, 2),
        (1, 256, EVERYTHING, 4096, 1),
    ],
)
def test_size_of_writes(max_write: int, limit: int, flags: int, agreed_write: int, pages: int) -> None:
    fields, agreed = agree(flags=flags, wanted=Wanted(max_write=max_write), max_pages_limit=limit)
    assert (agreed.max_write, fields["max_write"], fields["max_pages"]) == (agreed_write, agreed_write, pages)


def test_the_lesser_read_ahead_counts() -> None:
    assert agree(max_readahead=4096)[1].max_readahead == 4096
    assert agree(max_readahead=2**32 - 1, wanted=Wanted(max_readahead=MIB))[0]["max_readahead"] == MIB


def test_the_threshold_is_not_above_what_is_in_flight() -> None:
    fields, _ = agree(wanted=Wanted(max_background=8))
    assert (fields["max_background"], fields["congestion_threshold"]) == (8, 8)
