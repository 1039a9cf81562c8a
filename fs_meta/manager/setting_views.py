"""The settings of a kind of daemon as operators are shown them: key, value, where it comes from. Pure."""

import tomllib
from collections.abc import Mapping
from typing import Any

from fs_common.config import NOT_TOML, ConfigError
from fs_common.live_config import parse, toml_value
from fs_common.records.cluster_config import NO_REPORT, ConfigReport, Setting
from fs_common.settings import KINDS, defaults_of

BUILT_IN = "built-in"
CLUSTER = "cluster"
FILE = "file"


def settings_of(kind: str, text: str, report: ConfigReport = NO_REPORT) -> list[Setting]:
    """In the order in which they are declared. `text`: the cluster's configuration; `report`: of the daemon that is
    asked about, whose own file wins; by default there is none, and it is the cluster's view."""
    cluster, own = _parsed(kind, text), _own(report)
    settings = []
    for key, built_in in defaults_of(KINDS[kind]).items():
        value, origin = built_in, BUILT_IN
        if key in cluster:
            value, origin = cluster[key], CLUSTER
        if key in own:
            value, origin = own[key], FILE
        settings.append(
            Setting(
                key,
                toml_value(value),
                toml_value(built_in),
                origin,
                key in KINDS[kind].LIVE,
                key in report.waiting,
            )
        )
    return settings


def _parsed(kind: str, text: str) -> Mapping[str, Any]:
    """What was valid when it was set: a key that this release does not know is not shown."""
    try:
        return parse(kind, text)
    except ConfigError:
        return {}


def _own(report: ConfigReport) -> Mapping[str, Any]:
    try:
        return tomllib.loads(report.own)
    except NOT_TOML:
        return {}
