"""What a daemon makes of the cluster's configuration: layers, what takes effect at once, what is refused."""

import pytest

from fs_common.config import ConfigError
from fs_common.live_config import TEXT_BYTES_MAX, LiveConfig, parse, toml_text
from fs_common.records.cluster_config import ConfigStatus, PushedConfig
from fs_common.settings import KINDS, MetaSettings, Settings, StorageSettings, defaults_of, keys_of

NORMAL, DIRTY, FAILED = ConfigStatus.NORMAL, ConfigStatus.DIRTY, ConfigStatus.FAILED


class Daemon(StorageSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    node: int
    least_threads: int = 0

    def problems(self) -> list[str]:
        return super().problems() + (["read_threads: too few"] if self.read_threads < self.least_threads else [])


class Bench:
    def __init__(self, **own: object) -> None:
        self.live = LiveConfig("storage", Daemon, {"node": 1, **own})
        self.applied: list[Daemon] = []

    def start(self) -> None:
        self.live.connect(self.applied.append)

    def status(self) -> tuple[int, ConfigStatus, list[str]]:
        report = self.live.report
        return report.version, report.status, report.waiting


@pytest.mark.parametrize("settings", KINDS.values())
def test_the_live_keys_are_keys(settings: type[Settings]) -> None:
    assert set(keys_of(settings)) >= settings.LIVE and settings.LIVE
    assert defaults_of(settings).keys() == set(keys_of(settings))


def test_what_a_daemon_must_not_be_told_is_no_key() -> None:
    forbidden = {"cluster", "node", "directory", "host", "port", "lease_ms", "failure_ms", "replicas", "token_file"}
    assert not forbidden & {*keys_of(MetaSettings), *keys_of(StorageSettings)}


def test_a_daemons_own_file_wins_over_the_cluster_and_that_over_what_is_built_in() -> None:
    bench = Bench(read_threads=5)
    assert bench.live.offer(PushedConfig(1, "read_threads = 7\nupdates_in_flight = 9"))
    running = bench.live.running
    assert (running.read_threads, running.updates_in_flight, running.node) == (5, 9, 1)
    assert running.scrub_interval_h == StorageSettings().scrub_interval_h
    assert bench.live.report.own == "read_threads = 5\n", "what is the process's own is not told"


def test_at_the_start_every_key_is_taken() -> None:
    bench = Bench()
    assert bench.live.offer(PushedConfig(3, "read_threads = 7\nlog_level = 'debug'"))
    assert bench.status() == (3, NORMAL, []) and bench.live.running.read_threads == 7


def test_later_live_keys_take_effect_and_others_wait() -> None:
    bench = Bench()
    bench.start()
    assert bench.live.offer(PushedConfig(1, "scrub_bytes_per_s = 7\nread_threads = 3"))
    assert bench.status() == (1, DIRTY, ["read_threads"])
    assert [each.scrub_bytes_per_s for each in bench.applied] == [7]
    assert bench.live.running.read_threads == 32, "it works by what it was started with"
    assert bench.live.offer(PushedConfig(2, "scrub_bytes_per_s = 8"))
    assert bench.status() == (2, NORMAL, []), "nothing waits any more"
    assert [each.scrub_bytes_per_s for each in bench.applied] == [7, 8]


def test_a_key_that_is_taken_back_has_its_default_again() -> None:
    bench = Bench()
    bench.start()
    bench.live.offer(PushedConfig(1, "scrub_bytes_per_s = 7"))
    bench.live.offer(PushedConfig(2, ""))
    assert [each.scrub_bytes_per_s for each in bench.applied] == [7, StorageSettings().scrub_bytes_per_s]


def test_a_version_comes_once_and_nothing_is_applied_that_has_not_changed() -> None:
    bench = Bench(scrub_bytes_per_s=1)
    bench.start()
    assert bench.live.offer(PushedConfig(1, "scrub_bytes_per_s = 7"))
    assert not bench.live.offer(PushedConfig(1, "scrub_bytes_per_s = 9"))
    assert bench.applied == [] and bench.status() == (1, NORMAL, [])


@pytest.mark.parametrize(
    ("own", "text", "says"),
    [
        ({}, "read_thread = 1", "no key read_thread: did you mean read_threads"),
        ({}, "read_threads = 0", "read_threads: at least 1"),
        ({"least_threads": 4}, "read_threads = 3", "read_threads: too few, with what the daemon's own file says"),
        ({}, "read_threads = ", "is not TOML"),
    ],
)
def test_what_cannot_be_taken_changes_nothing_and_is_told(own: dict[str, int], text: str, says: str) -> None:
    bench = Bench(**own)
    bench.live.offer(PushedConfig(4, "scrub_bytes_per_s = 7"))
    bench.start()
    before = bench.live.running
    assert not bench.live.offer(PushedConfig(5, text))
    assert bench.status() == (5, FAILED, []) and says in bench.live.report.reason
    assert "\n" not in bench.live.report.reason
    assert bench.live.running == before and bench.applied == []
    assert bench.live.offer(PushedConfig(6, "scrub_bytes_per_s = 8")), "and the next one is taken"
    assert bench.status() == (6, NORMAL, [])


def test_a_change_that_breaks_while_it_takes_effect_is_failed() -> None:
    bench = Bench()

    def broken(config: Daemon) -> None:
        raise RuntimeError("no")

    bench.live.connect(broken)
    before = bench.live.running
    assert not bench.live.offer(PushedConfig(1, "scrub_bytes_per_s = 7"))
    assert bench.status() == (1, FAILED, []) and bench.live.running == before


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("console", "", "there is no configuration for 'console'"),
        ("storage", "node = 3", "no key node: it may be one of a daemon's own file"),
        ("storage", "[section]", "no key section"),
        ("storage", "log_level = 'loud'", "log_level: Invalid enum value 'loud'"),
        ("storage", "scrub_bytes_per_s = '1M'", "scrub_bytes_per_s: Expected `int`, got `str`"),
        ("meta", "request_keep_ms = 1", "request_keep_ms: at least 60000"),
        ("meta", "#" * (TEXT_BYTES_MAX + 1), "more than"),
    ],
)
def test_a_text_that_is_none_is_one_clear_line(kind: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(kind, text)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_values_are_written_as_toml_reads_them() -> None:
    values = {"read_threads": 7, "log_json": True, "log_level": "debug"}
    assert parse("storage", toml_text(values)) == values
