"""The command line as a whole: help, versions, failures as one line, and nothing imported that is not needed."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from fs_client.cli import failure
from fs_client.cli.main import COMMANDS, commands, describe
from fs_common.release import RELEASE

ROOT = Path(__file__).parents[2]


def emberfs(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fs_client.cli", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        cwd=ROOT,
    )


def test_the_release_is_the_one_of_the_distribution() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == RELEASE
    assert emberfs("--version").stdout == f"emberfs {RELEASE}\n"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    context = click.Context(commands, info_name="emberfs")
    command = commands.get_command(context, name)
    assert command is not None
    assert command.help is not None
    assert command.help.partition("\n")[0] == COMMANDS[name].help, "the table repeats the first line of the help"
    text = command.get_help(click.Context(command, info_name=name, parent=context))
    assert "Example:" in text
    assert f"emberfs {name}" in text.split("Example:")[1]
    undocumented = [
        option.name
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and not option.help
    ]
    assert not undocumented


def test_help_and_version_import_no_heavy_module() -> None:
    program = (
        "import sys\n"
        "from fs_client.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'numpy', 'uvloop', 'asyncio', 'msgspec', 'fs_client.filesystem', 'torch', 'grpc'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for arguments in (["--help"], ["--version"], ["up", "--help"], ["ls", "--help"], ["cp", "--help"]):
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


PAGE = (ROOT / "docs" / "COMMANDS.md").read_text()


def test_the_page_has_every_command_and_exit_code() -> None:
    assert [name for name in COMMANDS if f"`emberfs {name}`" not in PAGE] == []
    codes = {value for name, value in vars(failure).items() if name.startswith("EXIT_")} | {0}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
    text = " ".join((commands.help or "").split())
    assert [code for code in codes if not re.search(rf"\b{code} [a-z]", text)] == []


def test_the_page_has_what_prints_json_and_no_other() -> None:
    said = set(re.findall(r"`(\w+)`", PAGE.partition("has `--json`:")[2].partition("Keys stay")[0]))
    context = click.Context(commands)
    prints = set()
    for name in COMMANDS:
        command = commands.get_command(context, name)
        assert command is not None
        if any("--json" in parameter.opts for parameter in command.params):
            prints.add(name)
    assert said == prints


def test_the_page_names_options_that_are_there() -> None:
    """`emberfs ls` | `-l -a` ...: each command of a row has at least one of its options, each option some command."""
    context = click.Context(commands)
    rows = re.findall(r"^\| (`emberfs \w+`.*?) \| (`-.*?) \|", PAGE, re.MULTILINE)
    assert len(rows) > 10
    for names, options in rows:
        known: set[str] = set()
        for name in re.findall(r"`emberfs (\w+)`", names):
            command = commands.get_command(context, name)
            assert command is not None
            known |= {option for parameter in command.params for option in parameter.opts}
        wanted = set(re.findall(r"(?<![\w-])(-\w+)", options))
        assert wanted <= known, names


def test_the_readme_can_be_followed_from_top_to_bottom() -> None:
    """Nothing stops the cluster before what needs it, and every command is one."""
    text = (ROOT / "README.md").read_text().partition("## Five minutes")[2].partition("## Documents")[0]
    steps = ("emberfs up ", "emberfs status", "mkdir -p /mnt", "emberfs mount ", "emberfs umount ", "emberfs.connect(")
    places = [text.index(step) for step in (*steps, "FileDataset(", "emberfs down ", "docker compose ")]
    assert places == sorted(places)
    named = re.findall(r"^emberfs (\w+)", text, re.MULTILINE)
    assert len(named) > 8 and set(named) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "found"), [("emberfs ta", "tail"), ("emberfs ch", "chmod"), ("emberfs ln --sym", "--symbolic")]
)
def test_shells_complete_commands_and_options(words: str, found: str) -> None:
    count = str(len(words.split()) - 1)
    completed = emberfs(_EMBERFS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
    assert f"plain,{found}" in completed.stdout.splitlines()


def test_h_is_help_where_it_is_nothing_else() -> None:
    """As of coreutils: of `ls`, `du`, `df` it means sizes for people."""
    assert emberfs("cp", "-h").stdout.startswith("Usage: emberfs cp")
    for command in ("ls", "du", "df", "tree", "chown", "chgrp"):
        shown = emberfs(command, "--help").stdout
        assert shown.startswith(f"Usage: emberfs {command}") and "-h, " in shown and "-h, --help" not in shown


def test_no_command_shows_the_help() -> None:
    result = emberfs()
    assert result.returncode == 2
    assert "Usage: emberfs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frob"], "emberfs: No such command 'frob'. (see: emberfs --help)"),
        (["statu"], "emberfs: No such command 'statu'. Did you mean status or stat or stats? (see: emberfs --help)"),
        (["put", "a", "ember:/"], "emberfs: No such command 'put'. Did you mean cp? (see: emberfs --help)"),
        (["config", "shwo"], "emberfs: No such command 'shwo'. Did you mean show? (see: emberfs config --help)"),
        (["ls", "emberfs:/data"], "emberfs: 'emberfs:/data': did you mean ember:/data? A local file of this name is"),
        (["cp", "a", "Ember://h:1/data"], "did you mean ember://h:1/data?"),
        (["ls", "h:1:/data"], "emberfs: 'h:1:/data': write ember://h:1/data\n"),
        (["status", "ember:///"], "'ember:///' names no server; write HOST:PORT or ember://HOST:PORT/"),
        (["up", "--storage", "0"], "emberfs: Invalid value for '--storage': 0 is not in the range 1<=x<=99."),
        (["ls", "--bad"], "emberfs: No such option '--bad'."),
        (["up", "--chunk-size", "100000"], "chunk size 100000 is not a power of two from 64 KiB to 64 MiB"),
        (["up", "--chunk-size", "big"], "'big' is not a size; write for example 4096, 64K, 1M or 2G"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], line: str) -> None:
    result = emberfs(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert line in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_failure_is_one_line_and_1(tmp_path: Path) -> None:
    result = emberfs("down", "--dir", str(tmp_path / "none"))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"emberfs: {tmp_path / 'none'} does not exist\n"


def test_a_failure_says_names_without_what_terminals_obey(tmp_path: Path) -> None:
    result = emberfs("down", "--dir", str(tmp_path / "red\x1b[31m"))
    assert (result.returncode, result.stderr) == (1, f"emberfs: {tmp_path}/red\\x1b[31m does not exist\n")


def test_describe_names_the_subject_first() -> None:
    assert describe(FileNotFoundError(2, "No such file or directory", b"/a")) == "/a: No such file or directory"
    assert describe(OSError("all is lost")) == "all is lost"
    cluster = "cannot reach the cluster"
    assert describe(ConnectionRefusedError(111, f"Connection refused: {cluster}")) == cluster
    assert describe(PermissionError(1, "Operation not permitted: not the owner", "/a")) == (
        "/a: Operation not permitted (not the owner)"
    )
