"""Becoming another program: commands that run a Python module of another part replace themselves by it.

The layers forbid `fs_client` to import the services, and a daemon has no use for the command line's own imports.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fs_client.cli.failure import Failure
from fs_client.cli.local.process import module_environment, python_module


def execute_module(module: str, arguments: Sequence[str], extra: str, *, within: Path | None = None) -> NoReturn:
    """Replace this process by `python -m module arguments`. Raises `Failure` naming the extra it needs.

    `within`: the folder that the module is in, where that is none that Python searches.
    """
    environment = module_environment()
    if within is None:
        require_module(module, extra)
    else:
        present = environment.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = os.pathsep.join([str(within), *([present] if present else [])])
    command = [*python_module(module), *arguments]
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def require_module(module: str, extra: str) -> None:
    """Raise `Failure` naming the extra that has it, unless it is there."""
    if importlib.util.find_spec(module) is None:
        raise Failure(f"the package {module} is not installed; install emberfs[{extra}]")
