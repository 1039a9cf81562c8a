"""The words of -o."""

from pathlib import Path

import pytest

from fs_client.cli.mount_helper import Arguments
from fs_client.cli.mounting import settings_of
from fs_client.fuse import mountpoint
from fs_client.fuse.options import DATASET_S, BadOption, parse
from fs_common.limits import MIB


def test_nothing_said_is_close_to_open_for_everybody() -> None:
    options = parse([])
    assert options.policy.consistency == "close-to-open"
    assert (options.policy.attribute_s, options.policy.name_s, options.policy.absent_s) == (1.0, 1.0, 1.0)
    assert options.allow_other is None and options.default_permissions and not options.policy.read_only
    assert options.kernel_words == {"nosuid", "nodev"}


def test_others_use_it_if_this_user_may_let_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def let_others(*words: str) -> bool:
        return settings_of("127.0.0.1:9700", "/mnt", words).kernel.allow_other

    conf = tmp_path / "fuse.conf"
    monkeypatch.setattr(mountpoint, "FUSE_CONF", str(conf))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert let_others() and not let_others("noallow_other")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert not let_others() and let_others("allow_other")
    conf.write_text("# user_allow_other\nmount_max = 7\n")
    assert not let_others()
    conf.write_text("mount_max = 7\nuser_allow_other\n")
    assert let_others() and not let_others("noallow_other")


def test_words_come_one_by_one_or_in_lists_and_the_last_wins() -> None:
    options = parse(["ro,cache=16M", "noexec", "cache=32MiB", "rw", "suid"])
    assert options.policy.cache_bytes == 32 * MIB
    assert options.kernel_words == {"nodev", "noexec"}
    assert not options.policy.read_only
    assert not options.low_latency and parse(["low_latency"]).low_latency


def test_words_of_fstab_and_mount_mean_nothing_here() -> None:
    assert parse(["defaults,_netdev,noauto,x-systemd.automount,nofail,users,comment=mine"]) == parse([])


def test_reading_changes_no_time_and_the_mount_says_so_whatever_is_asked_for() -> None:
    for word in ("defaults", "noatime", "atime", "relatime", "strictatime", "nodiratime", "lazytime"):
        assert "noatime" in settings_of("127.0.0.1:9700", "/mnt", (word,)).kernel.flags


def test_what_mount_8_says_when_it_mounts_again_is_understood() -> None:
    words = "ro,nodev,relatime,remount,noatime,user_id=0,group_id=0,default_permissions,allow_other,cache=1G"
    settings = settings_of("127.0.0.1:9700", "/mnt", ("suid,dev", words))
    assert settings.remount and settings.kernel.flags == {"ro", "nodev", "noatime"}
    with pytest.raises(BadOption, match="user_id"):
        parse(["user_id=0"])


def test_mount_8_does_not_say_suid_and_dev_and_means_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def flags(user: int, words: str) -> frozenset[str]:
        monkeypatch.setattr("os.geteuid", lambda: user)
        arguments = Arguments(["meta1:9700", "/mnt", "-o", words])
        return settings_of(arguments.cluster, arguments.mountpoint, arguments.options).kernel.flags

    assert flags(0, "rw") == {"noatime"}
    assert flags(0, "rw,nosuid") == {"noatime", "nosuid"}
    assert flags(0, "rw,noexec,nosuid,nodev,user") == {"noatime", "nosuid", "nodev", "noexec"}
    assert flags(1000, "rw") == {"noatime", "nosuid", "nodev"}


@pytest.mark.parametrize(
    "word",
    [
        "consistancy=strict",
        "consistency=loose",
        "ro=1",
        "cache",
        "cache=",
        "cache=much",
        "cache=-1",
        "dirty=1K",
        "timeout=0",
        "timeout=nan",
        "attr_timeout=-1",
        "max_read=1",
        "low_latency=1",
    ],
)
def test_what_is_not_known_is_refused_by_name(word: str) -> None:
    with pytest.raises(BadOption, match=word.partition("=")[0]):
        parse([word])


def test_strict_believes_nothing_for_any_time() -> None:
    policy = parse(["consistency=strict"]).policy
    assert (policy.attribute_s, policy.name_s, policy.absent_s) == (0, 0, 0)
    with pytest.raises(BadOption, match="strict"):
        parse(["consistency=strict", "attr_timeout=1"])


def test_dataset_is_read_only_and_believes_for_long() -> None:
    options = parse(["consistency=dataset"])
    assert options.policy.read_only and options.policy.attribute_s == DATASET_S
    assert options.read_ahead_bytes == 64 * MIB
    assert parse(["consistency=dataset,read_ahead=1M,attr_timeout=5"]).read_ahead_bytes == MIB


def test_where_the_kernel_checks_nothing_it_is_told_no_name_for_later() -> None:
    for words in (["nodefault_permissions"], ["consistency=dataset", "nodefault_permissions", "entry_timeout=5"]):
        policy = parse(words).policy
        assert not policy.kernel_checks and policy.name_s == policy.absent_s == 0.0
