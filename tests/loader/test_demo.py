"""The demo notices whatever is wrong: a byte, a missing sample, an order that repeats."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fs_client.cli import demo as demo_command
from fs_client.cli import progress
from fs_client.cli.demo_data import SourceFile, digest, source_files
from fs_client.cli.failure import Failure
from fs_client.loader.file_dataset import FileDataset
from tests.client.fake_cluster import FakeCluster
from tests.loader.fake_fs import FakeFileSystem

CONTENTS = {f"/t/{i:03}.py": b"print(%d)\n" % i * i for i in range(100)}


@pytest.fixture
def training() -> None:
    """For tests that train: they need torch."""
    pytest.importorskip("torch")


needs_torch = pytest.mark.usefixtures("training")


def sources() -> list[SourceFile]:
    return [
        SourceFile(path.removeprefix("/t/"), Path("/source", path), len(data), digest(data))
        for path, data in CONTENTS.items()
    ]


def run_epochs(contents: dict[str, bytes], **options: int) -> None:
    from fs_client.cli.demo_training import run_epochs as run

    found = run(
        "tree",
        FileDataset(FakeFileSystem(contents), "/t"),
        sources(),
        **{"epochs": 2, "workers": 0, "seed": 1, **options},
    )
    results = list(found)
    assert [(result.samples, result.sample_bytes) for result in results] == [
        (100, sum(map(len, CONTENTS.values())))
    ] * options.get("epochs", 2)
    assert len({result.order for result in results}) == len(results)


@needs_torch
@pytest.mark.parametrize("workers", [0, 2])
def test_good_data_passes(workers: int) -> None:
    run_epochs(dict(CONTENTS), workers=workers, epochs=3)


@needs_torch
@pytest.mark.parametrize("change", [b"print(42)\n" * 41 + b"print(43)\n", b"", b"print(42)\n" * 43])
def test_one_wrong_sample_is_found_and_named(change: bytes) -> None:
    with pytest.raises(Failure, match=r"042\.py was read as"):
        run_epochs(CONTENTS | {"/t/042.py": change})


@needs_torch
def test_a_missing_sample_is_found() -> None:
    contents = dict(CONTENTS)
    del contents["/t/042.py"]
    with pytest.raises(Failure, match="99 samples, the source 100"):
        run_epochs(contents)


@needs_torch
def test_the_order_is_not_the_source_of_truth() -> None:
    """Two files that changed places are two wrong samples, though every content is there."""
    with pytest.raises(Failure, match="was read as"):
        run_epochs(CONTENTS | {"/t/041.py": CONTENTS["/t/042.py"], "/t/042.py": CONTENTS["/t/041.py"]})


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster().running() as running:
        yield running


@needs_torch
def test_the_whole_demo_on_a_small_tree(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, data in CONTENTS.items():
        local = tmp_path / f"p{len(data) % 3}" / Path(path).name
        local.parent.mkdir(exist_ok=True)
        local.write_bytes(data)
    monkeypatch.setattr("fs_client.cli.demo_data.standard_library", lambda: tmp_path)
    demo_command._run(cluster.address, epochs=2, workers=1, seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "source",
        *("tree         epoch 0", "tree         epoch 1", "packed file  epoch 0", "packed file  epoch 1"),
    ]
    assert all("100 samples" in line and "all equal" in line and "samples/s" in line for line in lines[1:])


def test_source_files_leave_installed_packages_out(tmp_path: Path) -> None:
    for name in ("b.py", "a/x.py", "a.py", "c.txt", "site-packages/p.py", "a/__pycache__/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = source_files(tmp_path)
    assert [(file.name, file.size) for file in found] == [("a.py", 4), ("a/x.py", 6), ("b.py", 4)]
    assert found[1].digest == digest(b"a/x.py")


def test_without_torch_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(demo_command.demo)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the demo trains with PyTorch")
    assert "pip install" in result.stderr
    assert result.stderr.count("\n") == 1


@needs_torch
def test_a_directory_that_exists_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo_command.demo, ["--dir", str(tmp_path)])
    assert (result.exit_code, str(tmp_path) in result.stderr) == (1, True)
    assert not list(tmp_path.iterdir())


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with progress.Progress("copying", 100, "files") as shown:
        shown.advance(30)
        monkeypatch.setattr(progress, "LINE_EVERY_S", 1e9)
        shown.advance(30)
    assert capsys.readouterr().err.splitlines() == ["copying: 30 of 100 files"]
