"""Which binding of verbs is chosen, and what its import may not leave behind."""

import logging
from pathlib import Path

import pytest

from fs_common.transports.rdma import bindings
from fs_common.transports.rdma.bindings import sysfs
from fs_common.transports.rdma.bindings.descriptors import event_opened_by, opened_by
from fs_common.transports.rdma.verbs import GidKind, VerbsError


class Loaded:
    """Stands for a binding."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the packages that seem to be there."""
    there: set[str] = set()
    monkeypatch.setattr(bindings, "_loaded", {})
    monkeypatch.setattr(bindings, "_import", Loaded)
    monkeypatch.setattr(bindings.importlib.util, "find_spec", lambda name: object() if name in there else None)
    monkeypatch.delenv(bindings.VARIABLE, raising=False)
    return there


def test_the_systems_own_is_preferred(installed: set[str]) -> None:
    installed |= {"pyverbs", "ibverbs"}
    first = bindings.load()
    assert first.name == "pyverbs"
    assert bindings.load() is first, "it is loaded once"


def test_the_other_one_serves_where_it_is_not(installed: set[str]) -> None:
    installed.add("ibverbs")
    assert bindings.load().name == "ibverbs"


def test_the_environment_chooses(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed |= {"pyverbs", "ibverbs"}
    monkeypatch.setenv(bindings.VARIABLE, "ibverbs")
    assert bindings.load().name == "ibverbs"
    monkeypatch.setenv(bindings.VARIABLE, "verbs")
    with pytest.raises(VerbsError, match="EMBERFS_RDMA_BINDING=verbs: the bindings are pyverbs and ibverbs"):
        bindings.load()


def test_without_any_the_error_says_what_to_install(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VerbsError, match=r"python3-pyverbs, or pip install 'emberfs\[rdma\]'"):
        bindings.load()
    installed.add("pyverbs")
    monkeypatch.setenv(bindings.VARIABLE, "ibverbs")
    with pytest.raises(VerbsError, match="ibverbs is not installed"):
        bindings.load()


def test_one_that_does_not_fit_the_machine_is_passed_over(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyverbs of another release than the system's libraries is there, and its import fails."""

    def importing(name: str) -> Loaded:
        if name == "pyverbs":
            raise ImportError("version `IBVERBS_PRIVATE_59' not found")
        return Loaded(name)

    monkeypatch.setattr(bindings, "_import", importing)
    installed |= {"pyverbs", "ibverbs"}
    assert bindings.load().name == "ibverbs"
    with pytest.raises(VerbsError, match="pyverbs cannot be used: version `IBVERBS_PRIVATE_59'"):
        bindings.load("pyverbs")


def test_an_import_does_not_change_the_root_logger() -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with bindings._root_logger_as_it_was():
        root.addHandler(logging.StreamHandler())
        root.setLevel(logging.INFO)
    assert (list(root.handlers), root.level) == before


def test_gids_are_those_that_are_set(tmp_path: Path) -> None:
    """A table with a hole, an old kind, and nothing at its end."""
    port = tmp_path / "mlx5_0" / "ports" / "1"
    (port / "gids").mkdir(parents=True)
    (port / "gid_attrs" / "types").mkdir(parents=True)
    table = {
        0: ("fe80:0000:0000:0000:5054:00ff:fe12:3456", "IB/RoCE v1"),
        1: ("fe80:0000:0000:0000:5054:00ff:fe12:3456", "RoCE v2"),
        2: ("0000:0000:0000:0000:0000:0000:0000:0000", ""),
        5: ("0000:0000:0000:0000:0000:ffff:0a4d:0001", "RoCE v2"),
    }
    for index, (address, kind) in table.items():
        (port / "gids" / str(index)).write_text(address + "\n")
        if kind:
            (port / "gid_attrs" / "types" / str(index)).write_text(kind + "\n")
    found = sysfs.gids("mlx5_0", 1, False, tmp_path)
    assert [(gid.table_index, gid.kind) for gid in found] == [
        (0, GidKind.ROCE_V1),
        (1, GidKind.ROCE_V2),
        (5, GidKind.ROCE_V2),
    ]
    assert str(found[2].ip) == "10.77.0.1"
    assert [gid.kind for gid in sysfs.gids("mlx5_0", 1, True, tmp_path)] == [GidKind.INFINIBAND] * 3
    assert sysfs.gids("mlx5_1", 1, False, tmp_path) == ()


def test_a_descriptor_that_is_none_of_the_library_is_not_taken_for_one(tmp_path: Path) -> None:
    opened = []

    def make() -> None:
        opened.append(open(tmp_path / "other", "w"))  # noqa: SIM115

    assert opened_by(make) == (None, [], [])
    assert event_opened_by(make) == (None, None)
    for file in opened:
        file.close()
