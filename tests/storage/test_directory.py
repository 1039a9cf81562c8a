"""A daemon's directory is its own: made once, refused to others, whatever a crash left of its making."""

import json
from pathlib import Path

import pytest

from fs_common.making import Making
from fs_common.records.cluster_config import PushedConfig
from fs_storage.directory import DirectoryRefused, claim


def refusal(path: Path, cluster: str = "c", node: int = 1, making: Making = Making.IF_MISSING) -> str:
    with pytest.raises(DirectoryRefused) as caught:
        claim(path, cluster, node, making)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_it_is_made_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with claim(path, "c", 1) as directory:
        assert directory.target(101) == path / "target-101"
    assert json.loads((path / "node.json").read_text()) == {"format": 2, "cluster": "c", "node": 1, "cluster_uuid": ""}
    (path / "target-101").mkdir()
    claim(path, "c", 1).close()


def test_it_belongs_to_one_node_of_one_cluster(tmp_path: Path) -> None:
    claim(tmp_path, "c", 1).close()
    assert "cluster 'c', not to 'other'" in refusal(tmp_path, cluster="other")
    assert "node 1, not to node 2" in refusal(tmp_path, node=2)
    claim(tmp_path, "c", 1).close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with claim(tmp_path, "c", 1):
        assert "in use" in refusal(tmp_path)
    claim(tmp_path, "c", 1).close()


def test_a_crash_before_the_commit_point_leaves_a_directory_that_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "node.json.new").write_text('{"for')
    claim(tmp_path, "c", 1).close()


def test_what_is_not_a_daemons_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "thesis.tex" in refusal(tmp_path)
    assert not (tmp_path / "node.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 1, "cluster": "c", "node": 1, "extra": 0}',
        '{"format": 2, "cluster": "c", "node": 1, "cluster_uuid": "no hexadecimal"}',
    ],
)
def test_a_damaged_marker_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "node.json").write_text(content)
    assert "damaged" in refusal(tmp_path)


def test_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"format": 3, "cluster": "c", "node": 1}')
    assert "format 3" in refusal(tmp_path)


def test_a_missing_parent_and_a_file_in_its_place(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing" / "data")
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal(tmp_path / "file")


def test_an_empty_or_missing_directory_is_refused_and_left_alone_unless_it_is_to_be_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        assert "mount its disk or restore it; a new one is made once, with --format" in refusal(path, making=Making.NO)
    assert list(tmp_path.iterdir()) == []
    claim(tmp_path, "c", 1, Making.YES).close()
    assert "formatted already: start without --format" in refusal(tmp_path, making=Making.YES)
    claim(tmp_path, "c", 1, Making.NO).close()
    claim(tmp_path, "c", 1, Making.IF_MISSING).close()


def test_it_belongs_to_the_cluster_it_met_first(tmp_path: Path) -> None:
    uuid = bytes(range(16))
    with claim(tmp_path, "c", 1) as directory:
        assert directory.cluster_uuid == b""
        directory.keep_cluster(uuid)
        assert directory.cluster_uuid == uuid
    with claim(tmp_path, "c", 1, Making.NO) as directory:
        assert directory.cluster_uuid == uuid


def test_a_directory_of_format_1_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"format": 1, "cluster": "c", "node": 1}')
    with claim(tmp_path, "c", 1, Making.NO) as directory:
        assert directory.cluster_uuid == b""
        directory.keep_cluster(bytes(range(16)))
    assert json.loads((tmp_path / "node.json").read_text())["format"] == 2


def test_the_clusters_configuration_is_kept_for_a_start_without_a_manager(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with claim(tmp_path / "data", "lab", 1) as directory:
        assert directory.kept_config() == PushedConfig(0, "")
        directory.keep_config(PushedConfig(3, "read_threads = 7"))
    with claim(tmp_path / "data", "lab", 1) as directory:
        assert directory.kept_config() == PushedConfig(3, "read_threads = 7")
        (tmp_path / "data" / "cluster_config.json").write_text("{")
        assert directory.kept_config() == PushedConfig(0, ""), "a start does not fail by it"
        assert "cannot be read" in caplog.text
