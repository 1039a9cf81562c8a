"""Sizes, modes and times for people; JSON for programs."""

import json
import sys
import time
from typing import Any

from fs_common.quantities import counted as counted
from fs_common.quantities import human_size as human_size
from fs_common.quantities import size_words as size_words


def local_time(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns // 1_000_000_000))


def put(text: str, end: str = "\n") -> None:
    """A line on stdout. Programs get many lines in one write, which is half the time of a long listing."""
    sys.stdout.write(text + end)


def put_json(value: Any, indent: int | None = None) -> None:
    """Names that are not UTF-8 come out as lone surrogates, escaped: Python's and most other readers take them."""
    put(json.dumps(value, indent=indent))
