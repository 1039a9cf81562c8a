"""Options and argument types that several commands share."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fs_client.cli.token_file import token_file_option
from fs_common.limits import GIB, KIB, MIB

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
_SIZE = re.compile(r"(\d+)\s*([BKMGT]?)(?:iB|B)?", re.IGNORECASE)


class Size(click.ParamType[int]):
    """A number of bytes, with an optional unit in powers of 1024: 4096, 64K, 1M, 1MiB, 2G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size; write for example 4096, 64K, 1M or 2G", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


class ChunkSize(Size):
    """A size a chunk may have."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from fs_common.errors import EmberError
        from fs_common.layout import Layout, validate

        size = super().convert(value, param, ctx)
        try:
            validate(Layout(chunk_size=size))
        except EmberError as error:
            self.fail(error.message, param, ctx)
        return size


recursive_r_option = click.option("-R", "--recursive", is_flag=True, help="All that is below, too.")
no_dereference_option = click.option(
    "-h", "--no-dereference", is_flag=True, help="Of a symbolic link: itself, not what it leads to."
)
HUMAN_H = {"help_option_names": ["--help"]}
"""Settings of commands whose -h is not --help: sizes for people, as ls, du and df have it."""


CLUSTER_DEFAULT = "127.0.0.1:9700"


class ClusterAddress(click.ParamType[str]):
    """`HOST:PORT[,...]` of metadata servers; what is written before the path of remote ones, too: `ember://HOST:PORT/`."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text.startswith("ember://"):
            text = text.removeprefix("ember://").partition("/")[0]
            if not text:
                self.fail(f"{value!r} names no server; write HOST:PORT or ember://HOST:PORT/", param, ctx)
        elif text.startswith("ember:/"):
            return ""  # the usual one
        return text


cluster_argument = click.argument("address", required=False, type=ClusterAddress(), metavar="[CLUSTER]")
_address_option = click.option(
    "--cluster",
    type=ClusterAddress(),
    envvar="EMBERFS_CLUSTER",
    default=CLUSTER_DEFAULT,
    show_default=True,
    metavar="HOST:PORT[,...]",
    help="Metadata servers, for paths that do not name them (or EMBERFS_CLUSTER).",
)


def cluster_option(command: F) -> F:
    """Which cluster, and who asks."""
    return _address_option(token_file_option(command))


def target_options(command: F) -> F:
    """Of `cp` and `mv`: what the last argument is."""
    into = click.option("-t", "--target-directory", metavar="DIR", help="Every argument is a SOURCE and goes into DIR.")
    name = click.option(
        "-T", "--no-target-directory", is_flag=True, help="DESTINATION is the new name, a directory there or not."
    )
    return into(name(command))


durability_option = click.option(
    "--durability",
    type=click.Choice(["disk", "memory"]),
    help="When a write counts as stored: synced to every replica's disk, or in every replica's page cache.",
)
chunk_size_option = click.option(
    "--chunk-size", type=ChunkSize(), help="Bytes of a file that are stored together: a power of two, 64K to 64M."
)
stripe_option = click.option("--stripe", type=click.IntRange(1, 4096), help="Chains that one file is spread over.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Say what is done, a line for each path.")
