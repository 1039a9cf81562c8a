"""What people do all day: git, make, a virtual environment."""

import subprocess
import sys
from pathlib import Path

from tests.posix.battery.digest import describe, difference
from tests.posix.battery.place import Failed, Place, need
from tests.posix.battery.trees import source_tree

_GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


def git(place: Place) -> None:
    """Commits, branches, a merge, packs, clones: each whole by git's own check, and equal to what went in."""
    need("git", "git")
    first, second, third = place.path / "first", place.path / "second", place.elsewhere / "third"

    def run(*words: str | Path, cwd: Path = first) -> str:
        return place.run("git", *words, cwd=cwd, environment=_GIT).stdout

    first.mkdir()
    source_tree(first)
    run("init", "-q", "-b", "main")
    run("add", "-A")
    run("commit", "-q", "-m", "one")
    wanted = _sources(first)
    for number in range(5):
        run("checkout", "-q", "-b", f"branch-{number}", "main")
        (first / f"new-{number}.txt").write_text(f"{number}\n" * 1000)
        (first / "package_1" / "part_1" / "module_1.py").unlink(missing_ok=True)
        run("add", "-A")
        run("commit", "-q", "-m", f"branch {number}")
    run("checkout", "-q", "main")
    if text := difference(wanted, _sources(first)):
        raise Failed(f"checking main out again does not give what was committed:\n{text}")
    run("merge", "-q", "--no-edit", *(f"branch-{number}" for number in range(5)))
    if run("status", "--porcelain").strip():
        raise Failed(f"git status is not clean after a merge:\n{run('status', '--porcelain')}")
    run("fsck", "--full", "--strict")
    run("gc", "-q", "--aggressive", "--prune=now")
    run("fsck", "--full", "--strict")
    run("clone", "-q", "--no-hardlinks", first, second)
    run("clone", "-q", f"file://{second}", third)
    for clone in (second, third):
        run("fsck", "--full", "--strict", cwd=clone)
        if text := difference(_sources(first), _sources(clone)):
            raise Failed(f"the clone {clone} differs:\n{text}")


def _sources(path: Path) -> list[str]:
    return [line for line in describe(path, times=False) if not line.startswith(("b'.git", "b'.'"))]


def make(place: Place) -> None:
    """A program of many files, built in parallel; then make finds nothing to do, and one thing after a change."""
    need("make", "make")
    need("gcc", "gcc")
    count = 40
    for number in range(count):
        (place.path / f"part{number}.c").write_text(
            f'#include "all.h"\nint part{number}(void) {{ return {number}; }}\n'
        )
    declarations = "\n".join(f"int part{number}(void);" for number in range(count))
    (place.path / "all.h").write_text(f"#include <stdio.h>\n{declarations}\n")
    calls = " + ".join(f"part{number}()" for number in range(count))
    (place.path / "main.c").write_text(f'#include "all.h"\nint main(void) {{ printf("%d\\n", {calls}); return 0; }}\n')
    (place.path / "Makefile").write_text(
        "objects := $(patsubst %.c,%.o,$(wildcard *.c))\n"
        "program: libparts.a main.o\n\tcc -o $@ main.o libparts.a\n"
        "libparts.a: $(filter part%,$(objects))\n\tar rcs $@ $^\n"
        "%.o: %.c all.h\n\tcc -O1 -c -o $@ $<\n"
    )
    place.run("make", "-j4")
    _prints(place, str(sum(range(count))))
    _does(place, 0)
    (place.path / "part7.c").write_text('#include "all.h"\nint part7(void) { return 1007; }\n')
    _does(place, 1)
    _prints(place, str(sum(range(count)) + 1000))
    (place.path / "all.h").touch()
    _does(place, count + 1)


def _does(place: Place, compilations: int) -> None:
    output = place.run("make").stdout
    found = sum(" -c -o " in line for line in output.splitlines())
    if found != compilations:
        raise Failed(f"make compiles {found} files, expected {compilations}:\n{output[-1000:]}")


def _prints(place: Place, wanted: str) -> None:
    found = place.run(place.path / "program").stdout.strip()
    if found != wanted:
        raise Failed(f"the program prints {found}, expected {wanted}")


def venv(place: Place) -> None:
    """A virtual environment with pip in it, which works, and works again after it was moved by `cp -a`."""
    environment = place.path / "environment"
    place.run(sys.executable, "-m", "venv", environment, timeout_s=600)
    for path in (environment, place.path / "copy"):
        if not path.exists():
            place.run("cp", "-a", environment, path)
        output = place.run(path / "bin" / "python", "-m", "pip", "--version").stdout
        if str(path / "lib") not in output and path == environment:
            raise Failed(f"pip does not come from {path}: {output}")
        place.run(path / "bin" / "python", "-m", "compileall", "-q", "-f", path / "lib", timeout_s=600)
    if text := difference(_compiled(environment), _compiled(place.path / "copy")):
        raise Failed(f"compiled twice, differently:\n{text}")


def _compiled(path: Path) -> list[str]:
    found = subprocess.run(["find", ".", "-name", "*.pyc"], cwd=path, capture_output=True, text=True, check=True)
    return sorted(found.stdout.splitlines())
