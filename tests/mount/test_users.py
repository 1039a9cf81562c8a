"""Who asks: groups of the process behind a request, and what is told to whom where the kernel checks nothing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fs_client.cli.local.launch import LaunchedCluster
from fs_client.fuse.users import groups_of
from tests.mount.conftest import Mounted
from tests.posix.people import ALICE, STAFF, as_user, needs_root


def request(**fields: Any) -> Any:
    given = {"pid": os.getpid(), "uid": os.geteuid(), "gid": os.getegid(), "answered": False, "groups": lambda: (77,)}
    return SimpleNamespace(**{**given, **fields})


def own_groups() -> list[int]:
    return sorted({*os.getgroups(), 77} - {os.getegid()})


def test_groups_are_those_of_the_process_that_asks() -> None:
    assert groups_of(request()) == own_groups()


@pytest.mark.parametrize(
    "other",
    [
        {"uid": os.geteuid() + 1},
        {"gid": os.getegid() + 1},
        {"answered": True},
        {"pid": 0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_groups_of_another_process_are_not_taken_for_them(other: dict[str, Any]) -> None:
    """Its number is another one's by now, if nobody waits for the answer any more."""
    assert groups_of(request(**other)) == [77]


@pytest.mark.system
def test_without_the_kernels_checks_nobody_sees_what_he_may_not(
    cluster: LaunchedCluster, mount: Callable[..., Mounted]
) -> None:
    needs_root()
    top = mount(cluster, "mnt", "nodefault_permissions").path
    home = top / "unchecked"
    home.mkdir()
    secret = home / "secret"
    secret.mkdir(mode=0o700)
    (secret / "name").write_bytes(b"contents")
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    os.chown(shared, 0, STAFF)
    (shared / "name").write_bytes(b"contents")

    root = os.open(home, os.O_RDONLY)

    def looks(name: str) -> dict[str, str]:
        # The mountpoint is in a directory that others may not enter.
        os.fchdir(root)
        directory = Path(name)
        outcomes = {}
        for what, call in {
            "list": lambda: os.listdir(directory),
            "scan": lambda: [entry.stat() for entry in os.scandir(directory)],
            "stat": lambda: os.stat(directory / "name"),
            "absent": lambda: os.path.lexists(directory / "other") or os.stat(directory / "other"),
            "read": lambda: (directory / "name").read_bytes(),
        }.items():
            try:
                call()
            except OSError as error:
                outcomes[what] = errno.errorcode[error.errno or 0]
            else:
                outcomes[what] = "ok"
        return outcomes

    well = {"list": "ok", "scan": "ok", "stat": "ok", "absent": "ENOENT", "read": "ok"}
    # What root has just looked up is known to the daemon and to the kernel.
    try:
        for uid, groups, seen in ((0, (), ("secret", "shared")), (ALICE, (STAFF,), ("shared",)), (ALICE, (), ())):
            for name in ("secret", "shared"):
                expected = well if name in seen else dict.fromkeys(well, "EACCES")
                assert as_user(looks, name, uid=uid, groups=groups) == expected, (uid, groups, name)
        assert "stats" in os.listdir(top / ".emberfs")
    finally:
        os.close(root)
