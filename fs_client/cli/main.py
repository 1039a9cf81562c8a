"""The entry point: the table of commands, and the one place where failures become a line and an exit code.

Exit codes are those of docs/COMMANDS.md. A traceback is shown only with `--debug` or EMBERFS_DEBUG, because to a user
it hides the one line that matters.
"""

import io
import os
import sys
from typing import Any, NamedTuple, NoReturn

import click

from fs_client.cli.failure import EXIT_BROKEN_PIPE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Done, reason
from fs_client.cli.remote import printable
from fs_client.cli.suggest import OTHER_NAMES, SuggestingGroup
from fs_client.cli.token_file import token_file_option


class Entry(NamedTuple):
    """A command that is not imported yet."""

    section: str
    help: str
    """The first sentence of the command's own help, so that listing the commands imports none of them."""


COMMANDS: dict[str, Entry] = {
    "up": Entry("Cluster", "Start a whole cluster on this machine."),
    "down": Entry("Cluster", "Stop the cluster that `emberfs up` started in a directory."),
    "status": Entry("Cluster", "Show the nodes, chains and space of a cluster."),
    "nodes": Entry("Cluster", "Show the storage nodes: state, release, space, configuration."),
    "config": Entry("Cluster", "Show and change the cluster's configuration."),
    "targets": Entry("Cluster", "Show which node holds how many replicas, and what is moving."),
    "rebalance": Entry("Cluster", "Spread targets over all nodes."),
    "drain": Entry("Cluster", "Move everything off a node, or one target off its node."),
    "placement": Entry("Cluster", "Show how a dead node's reads spread over the others."),
    "scrub": Entry("Cluster", "Show how far the scrub of stored bytes has come, or begin it now."),
    "fsck": Entry("Cluster", "Check the whole cluster: chunks against files, replicas against each other."),
    "chains": Entry("Cluster", "Show the chains of a cluster, and what is done about those that are degraded."),
    "certs": Entry("Cluster", "Make, show and rotate the certificates of a cluster."),
    "doctor": Entry("Cluster", "Say what is wrong with this machine or with a cluster, and what to do about it."),
    "top": Entry("Cluster", "Show live what each process of a cluster does: operations, bytes, how long they take."),
    "users": Entry("Cluster", "Manage the users and tokens of a cluster."),
    "backup": Entry("Cluster", "Write all that the metadata service knows into a file."),
    "restore": Entry("Cluster", "Make a metadata server's store of a backup."),
    "demo": Entry("Cluster", "Start a cluster, fill it with samples and train from it."),
    "mount": Entry("Cluster", "Mount a cluster, or one directory of it, on a directory."),
    "stats": Entry("Cluster", "Show what a mount did and holds."),
    "umount": Entry("Cluster", "Unmount what `emberfs mount` has mounted."),
    "ls": Entry("Files", "List directories."),
    "cp": Entry("Files", "Copy files and trees into, out of and between clusters."),
    "cat": Entry("Files", "Write files to standard output."),
    "head": Entry("Files", "Write the beginning of files to standard output."),
    "tail": Entry("Files", "Write the end of files to standard output."),
    "stat": Entry("Files", "Show everything known about files."),
    "info": Entry("Files", "Show where files lie: their chunks, the chains these are on, and what each replica has."),
    "warmup": Entry("Files", "Read files and trees into the page caches of the storage daemons."),
    "mkdir": Entry("Files", "Make directories."),
    "mv": Entry("Files", "Rename files and directories."),
    "rm": Entry("Files", "Remove files and trees."),
    "rmdir": Entry("Files", "Remove empty directories."),
    "ln": Entry("Files", "Make links."),
    "readlink": Entry("Files", "Show where symbolic links lead."),
    "touch": Entry("Files", "Set the times of files to now, and make those that do not exist."),
    "truncate": Entry("Files", "Cut or extend files to a length."),
    "chmod": Entry("Files", "Change permissions of files and directories."),
    "chown": Entry("Files", "Change owners and groups of files and directories."),
    "chgrp": Entry("Files", "Change groups of files and directories."),
    "df": Entry("Files", "Show how much space clusters have, and how much of it is free."),
    "du": Entry("Files", "Add up the space below directories."),
    "tree": Entry("Files", "Show directories and all that is below them as a tree."),
    "find": Entry("Files", "Find files by name, type and size."),
    "meta": Entry("Daemons", "Run the metadata service."),
    "storage": Entry("Daemons", "Run one storage daemon."),
    "bench": Entry(
        "Daemons", "Run the benchmarks: EmberFS beside this machine's limits, or any directories side by side."
    ),
    "completion": Entry("Daemons", "Print what makes a shell complete commands, options and their values."),
}


class Commands(SuggestingGroup):
    """Imports `fs_client.cli.<name>` and takes the click command of that name when, and only when, it runs."""

    other_names = OTHER_NAMES

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = __import__(f"fs_client.cli.{cmd_name}", fromlist=[cmd_name])
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output has gone away. Caught here, because click would call it a failure.
            raise Done(EXIT_BROKEN_PIPE) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section])


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from fs_common.release import RELEASE

    click.echo(f"emberfs {RELEASE}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--debug", is_flag=True, envvar="EMBERFS_DEBUG", help="Show tracebacks of failures.")
@token_file_option
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show it.")
def commands(debug: bool) -> None:
    """EmberFS: a parallel file system for machine-learning training and inference.

    Remote paths are written ember:/path (the cluster comes from --cluster or EMBERFS_CLUSTER, by default
    127.0.0.1:9700) or ember://host:port/path. Sizes are in powers of 1024.

    Exit codes: 0 done, 1 failed (also: something is wrong with the cluster), 2 used wrongly, 130 interrupted,
    141 nobody reads the output any more, 143 ended by SIGTERM.

    \b
    Example:
      emberfs up &                             a cluster on this machine, data in ./emberfs-data
      emberfs cp -r ./images ember:/images     copy a tree into it
      emberfs ls -l ember:/images              look at it
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line (default: `sys.argv`) and exit."""
    given = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names are bytes. Those that are not UTF-8 come out as they went in.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
    if code == EXIT_BROKEN_PIPE:
        # The interpreter flushes stdout once more at its end, and would complain about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """The exit code of this command line; a failure is reported here."""
    try:
        result: Any = commands.main(arguments, prog_name="emberfs", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        where = f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return _report(f"{error.format_message()}{where}", EXIT_USAGE)
    except click.ClickException as error:
        return _report(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _report("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        _show_traceback_if_asked(arguments)
        return _report(describe(error), EXIT_FAILED)
    except Exception as error:
        _show_traceback_if_asked(arguments)
        return _report(f"internal error: {type(error).__name__}: {error} (--debug shows where)", EXIT_FAILED)


def describe(error: OSError) -> str:
    """One line for an error of the file system or of the operating system: the subject, then what is wrong."""
    names = [
        os.fsdecode(name) if isinstance(name, bytes) else str(name)
        for name in (error.filename, error.filename2)
        if name is not None
    ]
    return ": ".join([*names, reason(error)])


def _report(line: str, code: int) -> int:
    click.echo("emberfs: " + printable(" ".join(line.splitlines())), err=True)
    return code


def _show_traceback_if_asked(arguments: list[str]) -> None:
    if "--debug" in arguments or os.environ.get("EMBERFS_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()


if __name__ == "__main__":
    main()
